"""For CPUs, cpu.cc: weights are read once, in the order in which they lie, and multiplied as pairs of bfloat16."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels import native
from kernels.platforms import is_sharded

MOST_ROWS = 2048
"""From here on XLA's library is faster. No window has so many rows, so that a sample's bits depend on no batch."""


def takes(x_MK: jax.Array, w: jax.Array) -> bool:
    """Whether the kernel multiplies these: bfloat16, an even K, on one device or one device's part, and a processor
    that the kernel is faster on than XLA's library (AVX512_BF16 without AMX)."""
    rows, depth = x_MK.shape
    if (x_MK.dtype, w.dtype) != (jnp.bfloat16, jnp.bfloat16) or depth % 2 or rows > MOST_ROWS:
        return False
    return not is_sharded((x_MK, w)) and native.multiplies_pairs()


def matmul(x_MK: jax.Array, w: jax.Array, transposed: bool = False) -> jax.Array:
    """See reference.py. A row's bits do not depend on the rows beside it, nor on how many there are."""
    result = jax.ShapeDtypeStruct((x_MK.shape[0], w.shape[0 if transposed else 1]), jnp.float32)
    return jax.ffi.ffi_call("rlvr_matmul", result)(x_MK, w, transposed=transposed)
