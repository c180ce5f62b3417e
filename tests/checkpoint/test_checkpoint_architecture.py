"""Every field of a config.json is used, inert under a condition, or refused by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_limit.checkpoint import check_vocabulary, read_model_config, stop_tokens
from rlvr_limit.checkpoint.architecture import model_config_json
from rlvr_limit.checkpoint.fields import INERT
from rlvr_limit.models.decoder import ModelConfig, RopeScaling
from rlvr_limit.types import UserError
from tests.support.checkpoint_folders import LLAMA, QWEN2, QWEN3

LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
DUAL = {"chunk_size": 262144, "local_size": 8192, "original_max_position_embeddings": 262144}
NO = object()
"""Stands for a field that is left out."""


def read(folder: Path, fields: dict[str, Any], dtype: str = "float32") -> ModelConfig:
    (folder / "config.json").write_text(json.dumps({name: x for name, x in fields.items() if x is not NO}))
    return read_model_config(folder, dtype)


def refusal(folder: Path, fields: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        read(folder, fields)
    line = str(caught.value)
    assert "\n" not in line and str(folder / "config.json") in line
    return line


def test_fields_of_each_family_become_those_of_the_decoder(tmp_path: Path) -> None:
    qwen2 = ModelConfig(32, 24, 2, 4, 2, 6, 40, rope_theta=1e6, norm_eps=1e-6, qkv_bias=True, context=64)
    assert read(tmp_path, QWEN2) == qwen2
    assert read(tmp_path, QWEN3) == replace(qwen2, head_width=8, qkv_bias=False, qk_norm=True)
    assert read(tmp_path, LLAMA) == replace(qwen2, head_width=10, qkv_bias=False)
    assert read(tmp_path, QWEN2 | {"tie_word_embeddings": True}) == replace(qwen2, tied_embedding=True)
    assert read(tmp_path, QWEN2, "bfloat16") == replace(qwen2, dtype="bfloat16")


def test_fields_that_released_files_leave_out_have_the_family_s_values(tmp_path: Path) -> None:
    short = LLAMA | dict.fromkeys(("head_dim", "num_key_value_heads", "rope_theta", "tie_word_embeddings"), NO)
    found = read(tmp_path, short | {"hidden_act": NO, "model_type": NO, "max_position_embeddings": NO})
    assert (found.head_width, found.kv_heads, found.rope_theta) == (6, 4, 10_000.0)
    assert (found.tied_embedding, found.context, found.rope_scaling) == (False, 0, None)


@pytest.mark.parametrize("architectures", [["Qwen2VLForConditionalGeneration"], [], None, "LlamaForCausalLM", NO])
def test_other_architectures_are_refused_with_those_that_are_supported(tmp_path: Path, architectures: Any) -> None:
    line = refusal(tmp_path, QWEN2 | {"architectures": architectures})
    assert "Qwen2ForCausalLM, Qwen3ForCausalLM, LlamaForCausalLM" in line


def test_rope_scaling_is_read_in_both_spellings(tmp_path: Path) -> None:
    want = RopeScaling(8.0, 1.0, 4.0, 8192)
    old = read(tmp_path, LLAMA | {"rope_theta": 5e5, "rope_scaling": LLAMA3})
    new = read(tmp_path, LLAMA | {"rope_theta": NO, "rope_parameters": LLAMA3 | {"rope_theta": 5e5}})
    assert old == new and old.rope_scaling == want and old.rope_theta == 5e5
    plain = {"rope_theta": 5e5, "rope_type": "default"}
    assert read(tmp_path, LLAMA | {"rope_theta": NO, "rope_parameters": plain}) == replace(old, rope_scaling=None)
    assert read(tmp_path, LLAMA | {"rope_theta": 5e5, "rope_scaling": {"type": "default"}}).rope_scaling is None
    assert read(tmp_path, LLAMA | {"rope_theta": 5e5, "rope_scaling": None}).rope_scaling is None


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}}, "yarn"),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}, "mrope"),
        ({"rope_scaling": LLAMA3 | {"type": "linear"}}, "rope_scaling"),
        ({"rope_scaling": LLAMA3 | {"attention_factor": 1.2}}, "rope_scaling.attention_factor"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling.low_freq_factor"),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1.0}}, "rope_scaling.high_freq_factor"),
        ({"rope_scaling": "llama3"}, "rope_scaling"),
        ({"rope_scaling": LLAMA3, "rope_parameters": LLAMA3 | {"factor": 4.0}}, "rope_parameters"),
        ({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 1e6}}, "rope_theta"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}}, "rope_parameters.full_attention"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "rope_parameters.partial_rotary_factor"),
    ],
)
def test_other_rotary_positions_are_refused_by_name(tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    assert named in refusal(tmp_path, LLAMA | changed)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_size", NO),
        ("hidden_size", 24.0),
        ("hidden_size", "24"),
        ("num_hidden_layers", 0),
        ("num_key_value_heads", 3),
        ("num_key_value_heads", NO),
        ("head_dim", 7),
        ("hidden_size", 26),
        ("rms_norm_eps", 0),
        ("rms_norm_eps", NO),
        ("tie_word_embeddings", "no"),
        ("vocab_size", True),
        ("model_type", "llama"),
        ("attention_bias", False),
        ("hidden_act", "gelu"),
        ("mlp_bias", True),
        ("use_sliding_window", True),
        ("sliding_window", 4096),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("layer_types", 2),
        ("attention_dropout", 0.1),
        ("pretraining_tp", 2),
        ("partial_rotary_factor", 0.5),
        ("use_mrope", True),
        ("dual_chunk_attention_config", {"chunk_size": 262144}),
        ("dual_chunk_attention_config", DUAL | {"sparse_attention_config": {}}),
        ("quantization_config", {"bits": 4}),
        ("quantization_config", {}),
        ("output_attentions", True),
        ("num_experts", 8),
        ("attn_logit_softcapping", 50.0),
    ],
)
def test_wrong_or_unknown_field_is_named(tmp_path: Path, name: str, value: Any) -> None:
    line = refusal(tmp_path, QWEN2 | {name: value})
    assert ("head_dim" if (name, value) == ("hidden_size", 26) else name) in line


@pytest.mark.parametrize("fields", [QWEN3, LLAMA], ids=["qwen3", "llama"])
def test_attention_bias_would_reach_the_output_projection_and_is_refused(tmp_path: Path, fields: dict) -> None:
    assert "attention_bias" in refusal(tmp_path, fields | {"attention_bias": True})
    assert not read(tmp_path, fields | {"attention_bias": False}).qkv_bias
    assert "sliding_window" in refusal(tmp_path, fields | {"sliding_window": 4096})


def test_qwen3_must_give_its_head_width(tmp_path: Path) -> None:
    assert "head_dim" in refusal(tmp_path, QWEN3 | {"head_dim": NO})


@pytest.mark.parametrize(
    "inert",
    [
        {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 1},
        {"sliding_window": None, "max_window_layers": 28, "layer_types": ["full_attention"] * 2},
        {"mask_value": -10000, "tokenizer": "pretrained_fast", "use_mrope": False, "pretraining_tp": 1},
        {"transformers_version": "4.43.1", "torch_dtype": "bfloat16", "dtype": "float16", "use_cache": False},
        {"initializer_range": 0.5, "attention_dropout": 0.0, "mlp_bias": False, "partial_rotary_factor": 1.0},
        {"bos_token_id": 1, "eos_token_id": [1, 2], "pad_token_id": None, "_name_or_path": "x"},
        {"attention_bias": True, "hidden_act": "silu", "unsloth_version": "1", "_attn_implementation_autoset": True},
        {"quantization_config": None, "unsloth_fixed": True, "_attn_implementation": "sdpa"},
        {"output_attentions": False, "output_hidden_states": False},
    ],
)
def test_inert_fields_change_nothing(tmp_path: Path, inert: dict[str, Any]) -> None:
    assert read(tmp_path, QWEN2 | inert) == read(tmp_path, QWEN2)


def test_every_inert_field_has_a_condition_that_holds_for_some_value_above() -> None:
    shown = test_inert_fields_change_nothing.pytestmark[0].args[1]
    assert set(INERT) == {name for fields in shown for name in fields} - {"attention_bias"}


def test_dual_chunk_attention_ends_the_context_where_it_would_begin_to_matter(tmp_path: Path) -> None:
    long = QWEN2 | {"max_position_embeddings": 1_010_000, "dual_chunk_attention_config": DUAL}
    assert read(tmp_path, long).context == 262_144
    assert read(tmp_path, long | {"max_position_embeddings": 32_768}).context == 32_768
    smaller = DUAL | {"original_max_position_embeddings": 131_072}
    assert read(tmp_path, long | {"dual_chunk_attention_config": smaller}).context == 131_072
    assert read(tmp_path, long | {"dual_chunk_attention_config": None}).context == 1_010_000


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    bias, norm = draw(st.sampled_from([(True, False), (False, True), (False, False)]))
    kv_heads, groups, head_width = draw(st.integers(1, 3)), draw(st.integers(1, 8)), 2 * draw(st.integers(1, 8))
    heads = kv_heads * groups
    scaling = st.builds(
        RopeScaling, st.floats(1, 16), st.floats(0.5, 1), st.floats(1.5, 8), original_positions=st.integers(1, 9000)
    )
    return ModelConfig(
        vocab_size=draw(st.integers(1, 1000)),
        width=draw(st.sampled_from([heads * head_width, 8, 50])),
        layers=draw(st.integers(1, 4)),
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width,
        ffn_width=draw(st.integers(1, 99)),
        rope_theta=draw(st.floats(1, 1e7)),
        norm_eps=draw(st.floats(1e-8, 1e-3)),
        qkv_bias=bias,
        qk_norm=norm,
        tied_embedding=draw(st.booleans()),
        dtype=draw(st.sampled_from(["float32", "bfloat16"])),
        rope_scaling=draw(st.none() | scaling),
        context=draw(st.integers(0, 300_000)),
    )


@given(configs())
def test_written_config_is_read_as_the_same_model(
    tmp_path_factory: pytest.TempPathFactory, config: ModelConfig
) -> None:
    folder = tmp_path_factory.getbasetemp()
    assert read(folder, model_config_json(config, {"eos_token_id": 1}), config.dtype) == config


def test_file_that_is_no_json_object_is_named(tmp_path: Path) -> None:
    for text in ("{", "[]"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(UserError, match=str(tmp_path / "config.json")):
            read_model_config(tmp_path, "float32")
    with pytest.raises(UserError, match="no such file"):
        read_model_config(tmp_path / "none", "float32")
    with pytest.raises(UserError, match="float16"):
        read(tmp_path, QWEN2, "float16")


def test_stop_tokens_are_those_of_generation_before_those_of_the_model(tmp_path: Path) -> None:
    assert stop_tokens(tmp_path) == ()
    (tmp_path / "config.json").write_text('{"eos_token_id": 7}')
    assert stop_tokens(tmp_path) == (7,)
    for says_none in ('{"temperature": 0.6}', '{"eos_token_id": null}', '{"eos_token_id": []}'):
        (tmp_path / "generation_config.json").write_text(says_none)
        assert stop_tokens(tmp_path) == (7,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [151645, 151643]}')
    assert stop_tokens(tmp_path) == (151645, 151643)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": "<|im_end|>"}')
    with pytest.raises(UserError, match="generation_config.json: eos_token_id"):
        stop_tokens(tmp_path)


def test_tokenizer_beyond_the_embedding_is_refused(tmp_path: Path) -> None:
    model = read(tmp_path, QWEN2)
    check_vocabulary(model, 32, "arms.base")
    with pytest.raises(UserError, match="arms.base: .* up to 32, .* below 32"):
        check_vocabulary(model, 33, "arms.base")
