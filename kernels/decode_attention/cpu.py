"""For XLA:CPU where native.py cannot be: loops of as many turns as there are pages in use.

Own pages are taken column by column (first every row's first page, then the second ones, ...), rows with many pages
first, so that a block is a run of neighbouring rows. How a row's pages are put together depends on their number alone,
not on other rows. What may not be needed is a loop of no turns and not a branch: XLA:CPU runs branches on one core.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from kernels.decode_attention.plan import GROUP, MASK_VALUE, AttentionState, DecodePlan, merge_states
from kernels.rows import max_in_lanes, sum_in_lanes

SMALL = 4
"""Rows of the smallest block of own pages; each larger one is about four times as long, up to all rows."""

LANES = 16


def decode_attention(
    q_BKGH: jax.Array, k_PKHC: jax.Array, v_PKCH: jax.Array, plan: DecodePlan, tile: int
) -> AttentionState:
    """See reference.py."""
    return merge_states(_own_pages(q_BKGH, k_PKHC, v_PKCH, plan), _shared_pages(q_BKGH, k_PKHC, v_PKCH, plan, tile))


def _take(x: jax.Array, rows: jax.Array) -> jax.Array:
    """x[rows], as the two-dimensional look-up that XLA:CPU copies row by row."""

    def look_up(x: jax.Array) -> jax.Array:
        flat = jnp.take(x.reshape(x.shape[0], -1), rows, axis=0, mode="clip")
        return flat.reshape(*rows.shape, *x.shape[1:])

    return jax.tree.map(look_up, x)


def _own_pages(q_BKGH: jax.Array, k_PKHC: jax.Array, v_PKCH: jax.Array, plan: DecodePlan) -> AttentionState:
    b, width = q_BKGH.shape[0], k_PKHC.shape[-1]
    sizes = [-(-b // SMALL) * SMALL]
    while sizes[-1] > SMALL:
        sizes.append(max(SMALL, sizes[-1] // 4))
    # Rows past the last one hold no pages; they let the last block be as long as the others.
    order = jnp.pad(plan.order_B, (0, -b % SMALL))
    count = jnp.where(jnp.arange(len(order)) < b, plan.count_B[order], 0)
    first, q = plan.first_B[order], _take(q_BKGH, order)

    def turn(size: int, start: jax.Array, column: jax.Array, i: jax.Array, state: AttentionState) -> AttentionState:
        at = start + i * size

        def rows(x: jax.Array) -> jax.Array:
            return lax.dynamic_slice_in_dim(x, at, size)

        item_N = rows(first) + column
        pages_N = plan.page_I[item_N]
        # Apart from their use: fused with it, the look-up is made element by element.
        keys, values = lax.optimization_barrier((_take(k_PKHC, pages_N), _take(v_PKCH, pages_N)))
        tokens_N = jnp.where(column < rows(count), plan.tokens_I[item_N], 0)
        old = AttentionState(*(rows(x) for x in state))
        new = _fold(old, rows(q), keys, values, jnp.arange(width) < tokens_N[:, None])
        return AttentionState(
            *(lax.dynamic_update_slice_in_dim(x, part, at, 0) for x, part in zip(state, new, strict=True))
        )

    def columns(j: jax.Array, state: AttentionState) -> AttentionState:
        """Column j, for the rows that have a page in it."""
        wide, at = jnp.sum(count > j), jnp.int32(0)
        for size in sizes[1:]:
            # A last block that would be more than half full is taken whole.
            turns = (jnp.maximum(wide - at, 0) + (SMALL - 1 if size == SMALL else size // 2 - 1)) // size
            state = lax.fori_loop(0, turns, partial(turn, size, at, j), state)
            at += turns * size
        return state

    most = jnp.max(count)
    # Columns in which more than half of the rows have a page take all rows, in a loop that holds no other.
    full = count[len(count) // 2] if sizes[1:] else most
    whole = partial(turn, sizes[0], jnp.int32(0))
    state = lax.fori_loop(0, full, lambda j, state: whole(j, jnp.int32(0), state), _nothing(q))
    state = lax.fori_loop(full, most, columns, state)
    back = jnp.zeros(b, jnp.int32).at[plan.order_B].set(jnp.arange(b))
    return AttentionState(*(_take(x, back) for x in state))


def _fold(
    state: AttentionState, q_NKGH: jax.Array, keys: jax.Array, values: jax.Array, seen_NC: jax.Array
) -> AttentionState:
    """One more page for each of N rows: the running softmax of Milakov and Gimelshein 2018, alg. 3.

    In pieces that XLA:CPU computes to the same bits for any number of rows: it adds along the last axis in an order of
    its own, so that is done in halves.
    """
    q, keys, values = (x.astype(jnp.float32) for x in (q_NKGH, keys, values))
    seen = seen_NC[:, None, None]
    scores = jnp.where(seen, jnp.einsum("bkgh,bkhc->bkgc", q, keys) * q.shape[-1] ** -0.5, MASK_VALUE)
    most = jnp.maximum(state.max_BKG, jnp.max(scores, axis=-1))
    e = jnp.where(seen, jnp.exp(scores - most[..., None]), 0.0)
    kept = jnp.exp(state.max_BKG - most)
    mixed = jnp.einsum("bkgc,bkch->bkgh", e, values)
    return AttentionState(state.out_BKGH * kept[..., None] + mixed, most, state.sum_BKG * kept + _sum_in_halves(e))


def _sum_in_halves(x: jax.Array) -> jax.Array:
    width = x.shape[-1]
    half = 1 << max(0, (width - 1).bit_length() - 1)
    while width > 1:
        rest = width - half
        x = jnp.concatenate([x[..., :rest] + x[..., half:width], x[..., rest:half]], axis=-1)
        width, half = half, half // 2
    return x[..., 0]


def _nothing(q: jax.Array) -> AttentionState:
    return AttentionState(jnp.zeros(q.shape, jnp.float32), jnp.full(q.shape[:-1], MASK_VALUE), jnp.zeros(q.shape[:-1]))


def _shared_pages(
    q_BKGH: jax.Array, k_PKHC: jax.Array, v_PKCH: jax.Array, plan: DecodePlan, tile: int
) -> AttentionState:
    """All tiles of rows side by side, each against GROUP of its pages at a time: products with tile * G rows.

    Legend: N tiles, X = tile * G queries of a tile and key head, J = GROUP pages, S = J * C keys.
    """
    b, k, g, h = q_BKGH.shape
    width, tiles = k_PKHC.shape[-1], b // tile
    listed = jnp.arange(len(plan.tile_S)) < plan.visits
    visits_N = jnp.sum((plan.tile_S == jnp.arange(tiles)[:, None]) & listed, axis=1)
    first_N = jnp.cumsum(visits_N) - visits_N
    prompt_NX = jnp.repeat(plan.prompt_B.reshape(tiles, tile), g, axis=1)
    q_NKXH = q_BKGH.reshape(tiles, tile, k, g, h).transpose(0, 2, 1, 3, 4).reshape(tiles, k, tile * g, h)

    def turn(i: jax.Array, state: AttentionState) -> AttentionState:
        at_NJ = (first_N + i * GROUP)[:, None] + jnp.arange(GROUP)
        page_NJ, tokens_NJ, prompt_NJ = (
            jnp.take(x, at_NJ, mode="clip") for x in (plan.shared_S, plan.shared_tokens_S, plan.prompt_S)
        )
        tokens_NJ = jnp.where((i * GROUP < visits_N)[:, None], tokens_NJ, 0)
        pages = page_NJ.reshape(-1)
        keys, values = (_take(x, pages).astype(q_BKGH.dtype) for x in (k_PKHC, v_PKCH))
        keys = keys.reshape(tiles, GROUP, k, h, width).transpose(0, 2, 3, 1, 4)
        values = values.reshape(tiles, GROUP, k, width, h).transpose(0, 2, 1, 3, 4)
        keys, values = keys.reshape(tiles, k, h, -1), values.reshape(tiles, k, -1, h)
        used_NS = (jnp.arange(width) < tokens_NJ[:, :, None]).reshape(tiles, -1)
        seen = (used_NS[:, None] & (prompt_NX == prompt_NJ[:, :1])[:, :, None])[:, None]
        scores = jnp.einsum("nkxh,nkhs->nkxs", q_NKXH, keys, preferred_element_type=jnp.float32) * h**-0.5
        scores = jnp.where(seen, scores, MASK_VALUE)
        most = jnp.maximum(state.max_BKG, max_in_lanes(scores, LANES))
        e = jnp.where(seen, jnp.exp(scores - most[..., None]), 0.0)
        kept = jnp.exp(state.max_BKG - most)
        mixed = jnp.einsum("nkxs,nksh->nkxh", e.astype(values.dtype), values, preferred_element_type=jnp.float32)
        total = state.sum_BKG * kept + sum_in_lanes(e, LANES)
        return AttentionState(state.out_BKGH * kept[..., None] + mixed, most, total)

    state = lax.fori_loop(0, jnp.max(visits_N) // GROUP, turn, _nothing(q_NKXH))

    def by_row(x: jax.Array) -> jax.Array:
        x = x.reshape(tiles, k, tile, g, *x.shape[3:])
        return jnp.moveaxis(x, 1, 2).reshape(b, k, g, *x.shape[4:])

    return AttentionState(*(by_row(x) for x in state))
