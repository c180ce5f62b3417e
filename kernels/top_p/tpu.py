"""top-p on a TPU: a block of rows is read once, and all halvings of its interval happen in VMEM."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.top_p.reference import HALVINGS, LARGEST

ROWS = 8
LANES = 128
SUMS = 4
"""Sums kept side by side: each addition of one has to wait for the one before."""


def top_p_mask(p_BV: jax.Array, top_p_B: jax.Array) -> jax.Array:
    """As the reference. Only thresholds leave the kernel; whoever uses the mask compares as it reads p again."""
    b, vocab = p_BV.shape
    row = pl.BlockSpec((ROWS, LANES), lambda i: (i, 0))
    low_BL = pl.pallas_call(
        _kernel,
        out_shape=jax.ShapeDtypeStruct((b, LANES), jnp.int32),
        grid=(pl.cdiv(b, ROWS),),
        in_specs=[pl.BlockSpec((ROWS, vocab), lambda i: (i, 0)), row],
        out_specs=row,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",), vmem_limit_bytes=4 * ROWS * vocab * p_BV.dtype.itemsize + 2**22
        ),
        name="top_p",
    )(p_BV, jnp.broadcast_to(top_p_B[:, None], (b, LANES)))
    return jax.lax.bitcast_convert_type(p_BV, jnp.int32) >= low_BL[:, :1]


def _kernel(p_BV, top_p_BL, low_BL):
    top_p_B1, vocab = top_p_BL[:, :1], p_BV.shape[1]
    part = -(-vocab // (SUMS * LANES)) * LANES

    def halve(_: int, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + ((high - low) >> 1)
        mass = sum(_mass(p_BV[:, start : start + part], middle) for start in range(0, vocab, part))
        reaches = mass >= top_p_B1
        return jnp.where(reaches, middle, low), jnp.where(reaches, high, middle)

    start = jnp.zeros((p_BV.shape[0], 1), jnp.int32)
    low, _ = jax.lax.fori_loop(0, HALVINGS, halve, (start, start + LARGEST + 1))
    low_BL[...] = jnp.broadcast_to(low, low_BL.shape)


def _mass(p: jax.Array, threshold: jax.Array) -> jax.Array:
    likely = pltpu.bitcast(p, jnp.int32) >= threshold
    return jnp.sum(jnp.where(likely, p, 0.0), axis=-1, keepdims=True)
