"""One decoder for the Qwen2 / LLaMA family: RMSNorm, rotary positions, grouped-query attention, SwiGLU.

What differs between members of the family is a field of ModelConfig. parameter_specs states each parameter's shape,
logical axes and scale; init and shardings derive from it. Parameters are a plain tree of arrays.

Shape legend, used in the whole project:
  B batch rows            T tokens of a row     D model width     F feed-forward width    V vocabulary
  N query heads           K key/value heads     G = N / K         H head width            S keys attended to
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.attention import AttentionPart
from kernels.copies import take
from kernels.matmul import ColumnMajor, column_major, matmul
from rlvr_limit.distributed.mesh import constrain
from rlvr_limit.models.image_layout import VisionConfig
from rlvr_limit.models.layers import (
    ParameterSpec,
    Params,
    apply_rope,
    attend_on_mesh,
    init_from_specs,
    matmul_precision,
    project,
    rematerialised,
    rms_norm,
)
from rlvr_limit.models.vision import vision_specs
from rlvr_limit.settings.study import ModelShape

Attend = Callable[[int, jax.Array, jax.Array, jax.Array], tuple[jax.Array, Any]]
"""(layer, q_BTNH, k_BTKH, v_BTKH) -> (output_BTNH, what the caller wants back from that layer)."""

Rope = tuple[jax.Array, jax.Array]
"""(cos, sin) of the positions' angles, float32 [B, T, 1, H / 2]."""


class ImageTokens(NamedTuple):
    """What stands in place of embeddings: rows of vision.encode."""

    rows_MD: jax.Array
    row_BT: jax.Array  # the row at each place, counted from 1; 0: the token's own embedding


@dataclass(frozen=True)
class RopeScaling:
    """LLaMA-3.1's stretching of slow rotations (Grattafiori et al. 2024, sec. 3.2, with the released models' ramp)."""

    factor: float  # by which the longest wavelengths grow
    low_freq_factor: float  # wavelengths above original_positions / low_freq_factor grow by the whole factor
    high_freq_factor: float  # those below original_positions / high_freq_factor stay; in between, linear in frequency
    original_positions: int


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
    qk_norm: bool = False
    rope_scaling: RopeScaling | None = None
    context: int = 0  # positions that the weights were made for; 0: no bound
    vision: VisionConfig | None = None  # the tower, where it sees


def shaped_as(shape: ModelShape, vocab_size: int, dtype: str) -> ModelConfig:
    """The decoder of a config's shape, with another vocabulary perhaps."""
    fields = vars(shape) | {"vocab_size": vocab_size}
    vision = fields.pop("vision")
    return ModelConfig(**fields, dtype=dtype, vision=vision and VisionConfig(**vars(vision)))


def parameter_specs(config: ModelConfig) -> Params:
    """The tree of ParameterSpec of a model."""
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
        if c.qk_norm:
            specs["q_norm"] = ParameterSpec((h,), (None,), None)
            specs["k_norm"] = ParameterSpec((h,), (None,), None)
        return specs

    specs = {
        "embedding": ParameterSpec((c.vocab_size, d), ("vocab", "embed"), d**-0.5 if c.tied_embedding else 1.0),
        "layers": [layer() for _ in range(c.layers)],
        "final_norm": ParameterSpec((d,), (None,), None),
    }
    if not c.tied_embedding:
        specs["unembedding"] = ParameterSpec((d, c.vocab_size), ("embed", "vocab"), d**-0.5)
    if c.vision is not None:
        specs["vision"] = vision_specs(c.vision, d)
    return specs


def init_params(config: ModelConfig, key: jax.Array) -> Params:
    """Random initial parameters."""
    return init_from_specs(parameter_specs(config), key, config.dtype)


def parameter_count(config: ModelConfig) -> int:
    """Number of parameters of a model."""
    leaves = jax.tree.leaves(parameter_specs(config), is_leaf=lambda x: isinstance(x, ParameterSpec))
    return sum(math.prod(spec.shape) for spec in leaves)


