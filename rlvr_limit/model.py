"""One decoder for the Qwen2 / LLaMA family: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

What differs between members of the family is a field of ModelConfig. A parameter's shape, logical axes and scale are
said once, in parameter_specs; init and shardings derive from it. Parameters are a plain tree of arrays.

Shape legend, used in the whole project:
  B batch rows or slots   T tokens of a row     D model width     F feed-forward width    V vocabulary
  N query heads           K key/value heads     G = N / K         H head width            S keys attended to
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Params = Any
Attend = Callable[[int, jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
"""(layer, q_BTNH, k_BTKH, v_BTKH) -> (output_BTNH, whatever the caller wants back from that layer)."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that tells one decoder from another; hashable, so that it can be static under jit."""

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    ffn_width: int
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    tied_embedding: bool = False
    dtype: str = "float32"


class ParameterSpec(NamedTuple):
    """Shape, logical axes (see mesh.RULES) and the standard deviation of the initial values (None: ones, 0: zeros)."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    std: float | None


def parameter_specs(config: ModelConfig) -> Params:
    """The tree of ParameterSpec of a model: the only place that states a parameter's shape."""
    c = config
    d, n, k, h, f = c.width, c.heads, c.kv_heads, c.head_width, c.ffn_width
    residual_std = (2 * c.layers * d) ** -0.5

    def layer() -> dict[str, ParameterSpec]:
        specs = {
            "attention_norm": ParameterSpec((d,), (None,), None),
            "q": ParameterSpec((d, n, h), ("embed", "heads", None), d**-0.5),
            "k": ParameterSpec((d, k, h), ("embed", "kv_heads", None), d**-0.5),
            "v": ParameterSpec((d, k, h), ("embed", "kv_heads", None), d**-0.5),
            "o": ParameterSpec((n, h, d), ("heads", None, "embed"), residual_std),
            "ffn_norm": ParameterSpec((d,), (None,), None),
            "gate": ParameterSpec((d, f), ("embed", "ffn"), d**-0.5),
            "up": ParameterSpec((d, f), ("embed", "ffn"), d**-0.5),
            "down": ParameterSpec((f, d), ("ffn", "embed"), residual_std),
        }
        if c.qkv_bias:
            specs["q_bias"] = ParameterSpec((n, h), ("heads", None), 0.0)
            specs["k_bias"] = ParameterSpec((k, h), ("kv_heads", None), 0.0)
            specs["v_bias"] = ParameterSpec((k, h), ("kv_heads", None), 0.0)
        return specs

    specs = {
        "embedding": ParameterSpec((c.vocab_size, d), ("vocab", "embed"), d**-0.5 if c.tied_embedding else 1.0),
        "layers": [layer() for _ in range(c.layers)],
        "final_norm": ParameterSpec((d,), (None,), None),
    }
    if not c.tied_embedding:
        specs["unembedding"] = ParameterSpec((d, c.vocab_size), ("embed", "vocab"), d**-0.5)
    return specs


def init_params(config: ModelConfig, key: jax.Array) -> Params:
    """Freshly drawn parameters; each leaf's key is folded from its place in the tree, so adding one moves no other."""

    def leaf(path: Any, spec: ParameterSpec) -> jax.Array:
        if spec.std is None:
            return jnp.ones(spec.shape, config.dtype)
        name = jax.tree_util.keystr(path)
        salt = sum(ord(ch) * 31**i for i, ch in enumerate(name)) % 2**32
        return (spec.std * jax.random.normal(jax.random.fold_in(key, salt), spec.shape)).astype(config.dtype)

    specs = parameter_specs(config)
    return jax.tree_util.tree_map_with_path(leaf, specs, is_leaf=lambda x: isinstance(x, ParameterSpec))


def parameter_count(config: ModelConfig) -> int:
    """Number of parameters of a model."""
    leaves = jax.tree.leaves(parameter_specs(config), is_leaf=lambda x: isinstance(x, ParameterSpec))
    return sum(math.prod(spec.shape) for spec in leaves)


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """x / rms(x) * scale over the last axis, in float32 (Zhang and Sennrich 2019, eq. 4)."""
    x32 = x.astype(jnp.float32)
    normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return (normed * scale).astype(x.dtype)


