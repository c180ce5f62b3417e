"""For CPUs, cpu.cc: one call that reads only the tokens there are, each where it lies."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels import native
from kernels.decode_attention.plan import AttentionState, DecodePlan, RecentKV
from kernels.platforms import is_sharded

LANES = 4
"""Head width and tokens of a page must be multiples of it."""

STORED = (jnp.float32, jnp.bfloat16)
"""What keys and values may be stored as."""


def takes(q_BKGH: jax.Array, k_PKHC: jax.Array) -> bool:
    """Whether the kernel computes this: all in float32 or all in bfloat16, on one device or one device's part, and with
    a compiler at hand."""
    if q_BKGH.dtype != k_PKHC.dtype or k_PKHC.dtype not in STORED or is_sharded((q_BKGH, k_PKHC)):
        return False
    return not (q_BKGH.shape[-1] % LANES or k_PKHC.shape[-1] % LANES) and native.ready()


def decode_attention(
    q_BKGH: jax.Array, k_PKHC: jax.Array, v_PKCH: jax.Array, plan: DecodePlan, tile: int, recent: RecentKV | None = None
) -> AttentionState:
    """See reference.py; recent keys, if given, are seen too. A row's bits depend on what it sees and nothing else.

    Whatever is stored, products and sums are in float32, and so are the weights that values are multiplied with.
    """
    b, k, g, h = q_BKGH.shape
    if recent is None:
        none = jnp.zeros((b, k, 0, h), k_PKHC.dtype)
        recent = RecentKV(none, none, jnp.zeros(g, jnp.int32))
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (q_BKGH.shape, (b, k, g), (b, k, g))]
    lists = (
        recent.seen_G, plan.page_I, plan.tokens_I, plan.first_B, plan.count_B, plan.prompt_B, plan.tile_S,
        plan.shared_S, plan.prompt_S, plan.shared_tokens_S, plan.visits,
    )  # fmt: skip
    arrays = q_BKGH.astype(jnp.float32), k_PKHC, v_PKCH, recent.k_BKWH, recent.v_BKWH
    lists = (jnp.asarray(x, jnp.int32).reshape(-1) for x in lists)
    return AttentionState(*jax.ffi.ffi_call("rlvr_decode_attention", results)(*arrays, *lists, tile=tile))
