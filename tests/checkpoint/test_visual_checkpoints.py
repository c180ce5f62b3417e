"""Folders of Qwen2.5-VL: every layout of config.json with every spelling of tensors, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rlvr_limit.checkpoint import export_hf, load_hf, read_model_config, stop_tokens
from rlvr_limit.checkpoint.tensors import find_tensors
from rlvr_limit.distributed.mesh import make_mesh
from rlvr_limit.models.decoder import parameter_count
from rlvr_limit.models.image_layout import VisionConfig
from rlvr_limit.settings import MeshConfig
from rlvr_limit.types import UserError
from tests.goldens import visual
from tests.support.visual_models import VISUAL_NAMES, seeing_model, write_folder

NAME = "qwen25vl-untied"
FLAT = visual.CHECKPOINTS[NAME]
OF_THE_WHOLE = ("architectures", "model_type", "vision_config", "tie_word_embeddings", "image_token_id")


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """As transformers 5 saves it."""
    text = {name: x for name, x in flat.items() if name not in OF_THE_WHOLE and not name.startswith("rope")}
    rope = flat["rope_scaling"] | {"rope_type": "default", "rope_theta": flat["rope_theta"]}
    whole = {name: flat[name] for name in OF_THE_WHOLE}
    seen = flat["vision_config"] | {
        "model_type": "qwen2_5_vl_vision",
        "in_channels": 3,
        "initializer_range": 0.02,
        "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "axial"},
    }
    return whole | {
        "vision_config": seen,
        "text_config": text | {"model_type": "qwen2_5_vl_text", "rope_parameters": rope, "pad_token_id": None},
        "transformers_version": "5.24.0",
        "dtype": "float32",
    }


def mixed(flat: dict[str, Any]) -> dict[str, Any]:
    """Flat and nested, which disagree: the nested one counts."""
    return flat | {"hidden_size": 2048, "rope_theta": 5.0, "num_hidden_layers": 36} | nested(flat)


LAYOUTS = {"flat": lambda flat: flat, "nested": nested, "mixed": mixed}
SPELLINGS = {
    "hub": lambda name: name,
    "4.52": lambda name: name if name == "lm_head.weight" else "model." + name.replace("model.", "language_model.", 1),
}


def renamed(name: str, spelling: str) -> dict[str, np.ndarray]:
    return {SPELLINGS[spelling](tensor): x for tensor, x in visual.state_dict(name).items()}


def equal(a: Any, b: Any) -> bool:
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y), a, b))


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
@VISUAL_NAMES
def test_all_layouts_and_spellings_are_one_model(name: str, layout: str, spelling: str, tmp_path: Path) -> None:
    model, params = seeing_model(name)
    write_folder(tmp_path, LAYOUTS[layout](visual.CHECKPOINTS[name]), renamed(name, spelling))
    assert read_model_config(tmp_path, "float32") == model
    assert equal(load_hf(tmp_path, model, make_mesh(MeshConfig())), params)


@VISUAL_NAMES
def test_an_export_has_the_hubs_names_and_every_bit(name: str, tmp_path: Path) -> None:
    model, params = seeing_model(name)
    source = write_folder(tmp_path / "in", nested(visual.CHECKPOINTS[name]), visual.state_dict(name))
    (source / "preprocessor_config.json").write_text("{}")
    export_hf(tmp_path / "out", params, model, source)
    stored = find_tensors(tmp_path / "out")
    assert {tensor: x.shape for tensor, x in stored.items()} == {
        tensor: x.shape for tensor, x in visual.state_dict(name).items()
    }
    assert read_model_config(tmp_path / "out", "float32") == model
    assert equal(load_hf(tmp_path / "out", model, make_mesh(MeshConfig())), params)
    fields = json.loads((tmp_path / "out" / "config.json").read_text())
    assert fields["vision_start_token_id"] == visual.START and fields["image_token_id"] == visual.IMAGE
    assert (tmp_path / "out" / "preprocessor_config.json").is_file()


def test_released_sizes_count_as_many_parameters_as_the_released_model(tmp_path: Path) -> None:
    released = FLAT | {
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        # A file that was saved again leaves out what its class says.
        "vision_config": {"hidden_size": 1280, "model_type": "qwen2_5_vl"},
    }
    (tmp_path / "config.json").write_text(json.dumps(released))
    model = read_model_config(tmp_path, "bfloat16")
    assert model.vision == VisionConfig(1280, 32, 16, 3420, (7, 15, 23, 31), visual.IMAGE, (16, 24, 24))
    assert parameter_count(model) == 8_292_166_656


def test_a_theta_that_only_the_outer_part_names_counts(tmp_path: Path) -> None:
    text = nested(FLAT)["text_config"] | {"rope_parameters": None, "rope_scaling": FLAT["rope_scaling"]}
    (tmp_path / "config.json").write_text(json.dumps(nested(FLAT) | {"rope_theta": 5e5, "text_config": text}))
    assert read_model_config(tmp_path, "float32").rope_theta == 5e5


def test_tokens_that_end_an_answer_are_found_in_the_nested_part(tmp_path: Path) -> None:
    fields = nested(FLAT)
    (tmp_path / "config.json").write_text(json.dumps(fields | {"text_config": {"eos_token_id": 7}}))
    assert stop_tokens(tmp_path) == (7,)


WRONG = {
    "out_hidden_size: 96 is not hidden_size 64": {"out_hidden_size": 96},
    "hidden_size: is missing": {"hidden_size": None},
    "hidden_size: 30 is not": {"hidden_size": 30},
    "fullatt_block_indexes: .* is not of its 4 layers": {"fullatt_block_indexes": [4]},
    'hidden_act: .gelu. is not supported: it must be "silu"': {"hidden_act": "gelu"},
    "window_size: 100 is not a whole number": {"window_size": 100},
    "rope_parameters": {"rope_parameters": {"rope_theta": 1.0}},
    "new_field: 1 is a field": {"new_field": 1},
}


@pytest.mark.parametrize("line", WRONG)
def test_a_tower_that_is_another_is_refused_by_its_field(line: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(FLAT | {"vision_config": FLAT["vision_config"] | WRONG[line]}))
    with pytest.raises(UserError, match=f"config.json: vision_config.{line}"):
        read_model_config(tmp_path, "float32")


def test_sections_must_share_out_a_heads_frequencies(tmp_path: Path) -> None:
    wrong = FLAT | {"rope_scaling": {"type": "mrope", "mrope_section": [2, 2, 2]}}
    (tmp_path / "config.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=r"mrope_section: \[2, 2, 2\] is not three numbers whose sum is 8"):
        read_model_config(tmp_path, "float32")


def test_a_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    twice = visual.state_dict(NAME) | {"model.visual.merger.ln_q.weight": np.zeros(32, np.float32)}
    write_folder(tmp_path, FLAT, twice)
    with pytest.raises(UserError, match="under two names: .*visual.merger.ln_q.weight"):
        load_hf(tmp_path, seeing_model(NAME)[0], make_mesh(MeshConfig()))


@pytest.mark.parity
@pytest.mark.parametrize("layout", LAYOUTS)
@VISUAL_NAMES
def test_transformers_reads_our_export_and_we_read_what_it_saves(name: str, layout: str, tmp_path: Path) -> None:
    import torch
    import transformers

    write_folder(tmp_path / "in", LAYOUTS[layout](visual.CHECKPOINTS[name]), visual.state_dict(name))
    model = read_model_config(tmp_path / "in", "float32")
    params = load_hf(tmp_path / "in", model, make_mesh(MeshConfig()))
    export_hf(tmp_path / "ours", params, model, tmp_path / "in")
    theirs = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    theirs.save_pretrained(tmp_path / "theirs")
    assert read_model_config(tmp_path / "theirs", "float32") == model
    assert equal(load_hf(tmp_path / "theirs", model, make_mesh(MeshConfig())), params)
