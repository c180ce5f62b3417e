"""Decode attention on a TPU: one Pallas kernel that reads every page once, for all heads, in the order of the plan.

Legend, beside the one of plan.py: E rows of one tile, L lanes; Gp is G rounded up to a whole register of 8 sublanes.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.decode_attention.plan import MASK_VALUE, AttentionState, DecodePlan
from kernels.products import precision_for

LANES = 128
SUBLANES = 8
STEP_BYTES = 2**20
"""Pages fetched by one step of the grid: at 0.8 to 1.6 TB/s these take longer than what a step costs by itself."""
MOST_PAGES = 8


def takes(q_BKGH: jax.Array, k_PKHC: jax.Array) -> bool:
    """Whether pages are whole tiles of the TPU, in the dtype of q, and heads no wider than one."""
    return k_PKHC.dtype == q_BKGH.dtype and k_PKHC.shape[-1] % LANES == 0 and q_BKGH.shape[-1] <= LANES


def decode_attention(
    q_BKGH: jax.Array, k_PKHC: jax.Array, v_PKCH: jax.Array, plan: DecodePlan, tile: int
) -> AttentionState:
    """As the reference; C a multiple of 128, the lanes of a register, and H at most that.

    The queries and running sums of all rows stay in VMEM, (2 H + 256) x 4 bytes a row and head, so that own and shared
    pages are taken in one sweep: steps of several own pages first, of any rows, then one step a visit. Each row's
    pages are added in the order of its list, so its sums know nothing of the other rows.
    """
    b, heads, g, h = q_BKGH.shape
    width = k_PKHC.shape[-1]
    cores = 1 if heads % 2 else 2  # Chips with two cores give each half of the heads; others take them in turn.
    part = heads // cores
    page_bytes = part * h * width * (k_PKHC.dtype.itemsize + v_PKCH.dtype.itemsize)
    pages = max(1, min(MOST_PAGES, STEP_BYTES // page_bytes))
    # XLA lays values of narrow heads out with tokens in the lanes; asked for another order, it would copy the pool.
    turned = h < LANES
    values = jnp.swapaxes(v_PKCH, 2, 3) if turned else v_PKCH
    rows, group = -(-b // tile) * tile, -(-g // SUBLANES) * SUBLANES
    q = jnp.pad(q_BKGH.astype(jnp.float32), ((0, rows - b), (0, 0), (0, group - g), (0, 0)))
    prompt_BL = jnp.broadcast_to(jnp.pad(plan.prompt_B, (0, rows - b))[:, None], (rows, width))

    own = _within(plan.items, plan.page_I, plan.row_I, plan.tokens_I)
    shared = _within(plan.visits, plan.shared_S, plan.tile_S, plan.prompt_S, plan.shared_tokens_S)
    items, visits = (jnp.asarray(count, jnp.int32).reshape(()) for count in (plan.items, plan.visits))
    own_steps = (items + pages - 1) // pages
    counts = jnp.stack([own_steps, items, visits])
    steps = jnp.maximum(own_steps + visits, 1)

    def page_of(j: int, core: jax.Array, step: jax.Array, counts, page_I, *lists) -> tuple:
        item = jnp.clip(step * pages + j, 0, page_I.shape[0] - 1)
        shared_S = lists[2]
        visit = jnp.clip(step - counts[0], 0, shared_S.shape[0] - 1)
        chosen = page_I[item] if j else jnp.where(step < counts[0], page_I[item], shared_S[visit])
        return chosen, core, 0, 0

    def whole(core: jax.Array, step: jax.Array, *lists) -> tuple:
        return 0, core, 0, 0

    def page_specs(*block: int) -> list[pl.BlockSpec]:
        return [pl.BlockSpec((1, part, *block), partial(page_of, j)) for j in range(pages)]

    state = rows * part * group * (2 * h + 2 * LANES) * 4 + rows * width * 4
    out, most, total = pl.pallas_call(
        partial(_kernel, pages=pages, tile=tile, turned=turned),
        out_shape=[jax.ShapeDtypeStruct((rows, heads, group, lanes), jnp.float32) for lanes in (h, LANES, LANES)],
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=8,
            grid=(cores, steps),
            in_specs=[
                pl.BlockSpec((rows, part, group, h), whole),
                pl.BlockSpec((rows, width), lambda core, step, *lists: (0, 0)),
                *page_specs(h, width),
                *page_specs(*values.shape[2:]),
            ],
            out_specs=[pl.BlockSpec((rows, part, group, lanes), whole) for lanes in (h, LANES, LANES)],
        ),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary"),
            vmem_limit_bytes=2 * (state + pages * page_bytes) + 2**24,
        ),
        name="decode_attention",
    )(counts, *own, *shared, q, prompt_BL, *[k_PKHC] * pages, *[values] * pages)
    return AttentionState(out[:b, :, :g], most[:b, :, :g, 0], total[:b, :, :g, 0])


def _within(count: jax.Array, *lists: jax.Array) -> list[jax.Array]:
    """Lists of at least one entry, with 0 past the count: a page that exists, of no row's concern."""
    at_least_one = [jnp.pad(x, (0, max(0, 1 - x.shape[0]))).astype(jnp.int32) for x in lists]
    return [jnp.where(jnp.arange(x.shape[0]) < count, x, 0) for x in at_least_one]


