"""What decode attention reads, and what it gives back before its parts are merged.

Legend: B rows of the batch, K key heads, G query heads a key head, H head width, P pages of the pool, C tokens of a
page, I own pages of all rows, S visits of shared pages, W recent tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

GROUP = 4
"""Pages of a visit on a CPU."""

MASK_VALUE = -1e30
"""The score of a key that is not seen, and the maximum of none: finite, so that differences stay numbers."""


class DecodePlan(NamedTuple):
    """Which row reads which pages, made on the host once for many steps. Entries past a count are ignored.

    Own pages are listed row by row, each row's in the order of its tokens. Shared pages are visited by tiles of `tile`
    neighbouring rows, of which B is a multiple. Visits are sorted by tile, those of one tile by prompt, those of one
    prompt by where its tokens stand. Those of one tile and prompt come in multiples of Tiling.group, the last ones
    perhaps with no token in use.
    """

    page_I: Any
    row_I: Any
    tokens_I: Any  # of the page's C, how many are in use
    items: Any  # entries of the three lists above
    first_B: Any  # row b has entries first_B[b] to first_B[b] + count_B[b] - 1
    count_B: Any
    order_B: Any  # rows, those with most pages first
    prompt_B: Any
    tile_S: Any  # a visit is that of the rows from tile_S * tile on
    shared_S: Any  # the page visited
    prompt_S: Any  # it counts only for rows with this prompt
    shared_tokens_S: Any
    visits: Any  # entries of the four lists above


class RecentKV(NamedTuple):
    """Keys and values that lie in no page yet: those of the tokens that the running call has made."""

    k_BKWH: Any
    v_BKWH: Any
    seen_G: Any  # query g sees the first seen_G[g] of them, at least one


class AttentionState(NamedTuple):
    """Attention over some of the keys, to be merged with that over others; out / sum is their mean value. float32.

    Where a row has no key at all: 0, MASK_VALUE, 0.
    """

    out_BKGH: Any  # sum of exp(score - max) value
    max_BKG: Any  # largest score
    sum_BKG: Any  # sum of exp(score - max)


class Tiling(NamedTuple):
    """How visits of shared pages are laid out for a platform."""

    tile: int  # rows that visit shared pages together, where B allows it
    group: int  # of which the visits of one prompt are a multiple
    lists_prompts: bool  # whether shared pages may be listed among the own pages of each of their rows
    page: int  # tokens of which the pages that its kernel takes are a multiple


def tiling(platform: str) -> Tiling:
    """What suits the implementation for a platform.

    On a GPU a block of threads holds 8 rows, and would walk all pages of its tile, those of none of its rows too; on a
    CPU larger tiles waste more where rows are of many prompts, smaller ones look up more. Plain XLA (gpu.py, on TPUs
    also) reads each page once, for one row.
    """
    suited = {"cpu": Tiling(32, GROUP, True, 4), "tpu": Tiling(64, GROUP, False, 128)}
    return suited.get(platform, Tiling(8, 1, False, 128))


def merge_states(a: AttentionState, b: AttentionState) -> AttentionState:
    """Attention over the keys of both, in float32 (Milakov and Gimelshein 2018, eq. 4)."""
    most = jnp.maximum(a.max_BKG, b.max_BKG)
    share_a, share_b = jnp.exp(a.max_BKG - most), jnp.exp(b.max_BKG - most)
    out = a.out_BKGH * share_a[..., None] + b.out_BKGH * share_b[..., None]
    return AttentionState(out, most, a.sum_BKG * share_a + b.sum_BKG * share_b)


def attend_recent(q_BKGH: jax.Array, recent: RecentKV) -> AttentionState:
    """Attention over what lies in no page yet, scores and sums in float32."""
    k_BKWH, v_BKWH, seen_G = recent
    s = jnp.einsum("bkgh,bkwh->bkgw", q_BKGH, k_BKWH, preferred_element_type=jnp.float32) * q_BKGH.shape[-1] ** -0.5
    s = jnp.where(jnp.arange(k_BKWH.shape[-2]) < seen_G[:, None], s, MASK_VALUE)
    most = jnp.max(s, axis=-1)
    e = jnp.exp(s - most[..., None])
    out = jnp.einsum("bkgw,bkwh->bkgh", e.astype(v_BKWH.dtype), v_BKWH, preferred_element_type=jnp.float32)
    return AttentionState(out, most, jnp.sum(e, axis=-1))