def rotate(x_BTNH: jax.Array, positions_BT: jax.Array, theta: float) -> jax.Array:
    """Rotary position embedding on halves of the head width, in float32 (Su et al. 2021, eq. 34)."""
    half = x_BTNH.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = positions_BT[:, :, None, None].astype(jnp.float32) * frequency
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    a, b = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)


def grouped_attention(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask_BTS: jax.Array) -> jax.Array:
    """Softmax attention with N / K query heads a key head; scores and softmax in float32; output like q_BTNH."""
    b, t, n, h = q_BTNH.shape
    k = k_BSKH.shape[2]
    q_BTKGH = q_BTNH.reshape(b, t, k, n // k, h)
    scores = jnp.einsum("btkgh,bskh->bkgts", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32) * h**-0.5
    scores = jnp.where(mask_BTS[:, None, None], scores, -1e30)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BSKH.dtype)
    return jnp.einsum("bkgts,bskh->btkgh", weights, v_BSKH).reshape(b, t, n, h)


def project(x: jax.Array, w: jax.Array) -> jax.Array:
    """x [B, T, *in] times w [*in, *out] as one matrix product over all tokens: [B, T, *out].

    Left in three dimensions, XLA:CPU computes the weight's gradient about twice as slowly.
    """
    inputs = x.ndim - 2
    size = math.prod(w.shape[:inputs])
    y = x.reshape(-1, size) @ w.reshape(size, -1)
    return y.reshape(*x.shape[:2], *w.shape[inputs:])


def decode(
    params: Params, config: ModelConfig, tokens_BT: jax.Array, positions_BT: jax.Array, attend: Attend
) -> tuple[jax.Array, list[Any]]:
    """Runs all layers; attention is the caller's, so that training, prefill and decoding share every other line.

    Returns the normed hidden states [B, T, D] and what attend returned for each layer.
    """
    c = config
    x = params["embedding"][tokens_BT].astype(c.dtype)
    extras = []
    for i, p in enumerate(params["layers"]):
        y = rms_norm(x, p["attention_norm"], c.norm_eps)
        q, k, v = (project(y, p[name]) for name in "qkv")
        if c.qkv_bias:
            q, k, v = q + p["q_bias"], k + p["k_bias"], v + p["v_bias"]
        q, k = rotate(q, positions_BT, c.rope_theta), rotate(k, positions_BT, c.rope_theta)
        out, extra = attend(i, q, k, v)
        extras.append(extra)
        x = x + project(out, p["o"])
        y = rms_norm(x, p["ffn_norm"], c.norm_eps)
        x = x + project(jax.nn.silu(project(y, p["gate"])) * project(y, p["up"]), p["down"])
    return rms_norm(x, params["final_norm"], c.norm_eps), extras


def unembedding(params: Params) -> jax.Array:
    """The matrix [D, V] from hidden states to logits, tied or not."""
    return params["unembedding"] if "unembedding" in params else params["embedding"].T


def logits(params: Params, hidden: jax.Array) -> jax.Array:
    """Logits [..., V] in float32 from normed hidden states [..., D]."""
    return jnp.einsum("...d,dv->...v", hidden, unembedding(params), preferred_element_type=jnp.float32)


def causal(params: Params, config: ModelConfig, tokens_BT: jax.Array) -> tuple[jax.Array, list]:
    """Whole rows at once with causal attention: hidden [B, T, D] and each layer's (k, v).

    Padding must stand on the right, where no earlier token can see it.
    """
    b, t = tokens_BT.shape
    positions = jnp.broadcast_to(jnp.arange(t), (b, t))
    mask_BTT = jnp.broadcast_to(jnp.tril(jnp.ones((t, t), bool)), (b, t, t))

    def attend(_: int, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, Any]:
        return grouped_attention(q, k, v, mask_BTT), (k, v)

    return decode(params, config, tokens_BT, positions, attend)
