"""A folder in Hugging Face format loads exactly, goes out exactly, and is refused by name where it is wrong."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from rlvr_limit.checkpoint import export_hf, huggingface, load_hf, read_model_config, stop_tokens, tensors
from rlvr_limit.distributed.mesh import make_mesh, parameter_shardings
from rlvr_limit.models.decoder import ModelConfig, Params, parameter_specs
from rlvr_limit.settings import MeshConfig
from rlvr_limit.types import UserError
from tests.support import checkpoint_folders as made

EIGHT = MeshConfig(data=2, fsdp=2, tensor=2)
FAMILIES = pytest.mark.parametrize("family", made.FAMILIES)
Q = "model.layers.1.self_attn.q_proj.weight"


def load(folder: Path, dtype: str = "float32", mesh: MeshConfig | None = None) -> tuple[ModelConfig, Params]:
    config = read_model_config(folder, dtype)
    return config, load_hf(folder, config, make_mesh(mesh or MeshConfig()))


def stored(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a folder, as the safetensors library reads them."""
    return {name: x for file in sorted(folder.glob("*.safetensors")) for name, x in load_file(file).items()}


def assert_same_tensors(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape), name
        assert a[name].tobytes() == b[name].tobytes(), name


def refusal(folder: Path) -> str:
    """The one line that says why a folder does not load."""
    with pytest.raises(UserError) as caught:
        load(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_parameter_lies_as_the_decoder_multiplies_it(tmp_path: Path) -> None:
    found = made.tensors(made.QWEN2)
    config, params = load(made.write(tmp_path, made.QWEN2, found))
    x_D = np.linspace(-1, 1, config.width, dtype=np.float32)
    p = params["layers"][1]
    x_F = np.linspace(-1, 1, config.ffn_width, dtype=np.float32)
    heads = (config.heads, config.head_width)
    for ours, name in {"q": "self_attn.q_proj", "gate": "mlp.gate_proj", "up": "mlp.up_proj"}.items():
        want = found[f"model.layers.1.{name}.weight"] @ x_D
        np.testing.assert_allclose(np.tensordot(x_D, p[ours], 1).reshape(-1), want, rtol=1e-4, atol=1e-5)
    for ours in "kv":
        want = found[f"model.layers.1.self_attn.{ours}_proj.weight"] @ x_D
        np.testing.assert_allclose(np.tensordot(x_D, p[ours], 1).reshape(-1), want, rtol=1e-4, atol=1e-5)
        bias = found[f"model.layers.1.self_attn.{ours}_proj.bias"]
        np.testing.assert_array_equal(p[f"{ours}_bias"], bias.reshape(config.kv_heads, config.head_width))
    np.testing.assert_array_equal(p["q_bias"], found["model.layers.1.self_attn.q_proj.bias"].reshape(heads))
    want = found["model.layers.1.self_attn.o_proj.weight"] @ np.arange(config.width)
    np.testing.assert_allclose(np.tensordot(np.arange(24.0).reshape(heads), p["o"], 2), want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        x_F @ p["down"], found["model.layers.1.mlp.down_proj.weight"] @ x_F, rtol=1e-4, atol=1e-5
    )
    np.testing.assert_array_equal(params["embedding"], found["model.embed_tokens.weight"])
    np.testing.assert_array_equal(params["unembedding"], found["lm_head.weight"].T)
    np.testing.assert_array_equal(params["final_norm"], found["model.norm.weight"])
    np.testing.assert_array_equal(p["attention_norm"], found["model.layers.1.input_layernorm.weight"])
    np.testing.assert_array_equal(p["ffn_norm"], found["model.layers.1.post_attention_layernorm.weight"])


@FAMILIES
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_load_then_export_gives_the_same_bits(tmp_path: Path, family: str, dtype: str) -> None:
    fields = made.FAMILIES[family]
    found = made.tensors(fields, {"float32": "F32", "bfloat16": "BF16"}[dtype])
    config, params = load(made.write(tmp_path / "in", fields, found, shards=3), dtype)
    export_hf(tmp_path / "out", params, config)
    assert_same_tensors(stored(tmp_path / "out"), found)
    assert read_model_config(tmp_path / "out", dtype) == config


def test_trained_weights_go_out_from_any_mesh_and_come_back(tmp_path: Path) -> None:
    config = ModelConfig(24, 16, 2, heads=4, kv_heads=2, head_width=8, ffn_width=32)
    params, spread = (made.random_params(config, make_mesh(mesh)) for mesh in (MeshConfig(), EIGHT))
    export_hf(tmp_path / "one", params, config)
    export_hf(tmp_path / "eight", spread, config)
    assert_same_tensors(stored(tmp_path / "one"), stored(tmp_path / "eight"))
    again, found = load(tmp_path / "eight")
    assert again == config
    jax.tree.map(np.testing.assert_array_equal, found, params)


@FAMILIES
def test_every_mesh_holds_the_same_weights(tmp_path: Path, family: str) -> None:
    fields = made.FAMILIES[family]
    folder = made.write(tmp_path, fields, made.tensors(fields))
    config, one = load(folder)
    for mesh in (EIGHT, MeshConfig(data=8), MeshConfig(fsdp=8), MeshConfig(tensor=8)):
        _, many = load(folder, mesh=mesh)
        jax.tree.map(np.testing.assert_array_equal, many, one)
        wanted = parameter_shardings(parameter_specs(config), make_mesh(mesh))
        assert jax.tree.map(lambda x: x.sharding, many) == wanted


@pytest.mark.parametrize("source", made.DTYPES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensors_are_rounded_once_to_the_dtype_asked_for(tmp_path: Path, source: str, dtype: str) -> None:
    found = made.tensors(made.QWEN2, source)
    _, params = load(made.write(tmp_path, made.QWEN2, found), dtype)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(dtype)}
    want = found["model.layers.0.mlp.up_proj.weight"].astype(jnp.dtype(dtype)).T
    assert np.asarray(params["layers"][0]["up"]).tobytes() == want.tobytes()


def test_blocks_smaller_than_a_tensor_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = made.write(tmp_path, made.QWEN2, made.tensors(made.QWEN2))
    _, whole = load(folder)
    monkeypatch.setattr(tensors, "BLOCK", 50)
    _, parts = load(folder, mesh=EIGHT)
    jax.tree.map(np.testing.assert_array_equal, parts, whole)


def test_large_models_go_out_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = made.tensors(made.QWEN2)
    config, params = load(made.write(tmp_path / "in", made.QWEN2, found))
    monkeypatch.setattr(tensors, "SHARD", 12_000)
    export_hf(tmp_path / "out", params, config)
    sizes = [sum(x.nbytes for x in load_file(file).values()) for file in (tmp_path / "out").glob("*.safetensors")]
    assert len(sizes) > 2 and max(sizes) <= 12_000
    assert_same_tensors(stored(tmp_path / "out"), found)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in found.values())
    _, again = load(tmp_path / "out")
    jax.tree.map(np.testing.assert_array_equal, again, params)


