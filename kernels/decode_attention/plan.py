"""What decode attention is told of the pages of a pool: which row reads which page, in which order.

Legend, beside the one of the callers (B rows, K key heads, G query heads a key head, H head width):
P pages of the pool, C tokens of a page, I own pages, S visits of shared pages.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Plan(NamedTuple):
    """Lists of pages to visit; made on the host once for many steps. Entries past a count are ignored.

    Own pages are listed row by row, each row's in the order of its tokens: those of row b are items first_B[b] to
    first_B[b] + count_B[b] - 1, and item i is page page_I[i], of row row_I[i], with tokens_I[i] of its C tokens in use.
    order_B are the rows, those with most items first.
    Shared pages are visited by tiles of `tile` neighbouring rows, of which B is a multiple. Visit s is that of rows
    tile_S[s] * tile onwards to page shared_S[s], with shared_tokens_S[s] tokens in use; it counts only for those rows b
    of the tile with prompt_B[b] == prompt_S[s]. Visits are sorted by tile, those of one tile by prompt, those of one
    prompt by where its tokens stand. Those of one tile and prompt come in multiples of the tiling's group, the last
    ones perhaps with no token in use.
    """

    page_I: Any
    row_I: Any
    tokens_I: Any
    items: Any
    first_B: Any
    count_B: Any
    order_B: Any
    prompt_B: Any
    tile_S: Any
    shared_S: Any
    prompt_S: Any
    shared_tokens_S: Any
    visits: Any


class Recent(NamedTuple):
    """W keys and values of each row that lie in no page yet: its query g sees the first seen_G[g], at least one."""

    k_BKWH: Any
    v_BKWH: Any
    seen_G: Any


class Partial(NamedTuple):
    """A softmax over some of the keys, yet to be joined with others: out / total is its mean of values.

    out_BKGH = sum exp(score - top) value, top_BKG = max score, total_BKG = sum exp(score - top), all float32;
    where a row has no key at all: 0, EMPTY, 0.
    """

    out_BKGH: Any
    top_BKG: Any
    total_BKG: Any


class Tiling(NamedTuple):
    """tile rows visit shared pages together where B allows it, visits of one prompt come in multiples of group.

    lists_prompts: whether shared pages may be listed among the own pages of each of their rows.
    """

    tile: int
    group: int
    lists_prompts: bool


def tiling(platform: str) -> Tiling:
    """What suits the implementation for a platform.

    On a GPU a block of threads holds 8 rows, and would walk all pages of its tile, those of none of its rows too; on a
    CPU larger tiles waste more where rows are of many prompts, smaller ones look up more. Plain XLA (gpu.py, on TPUs
    also) reads each page once, for one row.
    """
    return {"cpu": Tiling(32, GROUP, True), "tpu": Tiling(64, GROUP, False)}.get(platform, Tiling(8, 1, False))


GROUP = 4
"""Pages of a visit on a CPU."""

EMPTY = -1e30
"""The top of no keys: finite, so that differences of tops stay numbers."""


def join(a: Partial, b: Partial) -> Partial:
    """The softmax over the keys of both, in float32 (Milakov and Gimelshein 2018, eq. 4)."""
    top = jnp.maximum(a.top_BKG, b.top_BKG)
    share_a, share_b = jnp.exp(a.top_BKG - top), jnp.exp(b.top_BKG - top)
    out = a.out_BKGH * share_a[..., None] + b.out_BKGH * share_b[..., None]
    return Partial(out, top, a.total_BKG * share_a + b.total_BKG * share_b)


def attend_recent(q_BKGH: jax.Array, recent: Recent) -> Partial:
    """The softmax over what lies in no page yet, scores and sums in float32."""
    k_BKWH, v_BKWH, seen_G = recent
    s = jnp.einsum("bkgh,bkwh->bkgw", q_BKGH, k_BKWH, preferred_element_type=jnp.float32) * q_BKGH.shape[-1] ** -0.5
    s = jnp.where(jnp.arange(k_BKWH.shape[-2]) < seen_G[:, None], s, EMPTY)
    top = jnp.max(s, axis=-1)
    e = jnp.exp(s - top[..., None])
    out = jnp.einsum("bkgw,bkwh->bkgh", e.astype(v_BKWH.dtype), v_BKWH, preferred_element_type=jnp.float32)
    return Partial(out, top, jnp.sum(e, axis=-1))