def rope_frequencies(config: ModelConfig) -> np.ndarray:
    """Radians a position turns each pair of a head: float32 [H / 2] (Su et al. 2021, eq. 15; RopeScaling's ramp).

    Powers are made on the host in float64, since one float32 rounding of a power turns by 1e-3 at position 10,000.
    Exponents and ramp are rounded to float32 as in the code that the released models were trained with.
    """
    half = config.head_width // 2
    exponent = (np.arange(half) / half).astype(np.float32).astype(np.float64)
    frequency = (config.rope_theta**-exponent).astype(np.float32)
    scaling = config.rope_scaling
    if scaling is None:
        return frequency
    turns = scaling.original_positions / (np.float32(2 * np.pi) / frequency)
    ramp = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = np.clip(ramp, np.float32(0), np.float32(1))
    return ((1 - kept) * frequency / scaling.factor + kept * frequency).astype(np.float32)


def rope_angles(config: ModelConfig, positions: jax.Array, batch_axis: str | None = "rows") -> Rope:
    """cos and sin of the angles of every position [B, T]; batch_axis as in forward.

    Where images are seen, positions may be [B, T, 3]: each frequency turns by one of them (vision.rope_sections).
    """
    positions = constrain(positions, batch_axis, *[None] * (positions.ndim - 1))
    if positions.ndim == 3:
        positions = positions[:, :, None, np.repeat(np.arange(3), config.vision.rope_sections)]
    else:
        positions = positions[:, :, None, None]
    angle = positions.astype(jnp.float32) * rope_frequencies(config)
    return jnp.cos(angle), jnp.sin(angle)


def causal_attention(
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    segment_BT: jax.Array | None = None,
    prefix_segment_BT: jax.Array | None = None,
    prefix: AttentionPart | None = None,
    batch_axis: str | None = "rows",
) -> jax.Array:
    """Attention where each token sees itself and those before it; with segments, only those of its own segment and of
    its prefix segment; and the tokens of a prefix that its lengths count.

    Takes memory in T and not in T^2, in the backward pass too. On a mesh each device attends with its own heads in its
    own rows (batch_axis: as in forward), where devices that share query heads share key heads alike.
    """
    own = AttentionPart(k_BTKH, v_BTKH, None, segment_BT, prefix_segment_BT)
    parts = (own,) if prefix is None else (prefix, own)
    return attend_on_mesh(q_BTNH, parts, batch_axis)


def forward(
    params: Params,
    config: ModelConfig,
    tokens_BT: jax.Array,
    rope: Rope,
    attend: Attend,
    batch_axis: str | None = "rows",
    remat: str = "none",
    grad_sums: list[Params] | None = None,
    images: ImageTokens | None = None,
) -> tuple[jax.Array, list[Any]]:
    """(normed hidden states [B, T, D], what attend returned for each layer) of all layers; attention is the caller's.

    Products are in config.dtype, whatever the parameters' dtype. remat is one of REMAT.
    batch_axis: the logical axis of B; "rows" spreads the batch over a mesh, None computes all of it on every device.
    grad_sums: gradients so far, a tree for each layer; the layer's gradient comes out added to them.
    """
    c = config

    def layer(i: int, p: Params, x: jax.Array) -> tuple[jax.Array, Any]:
        y = rms_norm(x, p["attention_norm"], c.norm_eps)
        q, k, v = (_linear(y, p, name) for name in "qkv")
        if c.qk_norm:
            q, k = rms_norm(q, p["q_norm"], c.norm_eps), rms_norm(k, p["k_norm"], c.norm_eps)
        q, k = apply_rope(q, *rope), apply_rope(k, *rope)
        q = constrain(q, batch_axis, None, "heads", None)
        k, v = (constrain(part, batch_axis, None, "kv_heads", None) for part in (k, v))
        out, extra = attend(i, q, k, v)
        x = x + _linear(constrain(out, batch_axis, None, "heads", None), p, "o")
        x = constrain(x, batch_axis, None, None)
        y = rms_norm(x, p["ffn_norm"], c.norm_eps)
        gate, up = _linear(y, p, "gate"), _linear(y, p, "up")
        gated = (jax.nn.silu(gate.astype(jnp.float32)) * up).astype(gate.dtype)  # SwiGLU (Shazeer 2020, eq. 6)
        x = x + _linear(constrain(gated, batch_axis, None, "ffn"), p, "down")
        return constrain(x, batch_axis, None, None), extra

    extras = []
    with matmul_precision(c.dtype):
        # Whole in D before the look-up, as every other weight is for its product: XLA would else look up the rows of
        # all devices on each of them.
        embedded = take(constrain(params["embedding"], "vocab", None), tokens_BT)
        x = constrain(embedded, batch_axis, None, None).astype(c.dtype)
        if images is not None:
            row_BT = constrain(images.row_BT, batch_axis, None)
            seen = take(constrain(images.rows_MD, None, None), jnp.maximum(row_BT - 1, 0))
            x = jnp.where(row_BT[..., None] > 0, constrain(seen, batch_axis, None, None).astype(c.dtype), x)
        for i, p in enumerate(params["layers"]):
            if grad_sums is not None:
                x, p = _add_to_gradient(x, p, grad_sums[i])
            x, extra = rematerialised(partial(layer, i), remat)(p, x)
            extras.append(extra)
    return rms_norm(x, params["final_norm"], c.norm_eps), extras