def _kernel(
    counts,
    page_I,
    row_I,
    tokens_I,
    shared_S,
    tile_S,
    prompt_S,
    shared_tokens_S,
    q_BKGH,
    prompt_BL,
    *rest,
    pages: int,
    tile: int,
    turned: bool,
):
    k_refs, v_refs, sums = rest[:pages], rest[pages : 2 * pages], rest[2 * pages :]
    step = pl.program_id(1)
    own_steps, items, visits = counts[0], counts[1], counts[2]
    attend = partial(_attend, turned=turned)

    @pl.when(step == 0)
    def _():
        for x, start in zip(sums, (0.0, MASK_VALUE, 0.0), strict=True):
            x[...] = jnp.full_like(x, start)

    @pl.when(step < own_steps)
    def _():
        found = []
        for j in range(pages):
            item = step * pages + j
            at = jnp.minimum(item, row_I.shape[0] - 1)
            tokens = jnp.where(item < items, tokens_I[at], 0)
            k, v = k_refs[j][0], v_refs[j][0]
            seen = jax.lax.broadcasted_iota(jnp.int32, (1, 1, k.shape[-1]), 2) < tokens
            found.append((row_I[at], attend(q_BKGH[row_I[at]], k, v, seen)))
        for row, fresh in found:
            for x, new in zip(sums, _join([x[row] for x in sums], fresh), strict=True):
                x[row] = new

    visit = jnp.clip(step - own_steps, 0, tile_S.shape[0] - 1)

    @pl.when((step >= own_steps) & (step < own_steps + visits) & (shared_tokens_S[visit] > 0))
    def _():
        rows = pl.ds(tile_S[visit] * tile, tile)
        k_PKHC, v_PKCH = k_refs[0], v_refs[0]
        group, width = q_BKGH.shape[2], k_PKHC.shape[-1]
        lane_EL = jax.lax.broadcasted_iota(jnp.int32, (tile, width), 1)
        seen_EL = (prompt_BL[rows] == prompt_S[visit]) & (lane_EL < shared_tokens_S[visit])
        seen_EGL = jnp.broadcast_to(seen_EL.astype(jnp.int32)[:, None, :], (tile, group, width))
        seen = seen_EGL.reshape(1, tile * group, width) > 0

        @pl.loop(0, k_PKHC.shape[1])
        def _(head: jax.Array):
            q = q_BKGH[rows, head].reshape(1, tile * group, -1)
            old = [x[rows, head].reshape(1, tile * group, -1) for x in sums]
            fresh = attend(q, k_PKHC[:, head], v_PKCH[:, head], seen)
            for x, new in zip(sums, _join(old, fresh), strict=True):
                x[rows, head] = new.reshape(tile, group, -1)


def _attend(q_KMH: jax.Array, k_KHC: jax.Array, v: jax.Array, seen: jax.Array, turned: bool) -> tuple:
    """(sum e v, max score, sum e) of M queries a head over one page; e = exp(score - max)."""
    scores = _product(q_KMH.astype(k_KHC.dtype), k_KHC, 1) * q_KMH.shape[-1] ** -0.5
    scores = jnp.where(seen, scores, MASK_VALUE)
    most = jnp.max(scores, axis=-1, keepdims=True)
    e = jnp.where(seen, jnp.exp(scores - most), 0.0)
    return _product(e.astype(v.dtype), v, 2 if turned else 1), most, jnp.sum(e, axis=-1, keepdims=True)


def _product(a: jax.Array, b: jax.Array, axis: int) -> jax.Array:
    """a [K, M, N] times b, which has N at `axis`, a head at a time: float32 [K, M, O]."""
    axes = (((2,), (axis,)), ((0,), (0,)))
    return jax.lax.dot_general(a, b, axes, precision=precision_for(b.dtype), preferred_element_type=jnp.float32)


def _join(old: list[jax.Array], fresh: tuple) -> tuple[jax.Array, ...]:
    """Two partial softmaxes as one; the tops and totals of `old` fill all lanes, so that nothing crosses lanes."""
    (old_out, old_top, old_total), (fresh_out, fresh_top, fresh_total) = old, fresh
    most = jnp.maximum(old_top, fresh_top)
    keep, add = jnp.exp(old_top - most), jnp.exp(fresh_top - most)
    h = old_out.shape[-1]
    return old_out * keep[..., :h] + fresh_out * add[..., :h], most, old_total * keep + fresh_total * add
