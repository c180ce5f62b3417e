"""Decode attention on a GPU, in plain XLA: the pool is read once, page by page as it lies, and nothing is added in an
order that depends on where a page lies or on other rows: no atomics, no loop of a length that only the data know.

Legend, beside the one of plan.py: N partial softmaxes, each over one page; E rows of a tile; W partials joined at once.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from kernels.decode_attention.plan import MASK_VALUE, AttentionState, DecodePlan, merge_states
from kernels.products import product

WIDTH = 16
"""Partials joined in one step of the tree over a row's pages."""
Nth = Callable[[jax.Array, jax.Array], jax.Array]
"""(number of a row's first partial, n) -> number of its n-th."""


def decode_attention(
    q_BKGH: jax.Array, k_PKHC: jax.Array, v_PKCH: jax.Array, plan: DecodePlan, tile: int
) -> AttentionState:
    """As the reference, where no page is listed for two rows.

    Temporaries are a few times G / (2 C) of the pool, one softmax over each of its pages.
    """
    return merge_states(_own(q_BKGH, k_PKHC, v_PKCH, plan), _shared(q_BKGH, k_PKHC, v_PKCH, plan, tile))


def _own(q_BKGH: jax.Array, k_PKHC: jax.Array, v_PKCH: jax.Array, plan: DecodePlan) -> AttentionState:
    pages = k_PKHC.shape[0]
    # An entry past the count writes nowhere: a page that does not exist.
    page_I = jnp.where(jnp.arange(plan.page_I.shape[0]) < plan.items, plan.page_I, pages)
    row_P = jnp.zeros(pages, jnp.int32).at[page_I].set(plan.row_I, mode="drop")
    tokens_P = jnp.zeros(pages, jnp.int32).at[page_I].set(plan.tokens_I, mode="drop")
    seen_PC = jnp.arange(k_PKHC.shape[-1]) < tokens_P[:, None]
    of_page = _softmax(q_BKGH[row_P], k_PKHC, v_PKCH, seen_PC[:, None, None])

    def nth(first_N: jax.Array, n: jax.Array) -> jax.Array:
        return page_I[jnp.minimum(first_N + n, page_I.shape[0] - 1)]

    return _fold(of_page, nth, plan.first_B, plan.count_B, page_I.shape[0], page_I.shape[0])


def _shared(q_BKGH: jax.Array, k_PKHC: jax.Array, v_PKCH: jax.Array, plan: DecodePlan, tile: int) -> AttentionState:
    b, _, g, _ = q_BKGH.shape
    visits = plan.shared_S.shape[0]
    is_visit_S = jnp.arange(visits) < plan.visits
    shared_S, tile_S = jnp.where(is_visit_S, plan.shared_S, 0), jnp.where(is_visit_S, plan.tile_S, -1)
    # One product a visit: the rows of its tile are more queries of the same head.
    rows_SE = jnp.clip(tile_S[:, None] * tile + jnp.arange(tile), 0, b - 1)
    q_SKMH = jnp.moveaxis(q_BKGH[rows_SE], 1, 2).reshape(visits, q_BKGH.shape[1], tile * g, -1)
    seen_SC = jnp.arange(k_PKHC.shape[-1]) < plan.shared_tokens_S[:, None]
    of_visit = _softmax(q_SKMH, k_PKHC[shared_S], v_PKCH[shared_S], seen_SC[:, None, None])

    def one_row_each(x: jax.Array) -> jax.Array:
        apart = x.reshape(*x.shape[:2], tile, g, *x.shape[3:])
        return jnp.moveaxis(apart, 2, 1).reshape(visits * tile, x.shape[1], g, *x.shape[3:])

    row = jnp.arange(b)
    mine_BS = (tile_S == (row // tile)[:, None]) & (plan.prompt_S == plan.prompt_B[:, None])
    first_B, count_B = jnp.argmax(mine_BS, axis=1), jnp.sum(mine_BS, axis=1)

    def nth(first_N: jax.Array, n: jax.Array) -> jax.Array:
        return jnp.minimum(first_N + n * tile, visits * tile - 1)

    of_row = AttentionState(*map(one_row_each, of_visit))
    return _fold(of_row, nth, first_B * tile + row % tile, count_B, visits, visits * tile)


def _softmax(q_NKMH: jax.Array, k_NKHC: jax.Array, v_NKCH: jax.Array, seen: jax.Array) -> AttentionState:
    scores = product("nkmh,nkhc->nkmc", q_NKMH, k_NKHC) * q_NKMH.shape[-1] ** -0.5
    scores = jnp.where(seen, scores, MASK_VALUE)
    most = jnp.max(scores, axis=-1)
    e = jnp.where(seen, jnp.exp(scores - most[..., None]), 0.0)
    return AttentionState(product("nkmc,nkch->nkmh", e.astype(v_NKCH.dtype), v_NKCH), most, jnp.sum(e, axis=-1))


def _fold(
    parts: AttentionState, nth: Nth, first_B: jax.Array, count_B: jax.Array, longest: int, most: int
) -> AttentionState:
    """Joins each row's count_B partials, the n-th of which is number nth(first, n), by a tree of width W.

    The tree is that of the row's own count: it starts at the row's first partial. longest and most: the largest
    counts there can be, of one row and of all rows together.
    """
    rows = first_B.shape[0]
    while True:
        blocks_B = -(-count_B // WIDTH)
        begin_B = jnp.cumsum(blocks_B) - blocks_B
        size = most // WIDTH + rows
        row_N = jnp.searchsorted(begin_B, jnp.arange(size), side="right", method="compare_all") - 1
        n_NW = (jnp.arange(size) - begin_B[row_N])[:, None] * WIDTH + jnp.arange(WIDTH)
        exists_NW = n_NW < count_B[row_N][:, None]
        at_NW = jnp.clip(nth(first_B[row_N][:, None], n_NW), 0, parts.max_BKG.shape[0] - 1)
        parts = _join_many(AttentionState(*(x[at_NW] for x in parts)), exists_NW)
        first_B, count_B, most, longest = begin_B, blocks_B, size, -(-longest // WIDTH)
        if longest <= 1:
            break

        def nth(first_N: jax.Array, n: jax.Array) -> jax.Array:
            return first_N + n

    found = AttentionState(*(x[jnp.minimum(first_B, size - 1)] for x in parts))
    some_B = count_B > 0
    return AttentionState(
        jnp.where(some_B[:, None, None, None], found.out_BKGH, 0.0),
        jnp.where(some_B[:, None, None], found.max_BKG, MASK_VALUE),
        jnp.where(some_B[:, None, None], found.sum_BKG, 0.0),
    )


def _join_many(parts_NW: AttentionState, exists_NW: jax.Array) -> AttentionState:
    exists = exists_NW[:, :, None, None]
    top_NW = jnp.where(exists, parts_NW.max_BKG, MASK_VALUE)
    most = jnp.max(top_NW, axis=1)
    weight_NW = jnp.where(exists, jnp.exp(top_NW - most[:, None]), 0.0)
    out = jnp.sum(parts_NW.out_BKGH * weight_NW[..., None], axis=1)
    return AttentionState(out, most, jnp.sum(parts_NW.sum_BKG * weight_NW, axis=1))
