"""Decode attention on Hopper GPUs, in Mosaic GPU: a block of threads a group of queries and head walks its pages.

Legend, beside the one of plan.py: M queries of one block, N blocks of a head.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from kernels.decode_attention.plan import MASK_VALUE, AttentionState, DecodePlan, merge_states

QUERIES = 64
"""The rows of a Hopper matrix product; a block's queries are filled up to them."""
GROUP = 8
PART = 64
"""Tokens that are fetched and added at a time: of half a page, so that two blocks fit a multiprocessor, and one of them
computes while the other waits."""
STAGES = 2
"""Parts in flight a block."""


class PageLists(NamedTuple):
    """The pages that each of the N blocks reads."""

    page_I: Any
    tokens_I: Any
    prompt_I: Any  # an entry counts for those of a block's queries whose prompt this is
    first_N: Any  # block n reads entries first_N[n] to first_N[n] + count_N[n] - 1
    count_N: Any
    prompt_NM: Any


def takes(q_BKGH: jax.Array, k_PKHC: jax.Array, tile: int) -> bool:
    """Whether the kernel is made for arrays of these shapes and this type, and for this machine's GPU, if it has one.

    A machine without one compiles for others; the kernel's matrix products exist on Hopper alone.
    """
    if jax.default_backend() == "gpu" and not jax.devices()[0].compute_capability.startswith("9."):
        return False
    g, h = q_BKGH.shape[2:]
    same = q_BKGH.dtype == k_PKHC.dtype == jnp.bfloat16
    return same and g <= GROUP and h in (64, 128) and k_PKHC.shape[-1] == 128 and tile % GROUP == 0


