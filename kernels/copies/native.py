"""For CPUs, cpu.cc: bytes are copied from where they lie to where they are to lie, and nothing else is touched."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels import native
from kernels.platforms import is_sharded


def takes(x: jax.Array) -> bool:
    """Whether the kernel copies rows of this: of bfloat16, on one device or one device's part, with a compiler at hand.

    What is not widened to be copied (float32, 8 bits) XLA copies as well.
    """
    return x.dtype == jnp.bfloat16 and not is_sharded(x) and native.ready()


def take(x: jax.Array, at: jax.Array) -> jax.Array:
    """See reference.py."""
    flat = at.reshape(-1).astype(jnp.int32)
    rows = jax.ffi.ffi_call("rlvr_take", jax.ShapeDtypeStruct((*flat.shape, *x.shape[1:]), x.dtype))(x, flat)
    return rows.reshape(*at.shape, *x.shape[1:])


def put(old: jax.Array, new: jax.Array, at_N: jax.Array, offset_N: jax.Array, axis: int) -> jax.Array:
    """See reference.py; what is given to be overwritten is not copied."""
    call = jax.ffi.ffi_call("rlvr_put", jax.ShapeDtypeStruct(old.shape, old.dtype), input_output_aliases={0: 0})
    return call(old, new, at_N.astype(jnp.int32), offset_N.astype(jnp.int32), axis=axis)


def update(old: jax.Array, new: jax.Array, offset: jax.Array, axis: int) -> jax.Array:
    """See reference.py."""
    rows = jnp.arange(old.shape[0], dtype=jnp.int32)
    return put(old, new, rows, jnp.full(rows.shape, offset), axis)
