"""Small folders in Hugging Face format, written by the safetensors library: names and shapes are spelled out here.

And random parameters on a mesh, drawn by numpy, which compiles nothing.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from rlvr_limit.distributed.mesh import parameter_shardings
from rlvr_limit.models.decoder import ModelConfig, ParameterSpec, Params, parameter_specs

QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_act": "silu",
    "hidden_size": 24,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
    "vocab_size": 32,
}
LLAMA = QWEN2 | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "head_dim": 10}
QWEN3 = QWEN2 | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 8}
FAMILIES = {"qwen2": QWEN2, "llama": LLAMA, "qwen3": QWEN3, "tied": QWEN2 | {"tie_word_embeddings": True}}
DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def shapes(fields: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor that transformers' save_pretrained writes for a model, and its shape."""
    d, f, v = fields["hidden_size"], fields["intermediate_size"], fields["vocab_size"]
    h = fields.get("head_dim", d // fields["num_attention_heads"])
    n, k = fields["num_attention_heads"] * h, fields["num_key_value_heads"] * h
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (v, d), "model.norm.weight": (d,)}
    if not fields["tie_word_embeddings"]:
        found["lm_head.weight"] = (v, d)
    for i in range(fields["num_hidden_layers"]):
        layer = {
            "input_layernorm.weight": (d,),
            "post_attention_layernorm.weight": (d,),
            "self_attn.q_proj.weight": (n, d),
            "self_attn.k_proj.weight": (k, d),
            "self_attn.v_proj.weight": (k, d),
            "self_attn.o_proj.weight": (d, n),
            "mlp.gate_proj.weight": (f, d),
            "mlp.up_proj.weight": (f, d),
            "mlp.down_proj.weight": (d, f),
        }
        if fields["model_type"] == "qwen2":
            layer |= {f"self_attn.{x}_proj.bias": (size,) for x, size in (("q", n), ("k", k), ("v", k))}
        if fields["model_type"] == "qwen3":
            layer |= {"self_attn.q_norm.weight": (h,), "self_attn.k_norm.weight": (h,)}
        found |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return found


def tensors(fields: dict[str, Any], dtype: str = "F32") -> dict[str, np.ndarray]:
    """Random tensors of a model."""
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape).astype(DTYPES[dtype]) for name, shape in shapes(fields).items()}


def write(folder: Path, fields: dict[str, Any], found: dict[str, np.ndarray], shards: int = 1) -> Path:
    """config.json and the tensors, in one file or in shards with their index."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    if shards == 1:
        save_file(found, folder / "model.safetensors")
        return folder
    places = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(found.items())[i::shards])
        save_file(part, folder / file)
        places |= dict.fromkeys(part, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def random_params(config: ModelConfig, mesh: jax.sharding.Mesh, seed: int = 0) -> Params:
    """Standard normal float32 parameters of a model."""
    rng = np.random.default_rng(seed)
    shardings = parameter_shardings(parameter_specs(config), mesh)

    def leaf(spec: ParameterSpec, sharding: jax.sharding.Sharding) -> jax.Array:
        return jax.device_put(rng.standard_normal(spec.shape, np.float32), sharding)

    return jax.tree.map(leaf, parameter_specs(config), shardings, is_leaf=lambda x: isinstance(x, ParameterSpec))