def test_export_carries_tokenizer_files_and_stop_tokens(tmp_path: Path) -> None:
    fields = made.QWEN2 | {"eos_token_id": [3, 4], "bos_token_id": 5}
    source = made.write(tmp_path / "in", fields, made.tensors(fields))
    (source / "tokenizer.json").write_text("{}")
    config, params = load(source)
    export_hf(tmp_path / "out", params, config, tokenizer_folder=source)
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "{}"
    assert stop_tokens(tmp_path / "out") == (3, 4)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["bos_token_id"] == 5


def test_export_never_writes_over_a_folder(tmp_path: Path) -> None:
    config, params = load(made.write(tmp_path / "in", made.QWEN2, made.tensors(made.QWEN2)))
    before = (tmp_path / "in" / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match=f"{tmp_path / 'in'} is there already"):
        export_hf(tmp_path / "in", params, config)
    assert (tmp_path / "in" / "model.safetensors").read_bytes() == before
    with pytest.raises(UserError, match="qkv_bias, qk_norm"):
        export_hf(tmp_path / "out", params, replace(config, qk_norm=True))
    assert not (tmp_path / "out").exists()


def test_host_holds_one_parameter_beside_the_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = made.QWEN2 | {"hidden_size": 256, "intermediate_size": 1024, "vocab_size": 4096, "num_hidden_layers": 6}
    found = made.tensors(fields, "BF16")
    folder = made.write(tmp_path, fields, found, shards=4)
    load(folder, "bfloat16")
    size, largest = sum(x.nbytes for x in found.values()), max(x.nbytes for x in found.values())
    del found
    peaks = []
    real = huggingface._load

    def measured(*args: Any) -> jax.Array:
        # On the CPU a device may take an array of the host as its own: what was there before is not counted.
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        loaded = real(*args)
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
        return loaded

    monkeypatch.setattr(huggingface, "_load", measured)
    tracemalloc.start()
    _, params = load(folder, "bfloat16", EIGHT)
    tracemalloc.stop()
    assert largest < max(peaks) < 2.1 * largest + (1 << 20) < size
    assert len(params["layers"]) == 6


