"""Decode attention for CPUs, in C++ and in plain XLA: what its specification says, and the same bits wherever pages and
rows lie."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kernels.native
from kernels.decode_attention import (
    GROUP,
    AttentionState,
    DecodePlan,
    RecentKV,
    attend_recent,
    cpu,
    merge_states,
    native,
    reference,
)
from kernels.platforms import BATCH_INVARIANT

K, G, H, C = 2, 3, 8, 16
PROMPTS = {0: 37, 1: 8, 2: 61}
"""Tokens of each prompt that rows visit together."""


def case(rows: int, tile: int, seed: int = 0, mates: int = 0, pages: int | None = None) -> tuple[tuple, list]:
    """(q, k, v, plan) with ragged rows, idle rows and several prompts in a tile, and for each row its (page, tokens).

    Rows of even number are drawn from seed alone, the others from mates too. pages, if given, shuffles where pages lie.
    """
    own_tokens = [(37 * row + (mates if row % 2 else 0)) % 150 if row % 5 else 0 for row in range(rows)]
    prompt_B = np.array([row * 3 // rows if row % 7 else -1 for row in range(rows)], np.int32)
    names = [("prompt", p, i) for p, n in PROMPTS.items() for i in range(-(-n // C))]
    names += [("own", row, i) for row, n in enumerate(own_tokens) for i in range(-(-n // C))]
    total = len(names) + 3
    places = np.arange(1, total) if pages is None else 1 + np.random.default_rng(pages).permutation(total - 1)
    at = {name: int(place) for name, place in zip(names, places, strict=False)}
    k, v = np.zeros((total, K, H, C), np.float32), np.zeros((total, K, C, H), np.float32)
    for name, place in at.items():
        is_mates = name[0] == "own" and name[1] % 2
        rng = np.random.default_rng([seed, mates if is_mates else 0, name[0] == "own", *name[1:]])
        k[place], v[place] = rng.normal(size=k.shape[1:]), rng.normal(size=v.shape[1:])
    q = np.stack(
        [np.random.default_rng([seed, 7, mates if b % 2 else 0, b]).normal(size=(K, G, H)) for b in range(rows)]
    )
    return (q.astype(np.float32), k, v, plan_of(own_tokens, prompt_B, at, tile)), read_by(own_tokens, prompt_B, at)


def in_pages(kind: str, number: int, tokens: int, at: dict) -> list[tuple[int, int]]:
    return [(at[kind, number, i], min(C, tokens - i * C)) for i in range(-(-tokens // C))]


def plan_of(own_tokens: list[int], prompt_B: np.ndarray, at: dict, tile: int) -> DecodePlan:
    own = [in_pages("own", row, n, at) for row, n in enumerate(own_tokens)]
    items = [(page, row, tokens) for row, pages in enumerate(own) for page, tokens in pages]
    count = np.array([len(pages) for pages in own], np.int32)
    pairs = dict.fromkeys((row // tile, int(p)) for row, p in enumerate(prompt_B) if p >= 0)
    visits = []
    for t, p in pairs:
        pages = in_pages("prompt", p, PROMPTS[p], at)
        visits += [(t, page, p, n) for page, n in pages + [(0, 0)] * (-len(pages) % GROUP)]
    # What stands behind the counts is to be ignored.
    page_I, row_I, tokens_I = np.array([*items, (1, 0, C), (1, 0, C)], np.int32).T
    tile_S, shared_S, prompt_S, shared_tokens_S = np.array([*visits, *[(0, 1, 0, C)] * GROUP], np.int32).T
    first = np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int32)
    order = np.argsort(-count, kind="stable").astype(np.int32)
    own_lists = page_I, row_I, tokens_I, np.int32(len(items)), first, count, order, prompt_B
    return DecodePlan(*own_lists, tile_S, shared_S, prompt_S, shared_tokens_S, np.int32(len(visits)))


def read_by(own_tokens: list[int], prompt_B: np.ndarray, at: dict) -> list[list[tuple[int, int]]]:
    shared = [in_pages("prompt", int(p), PROMPTS[int(p)], at) if p >= 0 else [] for p in prompt_B]
    return [[*pages, *in_pages("own", row, own_tokens[row], at)] for row, pages in enumerate(shared)]


@partial(jax.jit, static_argnames=("tile", "f"), compiler_options=BATCH_INVARIANT)
def run(q: jax.Array, k: jax.Array, v: jax.Array, plan: DecodePlan, tile: int, f: Callable) -> AttentionState:
    return f(q, k, v, plan, tile)


@pytest.fixture(params=[cpu, native], ids=["xla", "native"])
def f(request: pytest.FixtureRequest) -> Callable:
    if request.param is native and not kernels.native.ready():
        pytest.skip("no C++ compiler")
    return request.param.decode_attention


def tile_of(rows: int) -> int:
    return next(t for t in (64, 32, 16, 8, 4, 2, 1) if rows % t == 0)


ROWS = pytest.mark.parametrize("rows", [6, 64, *(pytest.param(n, marks=pytest.mark.slow) for n in (4, 16, 130))])


@ROWS
def test_equals_the_specification_and_a_softmax_in_float64(rows: int, f: Callable):
    (q, k, v, plan), read = case(rows, tile_of(rows))
    found = run(q, k, v, plan, tile_of(rows), f)
    told = run(q, k, v, plan, tile_of(rows), reference.decode_attention)
    for row, pages in enumerate(read):
        if not pages:
            for result in (found, told):
                assert np.all(np.asarray(result.sum_BKG[row]) == 0) and np.all(np.asarray(result.out_BKGH[row]) == 0)
            continue
        keys = np.concatenate([k[page][:, :, :n] for page, n in pages], axis=2).astype(np.float64)
        values = np.concatenate([v[page][:, :n] for page, n in pages], axis=1).astype(np.float64)
        scores = np.einsum("kgh,khs->kgs", q[row].astype(np.float64), keys) * H**-0.5
        e = np.exp(scores - scores.max(-1, keepdims=True))
        mean = np.einsum("kgs,ksh->kgh", e, values) / e.sum(-1)[..., None]
        log_total = np.log(e.sum(-1)) + scores.max(-1)
        for result in (found, told):
            out, top, total = (np.asarray(x[row], np.float64) for x in result)
            np.testing.assert_allclose(out / total[..., None], mean, rtol=0, atol=2e-6)
            np.testing.assert_allclose(np.log(total) + top, log_total, rtol=0, atol=2e-6)


@ROWS
def test_where_pages_lie_changes_no_bit(rows: int, f: Callable):
    tile = tile_of(rows)
    first = run(*case(rows, tile)[0], tile, f)
    for seed in (1, 2):
        jax.tree.map(np.testing.assert_array_equal, run(*case(rows, tile, pages=seed)[0], tile, f), first)


@ROWS
def test_other_batch_mates_change_no_bit_of_a_row(rows: int, f: Callable):
    tile = tile_of(rows)
    first = run(*case(rows, tile)[0], tile, f)
    for mates in (3, 17):
        other = run(*case(rows, tile, mates=mates)[0], tile, f)
        jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[::2], b[::2]), other, first)
        assert np.any(np.asarray(other.out_BKGH)[1::2] != np.asarray(first.out_BKGH)[1::2])


def test_the_queries_of_a_whole_window_equal_the_specification_and_heed_no_batch_mates(f: Callable):
    def asked(mates: int) -> tuple:
        (q, *rest), _ = case(16, 16, mates=mates)
        return np.concatenate([q * scale for scale in np.linspace(-1, 1, 8, dtype=np.float32)], axis=2), *rest

    found, other = run(*asked(3), 16, f), run(*asked(17), 16, f)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[::2], b[::2]), other, found)
    told = run(*asked(3), 16, reference.decode_attention)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, told)


def recent(rows: int, window: int, seen: np.ndarray) -> RecentKV:
    rng = np.random.default_rng(11)
    keys, values = rng.normal(size=(2, rows, K, window, H))
    # What is not seen yet may be anything.
    keys[:, :, seen.max() :], values[:, :, seen.max() :] = 1e30, np.nan
    return RecentKV(*(jnp.asarray(x, jnp.float32) for x in (keys, values)), jnp.asarray(seen, jnp.int32))


@pytest.mark.parametrize("window", [8, *(pytest.param(n, marks=pytest.mark.slow) for n in (3, 32))])
@pytest.mark.parametrize("scale", [1.0, 40.0])
@pytest.mark.parametrize("verified", [False, True])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_recent_keys_are_seen_as_far_as_each_query_may(window: int, scale: float, verified: bool, dtype: jnp.dtype):
    if not kernels.native.ready():
        pytest.skip("no C++ compiler")
    (q, k, v, plan), _ = case(16, 16)
    q = np.concatenate([q * x for x in np.linspace(-scale, scale, window, dtype=np.float32)], axis=2) if verified else q
    seen = np.repeat(np.arange(1, window + 1), G) if verified else np.full(G, window - 1)
    q, k, v, *kv = (jnp.asarray(x, dtype) for x in (q, k, v, *recent(16, window, seen)[:2]))
    fresh = RecentKV(*kv, jnp.asarray(seen, jnp.int32))
    found = native.decode_attention(q, k, v, plan, 16, fresh)
    # The specification rounds weights to what is stored, the kernel does not.
    q, k, v, fresh = jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == dtype else x, (q, k, v, fresh))
    values = jnp.where(jnp.isnan(fresh.v_BKWH), 0.0, fresh.v_BKWH)
    told = merge_states(reference.decode_attention(q, k, v, plan, 16), attend_recent(q, fresh._replace(v_BKWH=values)))
    mean, expected = (x.out_BKGH / x.sum_BKG[..., None] for x in (found, told))
    np.testing.assert_allclose(mean, expected, rtol=0, atol=2e-5)
    log_total, expected = (jnp.log(x.sum_BKG) + x.max_BKG for x in (found, told))
    np.testing.assert_allclose(log_total, expected, rtol=1e-6, atol=1e-5)


def test_neither_the_number_of_rows_nor_their_blocks_change_a_bit_of_the_native_kernel():
    if not kernels.native.ready():
        pytest.skip("no C++ compiler")
    (q, k, v, plan), _ = case(64, 64)
    whole = run(q, k, v, plan, 64, native.decode_attention)
    for tile, begin in ((1, 0), (2, 6), (16, 48)):
        rows = slice(begin, begin + tile)
        alone = plan._replace(first_B=plan.first_B[rows], count_B=plan.count_B[rows], prompt_B=plan.prompt_B[rows])
        found = run(q[rows], k, v, alone, tile, native.decode_attention)
        jax.tree.map(lambda a, b, rows=rows: np.testing.assert_array_equal(a, b[rows]), found, whole)