def decode_attention(
    q_BKGH: jax.Array, k_PKHC: jax.Array, v_PKCH: jax.Array, plan: DecodePlan, tile: int
) -> AttentionState:
    """As the reference, where `takes` allows. A row's pages are added one after the other, in the order of its list."""
    b, heads, g, h = q_BKGH.shape
    rows = -(-b // tile) * tile
    q = jnp.pad(q_BKGH, ((0, rows - b), (0, 0), (0, GROUP - g), (0, 0)))
    any_I = jnp.zeros_like(plan.page_I)
    alone = PageLists(plan.page_I, plan.tokens_I, any_I, plan.first_B, plan.count_B, jnp.zeros((b, QUERIES), jnp.int32))
    own = _attend(q[:b], k_PKHC, v_PKCH, alone)

    together = QUERIES // GROUP
    blocks = rows // together
    q_together = jnp.moveaxis(q.reshape(blocks, together, heads, GROUP, h), 1, 2).reshape(blocks, heads, QUERIES, h)
    is_visit_S = jnp.arange(plan.shared_S.shape[0]) < plan.visits
    mine_NS = is_visit_S & (plan.tile_S == (jnp.arange(blocks) * together // tile)[:, None])
    prompt_B = jnp.pad(plan.prompt_B, (0, rows - b))
    shared = _attend(
        q_together,
        k_PKHC,
        v_PKCH,
        PageLists(
            plan.shared_S,
            plan.shared_tokens_S,
            plan.prompt_S,
            jnp.argmax(mine_NS, axis=1),
            jnp.sum(mine_NS, axis=1),
            jnp.repeat(prompt_B, GROUP).reshape(blocks, QUERIES),
        ),
    )

    def apart(x: jax.Array) -> jax.Array:
        x = jnp.moveaxis(x.reshape(blocks, heads, together, GROUP, *x.shape[3:]), 2, 1)
        return x.reshape(rows, heads, GROUP, *x.shape[4:])[:b, :, :g]

    alone = AttentionState(*(x[:, :, :g] for x in own))
    return merge_states(alone, AttentionState(*map(apart, shared)))


def _attend(q_NKMH: jax.Array, k_PKHC: jax.Array, v_PKCH: jax.Array, lists: PageLists) -> AttentionState:
    """The queries' partial softmaxes over their block's entries."""
    blocks, heads, queries, h = q_NKMH.shape
    kernel = plgpu.kernel(
        partial(_kernel, parts=k_PKHC.shape[-1] // PART),
        out_type=[jax.ShapeDtypeStruct((blocks, heads, queries, *width), jnp.float32) for width in ((h,), (), ())],
        grid=(blocks, heads),
        grid_names=("block", "head"),
        scratch_types=[
            _tiled(QUERIES, h),
            _tiled(STAGES, h, PART),
            _tiled(STAGES, PART, h),
            plgpu.SMEM((QUERIES, h), jnp.float32),
            *[plgpu.SMEM((QUERIES,), jnp.float32)] * 2,
            plgpu.SMEM((QUERIES,), jnp.int32),
            plgpu.Barrier(num_barriers=2),
            *[plgpu.Barrier(num_barriers=STAGES)] * 2,
            plgpu.Barrier(),
        ],
    )
    return AttentionState(*kernel(q_NKMH, k_PKHC, v_PKCH, *(x.astype(jnp.int32) for x in lists)))


def _tiled(*shape: int) -> Any:
    return plgpu.SMEM(shape, jnp.bfloat16, transforms=(plgpu.TilingTransform((8, 64)), plgpu.SwizzleTransform(128)))


def _kernel(
    q_NKMH,
    k_PKHC,
    v_PKCH,
    page_I,
    tokens_I,
    prompt_I,
    first_N,
    count_N,
    prompt_NM,
    out_NKMH,
    top_NKM,
    total_NKM,
    q_MH,
    k_SHC,
    v_SCH,
    out_MH,
    top_M,
    total_M,
    prompt_M,
    start,
    k_there,
    v_there,
    spent,
    *,
    parts: int,
):
    block, head = jax.lax.axis_index("block"), jax.lax.axis_index("head")
    first, h = first_N[block], q_MH.shape[1]
    rows = plgpu.Layout.WGMMA.reduce(1)
    # Rows of q_MH behind the queries hold anything; no row of a product depends on another, and they are not kept.
    some = pl.ds(0, q_NKMH.shape[2])
    count = count_N[block] * parts

    def place(n: jax.Array) -> tuple[jax.Array, jax.Array]:
        return first + jax.lax.div(n, parts), jax.lax.rem(n, parts) * PART

    def fetch(n: jax.Array, stage: jax.Array) -> None:
        entry, token = place(n)
        page, tokens = page_I[entry], pl.ds(token, PART)
        plgpu.copy_gmem_to_smem(k_PKHC.at[page, head, :, tokens], k_SHC.at[stage], k_there.at[stage])
        plgpu.copy_gmem_to_smem(v_PKCH.at[page, head, tokens], v_SCH.at[stage], v_there.at[stage])

    plgpu.copy_gmem_to_smem(q_NKMH.at[block, head], q_MH.at[some], start.at[0])
    plgpu.copy_gmem_to_smem(prompt_NM.at[block], prompt_M, start.at[1])
    for stage in range(STAGES):
        pl.when(stage < count)(partial(fetch, jnp.int32(stage), stage))
    plgpu.barrier_wait(start.at[0])
    plgpu.barrier_wait(start.at[1])
    mine_M = plgpu.layout_cast(prompt_M[...], rows)

    def add(n: jax.Array, sums: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        out, top, total = sums
        stage = jax.lax.rem(n, STAGES)
        entry, before = place(n)
        tokens_M = jnp.where(mine_M == prompt_I[entry], tokens_I[entry] - before, 0)
        token = plgpu.broadcasted_iota(jnp.int32, (QUERIES, PART), 1, layout=plgpu.Layout.WGMMA)
        seen = token < jax.lax.broadcast_in_dim(tokens_M, token.shape, [0])
        plgpu.barrier_wait(k_there.at[stage])

        scores = _product(q_MH, k_SHC.at[stage], PART) * h**-0.5
        scores = jnp.where(seen, scores, MASK_VALUE)
        new = jnp.maximum(top, scores.max(axis=1))
        e = jnp.where(seen, jnp.exp(scores - jax.lax.broadcast_in_dim(new, scores.shape, [0])), 0.0)
        keep = jnp.exp(top - new)
        total = total * keep + e.sum(axis=1)
        weights = e.astype(jnp.bfloat16)
        plgpu.barrier_wait(v_there.at[stage])
        out = out * jax.lax.broadcast_in_dim(keep, out.shape, [0]) + _product(weights, v_SCH.at[stage], h)
        # No warp may still read the pages that are about to be overwritten.
        plgpu.barrier_arrive(spent)
        plgpu.barrier_wait(spent)
        pl.when(n + STAGES < count)(lambda: fetch(n + STAGES, stage))
        return out, new, total

    zero_M = plgpu.layout_cast(jnp.zeros((QUERIES,), jnp.float32), rows)
    zero_MH = plgpu.layout_cast(jnp.zeros((QUERIES, h), jnp.float32), plgpu.Layout.WGMMA)
    out, top, total = jax.lax.fori_loop(0, count, add, (zero_MH, zero_M + MASK_VALUE, zero_M))
    out_MH[...], top_M[...], total_M[...] = out, top, total
    plgpu.commit_smem()
    for x, y in ((out_MH, out_NKMH), (top_M, top_NKM), (total_M, total_NKM)):
        plgpu.copy_smem_to_gmem(x.at[some], y.at[block, head])
    plgpu.wait_smem_to_gmem(0)


def _product(a_MN: Any, b_NO: Any, size: int) -> jax.Array:
    def multiply(sums: Any) -> jax.Array:
        plgpu.wgmma(sums, a_MN, b_NO)
        return sums[...]

    return pl.run_scoped(multiply, plgpu.ACC((QUERIES, size), jnp.float32))