def test_tied_model_may_repeat_its_embedding_as_head(tmp_path: Path) -> None:
    fields = made.FAMILIES["tied"]
    found = made.tensors(fields)
    _, plain = load(made.write(tmp_path / "plain", fields, found))
    found["lm_head.weight"] = found["model.embed_tokens.weight"].copy()
    _, repeated = load(made.write(tmp_path / "repeated", fields, found))
    jax.tree.map(np.testing.assert_array_equal, repeated, plain)
    found["lm_head.weight"][3, 3] += 1
    assert "lm_head.weight" in refusal(made.write(tmp_path / "other", fields, found))


def test_rotary_buffers_are_passed_over(tmp_path: Path) -> None:
    found = made.tensors(made.LLAMA)
    found["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(5, np.float32)
    load(made.write(tmp_path, made.LLAMA, found))


def test_missing_shard_is_named(tmp_path: Path) -> None:
    folder = made.write(tmp_path, made.QWEN2, made.tensors(made.QWEN2), shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert str(folder / "model-00002-of-00003.safetensors") in refusal(folder)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_file_that_was_cut_off_is_named(tmp_path: Path, kept: int) -> None:
    folder = made.write(tmp_path, made.QWEN2, made.tensors(made.QWEN2), shards=3)
    file = folder / "model-00003-of-00003.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    assert str(file) in refusal(folder)


def test_damaged_header_is_named(tmp_path: Path) -> None:
    folder = made.write(tmp_path, made.QWEN2, made.tensors(made.QWEN2))
    file = folder / "model.safetensors"
    for text in (
        b'{"a"',
        b"[1]",
        b'{"a": {"dtype": "F32"}}',
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
    ):
        file.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 4)
        assert str(file) in refusal(folder)


def test_tensor_of_a_wrong_shape_is_named(tmp_path: Path) -> None:
    found = made.tensors(made.QWEN2)
    found[Q] = found[Q][:-1].copy()
    line = refusal(made.write(tmp_path, made.QWEN2, found))
    assert Q in line and "[23, 24]" in line and "[24, 24]" in line


def test_tensor_of_an_unknown_dtype_is_named(tmp_path: Path) -> None:
    found = made.tensors(made.QWEN2)
    found[Q] = found[Q].astype(ml_dtypes.float8_e4m3fn)
    line = refusal(made.write(tmp_path, made.QWEN2, found))
    assert Q in line and "F8_E4M3" in line


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path) -> None:
    found = made.tensors(made.QWEN2)
    head = found.pop("lm_head.weight")
    assert "lm_head.weight" in refusal(made.write(tmp_path / "missing", made.QWEN2, found))
    found |= {"lm_head.weight": head, "model.layers.1.mlp.router.weight": np.zeros(3, np.float32)}
    assert "model.layers.1.mlp.router.weight" in refusal(made.write(tmp_path / "extra", made.QWEN2, found))


def test_index_at_odds_with_its_shards_is_named(tmp_path: Path) -> None:
    folder = made.write(tmp_path, made.QWEN2, made.tensors(made.QWEN2), shards=2)
    index = folder / "model.safetensors.index.json"
    found = json.loads(index.read_text())
    found["weight_map"][Q] = next(file for file in set(found["weight_map"].values()) if file != found["weight_map"][Q])
    index.write_text(json.dumps(found))
    assert Q in refusal(folder)
    index.write_text("{}")
    assert str(index) in refusal(folder)


def test_folder_without_weights_says_what_would_be_right(tmp_path: Path) -> None:
    folder = made.write(tmp_path, made.QWEN2, made.tensors(made.QWEN2))
    file = folder / "model.safetensors"
    (folder / "model.safetensors.index.json").write_text("{}")
    assert "both" in refusal(folder)
    (folder / "model.safetensors.index.json").unlink()
    file.unlink()
    assert "model.safetensors" in refusal(folder)