def _linear(x: jax.Array, p: Params, name: str) -> jax.Array:
    """project by a layer's matrix of this name, and by its low-rank adapter where the layer has one."""
    y = project(x, p[name], p.get(f"{name}_bias"))
    if name not in p.get("lora", ()):
        return y
    pair = p["lora"][name]
    return y + project(project(x, pair["a"]), pair["b"])


def _add_to_gradient(x: jax.Array, p: Params, sums: Params) -> tuple[jax.Array, Params]:
    """(x, p); in the backward pass sums are added to the gradient of p before that of x goes on.

    Without the barrier all layers' gradients may wait for their sums, which take no memory: each replaces a term.
    """

    def backward(sums: Params, cotangents: tuple[jax.Array, Params]) -> tuple[jax.Array, Params, None]:
        x_bar, p_bar = cotangents
        return *jax.lax.optimization_barrier((x_bar, jax.tree.map(jnp.add, sums, p_bar))), None

    identity = jax.custom_vjp(lambda x, p, sums: (x, p))
    identity.defvjp(lambda x, p, sums: ((x, p), sums), backward)
    return identity(x, p, sums)


def unembedding(params: Params) -> jax.Array | ColumnMajor:
    """The matrix [D, V] from hidden states to logits, tied or not; by columns where for_inference laid others so."""
    if "unembedding" in params:
        return params["unembedding"]
    tied = params["embedding"]
    by_columns = isinstance(params["layers"][0]["down"], ColumnMajor)
    return ColumnMajor(tied, tied.shape[::-1]) if by_columns else tied.T


def logits(params: Params, hidden: jax.Array) -> jax.Array:
    """Logits [..., V] in float32 from normed hidden states [..., D]."""
    with matmul_precision(hidden.dtype):
        rows = hidden.reshape(-1, hidden.shape[-1])
        if "unembedding" in params:
            out = matmul(rows, params["unembedding"])
        else:
            out = matmul(rows, params["embedding"], transposed=True)
        out = out.reshape(*hidden.shape[:-1], -1)
    return constrain(out, "rows", *[None] * (out.ndim - 2), "vocab")


def for_inference(params: Params, donate: bool = False) -> Params:
    """The weights, or their shapes, with matrices as kernels.matmul reads them fastest on this machine.

    Where that is as they lie, the same arrays. donate: one that had to be copied is deleted. Gradients cannot be taken.
    """
    inputs = dict.fromkeys(("q", "k", "v", "gate", "up", "down", "unembedding"), 1) | {"o": 2}

    def turned(name: str, w: Any) -> Any:
        new = column_major(w, inputs[name]) if name in inputs else w
        if donate and new is not w:
            jax.block_until_ready(new)
            w.delete()
        return new

    layers = [{name: turned(name, w) for name, w in p.items()} for p in params["layers"]]
    return {name: turned(name, w) for name, w in params.items()} | {"layers": layers}


def forward_causal(
    params: Params,
    config: ModelConfig,
    tokens_BT: jax.Array,
    batch_axis: str | None = "rows",
    positions_BT: jax.Array | None = None,
    segment_BT: jax.Array | None = None,
    prefix_segment_BT: jax.Array | None = None,
    remat: str = "none",
    grad_sums: list[Params] | None = None,
    images: ImageTokens | None = None,
) -> tuple[jax.Array, list]:
    """forward with causal_attention over whole rows: hidden [B, T, D] and each layer's (k, v).

    positions_BT may be [B, T, 3], as in rope_angles. Without segments padding must be on the right, where no earlier
    token can see it.
    """
    if positions_BT is None:
        positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)

    def attend(_: int, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, Any]:
        return causal_attention(q, k, v, segment_BT, prefix_segment_BT, batch_axis=batch_axis), (k, v)

    rope = rope_angles(config, positions_BT, batch_axis)
    return forward(params, config, tokens_BT, rope, attend, batch_axis, remat, grad_sums, images)
