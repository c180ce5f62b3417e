"""The vision tower of Qwen2.5-VL: patches of images to rows that stand in place of token embeddings.

Legend: image_layout.py and decoder.py. Patches stay in the processor's order from end to end, in which those of one
token stand side by side; only attention in windows gathers them into windows, padded to one size, and back.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels.attention import AttentionPart
from rlvr_limit.distributed.mesh import constrain
from rlvr_limit.models.image_layout import ImageBatch, VisionConfig
from rlvr_limit.models.layers import (
    ParameterSpec,
    Params,
    apply_rope,
    attend_on_mesh,
    matmul_precision,
    project,
    rematerialised,
    rms_norm,
)

NORM_EPS = 1e-6
ROPE_THETA = 10_000.0


def vision_specs(config: VisionConfig, out_width: int) -> Params:
    """The tree of ParameterSpec of a tower whose rows are as wide as the decoder."""
    c = config
    d, n, h, f = c.width, c.heads, c.width // c.heads, c.ffn_width
    merged = d * c.merge**2
    residual_std = (2 * c.layers * d) ** -0.5

    def layer() -> dict[str, ParameterSpec]:
        of_heads = {name: ParameterSpec((d, n, h), ("embed", "heads", None), d**-0.5) for name in "qkv"}
        biases = {f"{name}_bias": ParameterSpec((n, h), ("heads", None), 0.0) for name in "qkv"}
        return {
            "attention_norm": ParameterSpec((d,), (None,), None),
            **of_heads,
            **biases,
            "o": ParameterSpec((n, h, d), ("heads", None, "embed"), residual_std),
            "o_bias": ParameterSpec((d,), (None,), 0.0),
            "ffn_norm": ParameterSpec((d,), (None,), None),
            "gate": ParameterSpec((d, f), ("embed", "ffn"), d**-0.5),
            "gate_bias": ParameterSpec((f,), ("ffn",), 0.0),
            "up": ParameterSpec((d, f), ("embed", "ffn"), d**-0.5),
            "up_bias": ParameterSpec((f,), ("ffn",), 0.0),
            "down": ParameterSpec((f, d), ("ffn", "embed"), residual_std),
            "down_bias": ParameterSpec((d,), (None,), 0.0),
        }

    shape = (c.channels, c.frames, c.patch, c.patch, d)
    return {
        "patch": ParameterSpec(shape, (None, None, None, None, "embed"), c.patch_size**-0.5),
        "layers": [layer() for _ in range(c.layers)],
        "merger_norm": ParameterSpec((d,), (None,), None),
        "merger_in": ParameterSpec((merged, merged), ("embed", "ffn"), merged**-0.5),
        "merger_in_bias": ParameterSpec((merged,), ("ffn",), 0.0),
        "merger_out": ParameterSpec((merged, out_width), ("ffn", "embed"), merged**-0.5),
        "merger_out_bias": ParameterSpec((out_width,), (None,), 0.0),
    }


def rope_angles_2d(config: VisionConfig, position_IN2: jax.Array) -> tuple[jax.Array, jax.Array]:
    """cos and sin [I, N, 1, h / 2], float32: the first half of a head's pairs turns by row, the second by column."""
    half = config.width // config.heads // 2
    exponent = (np.arange(0, half, 2) / half).astype(np.float32).astype(np.float64)
    frequency = (ROPE_THETA**-exponent).astype(np.float32)
    angle = position_IN2[..., None].astype(jnp.float32) * frequency
    angle = angle.reshape(*position_IN2.shape[:2], 1, half)
    return jnp.cos(angle), jnp.sin(angle)


def encode(
    params: Params,
    config: VisionConfig,
    dtype: str,
    images: ImageBatch,
    batch_axis: str | None = "rows",
    remat: str = "none",
) -> jax.Array:
    """Rows [I, N / merge^2, D] in dtype, of which those of an image's own patches count; params are the tower's.

    batch_axis, remat: as in decoder.forward. Attention to whole images takes memory in N and not in N^2.
    """
    c = config
    i, n = images.patches_INC.shape[:2]
    length_I = jnp.maximum(images.length_I, 1)
    windows = images.length_IW.shape[1]
    length_W = jnp.maximum(images.length_IW, 1).reshape(-1)

    def gathered(x_IPNH: jax.Array, at_IQ: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x_IPNH, at_IQ[..., None, None], axis=1)

    def in_windows(*qkv: jax.Array) -> jax.Array:
        q, k, v = (gathered(x, images.patch_IW).reshape(i * windows, -1, *x.shape[2:]) for x in qkv)
        out = attend_on_mesh(q, (AttentionPart(k, v, length_W),), batch_axis)
        return gathered(out.reshape(i, -1, *out.shape[2:]), images.place_IN)

    def everywhere(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
        return attend_on_mesh(q, (AttentionPart(k, v, length_I),), batch_axis)

    def linear(x: jax.Array, p: Params, name: str) -> jax.Array:
        return project(x, p[name], p[f"{name}_bias"])

    def layer(attend: Any, p: Params, x: jax.Array) -> jax.Array:
        y = rms_norm(x, p["attention_norm"], NORM_EPS)
        q, k, v = (constrain(linear(y, p, name), batch_axis, None, "heads", None) for name in "qkv")
        out = attend(apply_rope(q, *rope), apply_rope(k, *rope), v)
        x = x + linear(constrain(out, batch_axis, None, "heads", None), p, "o")
        y = rms_norm(x, p["ffn_norm"], NORM_EPS)
        gate, up = linear(y, p, "gate"), linear(y, p, "up")
        gated = (jax.nn.silu(gate.astype(jnp.float32)) * up).astype(gate.dtype)
        x = x + linear(constrain(gated, batch_axis, None, "ffn"), p, "down")
        return constrain(x, batch_axis, None, None)

    with matmul_precision(dtype):
        rope = rope_angles_2d(c, constrain(images.position_IN2, batch_axis, None, None))
        x = constrain(images.patches_INC, batch_axis, None, None).astype(dtype)
        x = constrain(project(x, params["patch"].reshape(c.patch_size, c.width)), batch_axis, None, None)
        for number, p in enumerate(params["layers"]):
            attend = everywhere if number in c.full_layers else in_windows
            x = rematerialised(partial(layer, attend), remat)(p, x)
        y = rms_norm(x, params["merger_norm"], NORM_EPS).reshape(i, n // c.merge**2, -1)
        y = jax.nn.gelu(linear(y, params, "merger_in").astype(jnp.float32), approximate=False).astype(dtype)
        return linear(constrain(y, batch_axis, None, "ffn"), params, "merger_out")
