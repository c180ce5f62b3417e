"""Tiny random checkpoints of odd shapes, one or more of each family: config.json, tensors and a row of tokens.

Needs NumPy alone, so that the script that makes the goldens and the tests that read them draw the same weights.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
PLACES = 512
COLUMNS = 8
"""Logits kept of each position; which ones moves with the position, so that every token of the vocabulary is there."""

COMMON = {"vocab_size": 61, "num_hidden_layers": 2, "hidden_act": "silu", "max_position_embeddings": 4096}
LLAMA3 = {"rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
QWEN2 = COMMON | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
QWEN3 = COMMON | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "attention_bias": False}
LLAMA = COMMON | {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 500_000.0,
    "rms_norm_eps": 1e-5,
}


def sizes(width: int, heads: int, kv_heads: int, head_width: int, ffn_width: int, tied: bool) -> dict[str, Any]:
    """The fields of config.json that differ in each checkpoint."""
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_width,
        "intermediate_size": ffn_width,
        "tie_word_embeddings": tied,
    }


FAMILIES: dict[str, dict[str, Any]] = {
    "qwen2-gqa1-untied": QWEN2 | sizes(48, 3, 3, 16, 40, False) | {"rope_theta": 10_000.0, "rms_norm_eps": 1e-5},
    "qwen2-gqa7-tied": QWEN2 | sizes(36, 7, 1, 10, 52, True) | {"rope_theta": 1e6, "rms_norm_eps": 1e-6},
    "llama31-gqa8-untied": LLAMA
    | sizes(48, 16, 2, 12, 56, False)
    | {"rope_scaling": LLAMA3 | {"factor": 8.0, "original_max_position_embeddings": 64}},
    "llama32-gqa1-tied": LLAMA
    | sizes(32, 2, 2, 24, 44, True)
    | {"rope_scaling": LLAMA3 | {"factor": 32.0, "original_max_position_embeddings": 128}},
    "qwen3-gqa7-untied": QWEN3 | sizes(28, 7, 1, 14, 36, False) | {"rope_theta": 1e6, "rms_norm_eps": 1e-6},
    "qwen3-gqa8-tied": QWEN3 | sizes(44, 8, 1, 18, 48, True) | {"rope_theta": 1e6, "rms_norm_eps": 1e-6},
}


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of the checkpoint, as transformers stores them ([out, in])."""
    d, f, h = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    n, k = config["num_attention_heads"] * h, config["num_key_value_heads"] * h
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], d),
        "model.norm.weight": (d,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], d)
    for i in range(config["num_hidden_layers"]):
        layer = {
            "input_layernorm.weight": (d,),
            "self_attn.q_proj.weight": (n, d),
            "self_attn.k_proj.weight": (k, d),
            "self_attn.v_proj.weight": (k, d),
            "self_attn.o_proj.weight": (d, n),
            "post_attention_layernorm.weight": (d,),
            "mlp.gate_proj.weight": (f, d),
            "mlp.up_proj.weight": (f, d),
            "mlp.down_proj.weight": (d, f),
        }
        if config["model_type"] == "qwen2":
            layer |= {f"self_attn.{x}_proj.bias": (size,) for x, size in (("q", n), ("k", k), ("v", k))}
        if config["model_type"] == "qwen3":
            layer |= {"self_attn.q_norm.weight": (h,), "self_attn.k_norm.weight": (h,)}
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer.items()}
    return shapes


def state_dict(name: str) -> dict[str, np.ndarray]:
    """The float32 tensors of a checkpoint. Biases are not 0 and norms not 1; queries and keys are large enough that
    attention is far from even, so that a wrong position or head shows."""
    config = FAMILIES[name]
    rng = np.random.default_rng(sum(name.encode()))

    def draw(tensor: str, shape: tuple[int, ...]) -> np.ndarray:
        x = rng.standard_normal(shape)
        if "norm" in tensor:
            x = 1 + 0.3 * x
        elif tensor.endswith("bias"):
            x = 0.5 * x
        else:
            x = x * shape[-1] ** -0.5 * (1.5 if "q_proj" in tensor or "k_proj" in tensor else 1.0)
        return x.astype(np.float32)

    return {tensor: draw(tensor, shape) for tensor, shape in sorted(tensor_shapes(config).items())}


def digest(state: dict[str, np.ndarray]) -> str:
    """SHA-256 of the tensors: tells a NumPy that draws other numbers from a decoder that computes wrong ones."""
    return hashlib.sha256(b"".join(state[name].tobytes() for name in sorted(state))).hexdigest()


def tokens(name: str, row: int = 0) -> np.ndarray:
    """One row of tokens, int32 [PLACES]; the goldens are of row 0."""
    rng = np.random.default_rng(1 + sum(name.encode()) + 10_000 * row)
    return rng.integers(FAMILIES[name]["vocab_size"], size=PLACES).astype(np.int32)


def kept(logits_TV: np.ndarray) -> np.ndarray:
    """The logits that a golden holds: [T, COLUMNS]."""
    places, vocab = logits_TV.shape
    columns = (np.arange(places)[:, None] + 7 * np.arange(COLUMNS)[None, :]) % vocab
    return np.take_along_axis(logits_TV, columns, axis=1)
