"""For CPUs, cpu.cc: one call that keeps a row in the caches from its logits to its token."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels import native
from kernels.draw.reference import SamplingTensors, Truncations
from kernels.platforms import is_sharded


def takes(logits_BV: jax.Array) -> bool:
    """Whether the kernel draws from these: whole rows of float32, and a compiler at hand.

    XLA cannot cut a custom call over a mesh: all devices would be sent all rows.
    """
    return logits_BV.dtype == jnp.float32 and not is_sharded(logits_BV) and native.ready()


def draw(
    logits_BV: jax.Array, u_B: jax.Array, sampling: SamplingTensors, _: Truncations
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """See reference.py; each row is cut as it asks for itself, and its bits depend on nothing else."""
    rows = u_B.shape
    results = [jax.ShapeDtypeStruct(rows, dtype) for dtype in (jnp.int32, jnp.float32, jnp.float32)]
    columns = sampling.temperature_B, sampling.top_p_B, sampling.min_p_B, sampling.top_k_B
    return tuple(jax.ffi.ffi_call("rlvr_draw", results)(logits_BV, u_B, *columns))
