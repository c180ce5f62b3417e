"""GGUF files: the same model as a Hugging Face folder of the same numbers, and what is refused, by name."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from rlvr_limit import checkpoint
from rlvr_limit.checkpoint import gguf
from rlvr_limit.distributed.mesh import make_mesh
from rlvr_limit.models.decoder import RopeScaling
from rlvr_limit.settings import MeshConfig
from rlvr_limit.tokenizer import load_tokenizer
from rlvr_limit.types import UserError
from tests.support import checkpoint_folders
from tests.support.checkpoint_folders import FAMILIES, LLAMA, QWEN2, QWEN3
from tests.support.gguf_files import metadata, plain, theirs, write_gguf

LARGE = {"vocab_size": 425}


def write(path: Path, fields: dict[str, Any], kind: str = "F32", found: Any = None, **changed: Any) -> Path:
    """A GGUF file of the random tensors of checkpoint_folders; changed: metadata."""
    tensors = plain(theirs(fields, found or checkpoint_folders.tensors(fields, kind)), kind)
    return write_gguf(path, metadata(fields, **changed), tensors)


def load(source: Path, dtype: str = "float32", mesh: MeshConfig | None = None) -> tuple[Any, Any]:
    config = checkpoint.read_model_config(source, dtype)
    return config, checkpoint.load_hf(source, config, make_mesh(mesh or MeshConfig()))


@pytest.mark.parametrize("mesh", [MeshConfig(), MeshConfig(fsdp=2, tensor=2)], ids=["one", "spread"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_is_the_model_of_a_folder_of_the_same_numbers(tmp_path: Path, family: str, mesh: MeshConfig) -> None:
    fields = FAMILIES[family]
    folder = checkpoint_folders.write(tmp_path / "folder", fields, checkpoint_folders.tensors(fields))
    mine, wanted = load(write(tmp_path / "m.gguf", fields), mesh=mesh), load(folder, mesh=mesh)
    assert mine[0] == wanted[0]
    assert checkpoint.weights_sha256(mine[1]) == checkpoint.weights_sha256(wanted[1])


@pytest.mark.parametrize("kind", ["F16", "BF16"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_half_precision_is_rounded_as_from_a_folder(tmp_path: Path, kind: str, dtype: str) -> None:
    found = checkpoint_folders.tensors(LLAMA, kind)
    folder = checkpoint_folders.write(tmp_path / "folder", LLAMA, found)
    params = [load(source, dtype)[1] for source in (write(tmp_path / "m.gguf", LLAMA, kind), folder)]
    assert len({checkpoint.weights_sha256(x) for x in params}) == 1


def test_quantised_weights_are_dequantised(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    fields = QWEN2 | {"hidden_size": 64, "intermediate_size": 32}
    rng = np.random.default_rng(0)
    shapes = theirs(fields, checkpoint_folders.tensors(fields))
    tensors, wanted = plain(shapes), {}
    for name, x in shapes.items():
        if x.ndim == 2:
            # Q8_0: blocks of 32 numbers, a half-precision scale before 32 signed bytes.
            scale = rng.uniform(0.01, 0.1, (x.shape[0], x.shape[1] // 32, 1)).astype(np.float16)
            steps = rng.integers(-127, 128, (*scale.shape[:2], 32), np.int8)
            raw = np.concatenate([scale.view(np.uint8), steps.view(np.uint8)], axis=2)
            tensors[name] = (8, x.shape, raw.tobytes())
            wanted[name] = (scale.astype(np.float32) * steps).reshape(x.shape)
    path = write_gguf(tmp_path / "m.gguf", metadata(fields), tensors)
    quantised = load(path)[1]
    as_numbers = write_gguf(tmp_path / "plain.gguf", metadata(fields), plain(shapes | wanted))
    assert checkpoint.weights_sha256(quantised) == checkpoint.weights_sha256(load(as_numbers)[1])


def test_without_the_package_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    fields = QWEN2
    tensors = plain(theirs(fields, checkpoint_folders.tensors(fields)))
    tensors["output.weight"] = (8, (32, 24), b"")
    path = write_gguf(tmp_path / "m.gguf", metadata(fields), tensors)
    with pytest.raises(UserError, match=r"m.gguf: quantised weights need .* pip install 'rlvr_limit\[gguf\]'"):
        load(path)


@pytest.mark.parametrize("kind", [99, 24])
def test_types_that_nothing_dequantises_are_named(tmp_path: Path, kind: int) -> None:
    pytest.importorskip("gguf")
    tensors = plain(theirs(QWEN2, checkpoint_folders.tensors(QWEN2)))
    tensors["output.weight"] = (kind, (32, 24), bytes(32 * 24))
    path = write_gguf(tmp_path / "m.gguf", metadata(QWEN2), tensors)
    with pytest.raises(UserError, match=r"m.gguf: tensor output.weight: type: (99|'I8') is not (known|supported)"):
        load(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"general__architecture": "gemma2"}, "general.architecture: 'gemma2' is not one of llama, qwen2, qwen3"),
        ({"qwen2__expert_count": 8}, "qwen2.expert_count: 8 is a field that this decoder does not know"),
        ({"qwen2__rope__scaling__type": "yarn"}, "qwen2.rope.scaling.type: 'yarn' is not supported"),
        ({"qwen2__rope__dimension_count": 3}, "qwen2.rope.dimension_count: 3 is not supported: .* width, 6"),
        ({"qwen2__block_count": None}, "num_hidden_layers: is missing"),
        ({"qwen2__attention__head_count": [4, 4]}, r"num_attention_heads: \[4, 4\] is not"),
    ],
)
def test_models_that_are_not_supported_are_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "m.gguf", QWEN2, **changed)
    with pytest.raises(UserError, match=message) as raised:
        checkpoint.read_model_config(path, "float32")
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def test_tensors_that_are_missing_or_unknown_are_named(tmp_path: Path) -> None:
    found = theirs(QWEN2, checkpoint_folders.tensors(QWEN2))
    without = {name: x for name, x in found.items() if name != "blk.1.attn_v.bias"}
    for tensors, message in (
        (without, "tensors missing: model.layers.1.self_attn.v_proj.bias"),
        (found | {"blk.0.ffn_gate_exps.weight": np.ones(3, np.float32)}, "unexpected tensors: blk.0.ffn_gate_exps"),
    ):
        with pytest.raises(UserError, match=message):
            load(write_gguf(tmp_path / "m.gguf", metadata(QWEN2), plain(tensors)))


def test_a_file_cut_off_anywhere_is_refused_in_one_line(tmp_path: Path) -> None:
    whole = write(tmp_path / "m.gguf", QWEN3 | LARGE).read_bytes()
    for size in [*range(0, 60), *range(60, len(whole), len(whole) // 97), len(whole) - 1]:
        path = tmp_path / f"{size}.gguf"
        path.write_bytes(whole[:size])
        with pytest.raises(UserError) as raised:
            load(path)
        assert str(path) in str(raised.value) and "\n" not in str(raised.value)
    other = tmp_path / "zip.gguf"
    other.write_bytes(b"PK\x03\x04" + whole[4:])
    with pytest.raises(UserError, match="not a GGUF file"):
        load(other)


def test_llama31s_scaling_is_read_from_its_frequencies(tmp_path: Path) -> None:
    fields = LLAMA | {"rope_theta": 5e5, "head_dim": 64}
    # As llama.cpp's converter writes them: what each frequency is divided by.
    factors = []
    for j in range(32):
        wavelength = 2 * np.pi * 5e5 ** (2 * j / 64)
        smooth = (8192 / wavelength - 1) / 3
        inside = 1 / ((1 - smooth) / 32 + smooth)
        factors.append(1.0 if wavelength < 8192 / 4 else 32.0 if wavelength > 8192 else inside)
    found = theirs(fields, checkpoint_folders.tensors(fields))
    for times, said in ((1.0, None), (1.1, "not those of LLaMA-3.1's scaling")):
        rope = np.array(factors, np.float32) ** times
        path = write_gguf(tmp_path / f"{times}.gguf", metadata(fields), plain(found | {"rope_freqs.weight": rope}))
        if said:
            with pytest.raises(UserError, match=said):
                load(path)
        else:
            assert load(path)[0].rope_scaling == RopeScaling(32.0, 1.0, 4.0, 8192)


def test_what_ends_an_answer_is_named_by_metadata_or_by_a_control_tokens_text(tmp_path: Path) -> None:
    words = load_tokenizer(write(tmp_path / "m.gguf", QWEN2 | LARGE))
    ids = [words.token_id(text) for text in ("<|im_end|>", "<|endoftext|>", "<tool_call>")]
    assert checkpoint.stop_tokens(tmp_path / "m.gguf") == (ids[0], ids[1])
    path = write(tmp_path / "eot.gguf", QWEN2 | LARGE, tokenizer__ggml__eot_token_id=ids[2])
    assert checkpoint.stop_tokens(path) == (ids[0], ids[2], ids[1])


def test_what_is_trained_from_a_file_is_exported_as_a_whole_folder(tmp_path: Path) -> None:
    fields = LLAMA | LARGE
    path = write(tmp_path / "m.gguf", fields)
    config, params = load(path)
    checkpoint.export_hf(tmp_path / "out", params, config, path)
    there, again = load(tmp_path / "out")
    assert there == config and jax.tree.all(jax.tree.map(np.array_equal, params, again))
    words, before = load_tokenizer(tmp_path / "out"), load_tokenizer(path)
    text = "<|im_start|>user\nWhat is 12 + 34?<|im_end|>"
    assert words.encode(text) == before.encode(text) and words.special_tokens == before.special_tokens
    assert words.chat([{"role": "user", "content": "x"}]) == before.chat([{"role": "user", "content": "x"}])
    assert checkpoint.stop_tokens(tmp_path / "out") == checkpoint.stop_tokens(path)


def test_a_files_name_is_weights_and_one_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", QWEN2)
    assert checkpoint.resolve(str(path)) == path
    with pytest.raises(UserError, match="no folder or .gguf file '.*other.gguf'"):
        checkpoint.resolve(str(tmp_path / "other.gguf"))


def test_every_range_of_a_tensor_is_read_as_from_the_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", LLAMA)
    wanted = checkpoint_folders.tensors(LLAMA)["model.layers.0.self_attn.q_proj.weight"]
    tensor = gguf.packed_tensors(path)["model.layers.0.self_attn.q_proj.weight"]
    for rows, columns in ((slice(0, 40), slice(0, 24)), (slice(7, 23), slice(3, 5)), (slice(39, 40), slice(0, 1))):
        np.testing.assert_array_equal(tensor[rows, columns], wanted[rows, columns])
