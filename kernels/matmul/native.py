"""For CPUs, cpu.cc: columns of weights are read as they lie."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels import native
from kernels.platforms import is_sharded

LANES, COLUMNS = 32, 4
"""What K and N are multiples of."""


def takes(x_MK: jax.Array | jax.ShapeDtypeStruct, w_NK: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Whether the kernel multiplies these: bfloat16, on one device or one device's part, and a processor that the
    kernel is faster on than XLA's library (AVX512_BF16 without AMX; AVX2 without AVX-512)."""
    n, k = w_NK.shape
    if (x_MK.dtype, w_NK.dtype) != (jnp.bfloat16, jnp.bfloat16) or k % LANES or n % COLUMNS:
        return False
    return not is_sharded((x_MK, w_NK)) and native.multiplies()


def matmul(x_MK: jax.Array, w_NK: jax.Array) -> jax.Array:
    """reference.matmul. A row's bits do not depend on the rows beside it, nor on how many there are."""
    result = jax.ShapeDtypeStruct((x_MK.shape[0], w_NK.shape[0]), jnp.float32)
    return jax.ffi.ffi_call("rlvr_matmul", result)(x_MK, w_NK)
