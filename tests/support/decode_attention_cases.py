"""Plans and pools of pages for tests of decode attention, and brute force over them in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kernels.decode_attention import GROUP, MASK_VALUE, DecodePlan


class Case(NamedTuple):
    """q_BKGH, the pools k_PKHC and v_PKCH, the plan and its tile."""

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    plan: DecodePlan
    tile: int


def make(
    own: list[int],
    prompts: list[int],
    shared: dict[int, int],
    heads: int = 2,
    group: int = 7,
    head_width: int = 64,
    page: int = 128,
    tile: int = 4,
    seed: int = 0,
    places: int = 0,
    spare: int = 3,
    listed: bool = False,
) -> Case:
    """own: own tokens of each row; prompts: each row's prompt; shared: prompt -> its tokens; `places` shuffles pages.

    listed: whether the pages of prompts are listed for each of their rows, rather than visited.

    What a row is (its query, its keys and values) depends on seed, its number and its prompt alone: never on the
    other rows, nor on where the pages lie. Entries past the counts hold junk, and so do pages that no one reads.
    """
    rows = len(own)
    used = sum(-(-n // page) for n in (*own, *shared.values()))
    pool = used + spare
    free = list(np.random.default_rng(places).permutation(pool))
    k = np.random.default_rng(1).normal(size=(pool, heads, head_width, page)).astype(np.float32)
    v = np.random.default_rng(2).normal(size=(pool, heads, page, head_width)).astype(np.float32)

    def fill(kind: int, owner: int, tokens: int) -> list[tuple[int, int]]:
        found = []
        for i in range(-(-tokens // page)):
            rng = np.random.default_rng((seed, kind, owner, i))
            at = int(free.pop())
            k[at] = rng.normal(size=k.shape[1:]) * 2
            v[at] = rng.normal(size=v.shape[1:])
            found.append((at, min(page, tokens - i * page)))
        return found

    of_prompt = {prompt: fill(0, prompt, tokens) for prompt, tokens in shared.items()}
    of_row = [fill(1, row, tokens) for row, tokens in enumerate(own)]
    if listed:
        of_row = [of_prompt.get(prompts[row], []) + pages for row, pages in enumerate(of_row)]
        of_prompt = {}
    items = [(at, row, n) for row, pages in enumerate(of_row) for at, n in pages]
    visits = [
        (t, at, prompt, n)
        for t in range(-(-rows // tile))
        for prompt in sorted({*prompts[t * tile : (t + 1) * tile]} & of_prompt.keys())
        for at, n in (*of_prompt[prompt], *[(0, 0)] * (-len(of_prompt[prompt]) % GROUP))
    ]
    count = np.array([len(pages) for pages in of_row])
    page_I, row_I, tokens_I = (np.array([*column, 10**6, -7], np.int32) for column in _columns(items, 3))
    tile_S, shared_S, prompt_S, tokens_S = (
        np.array([*column, *[-3] * GROUP], np.int32) for column in _columns(visits, 4)
    )
    plan = DecodePlan(
        page_I,
        row_I,
        tokens_I,
        np.int32(len(items)),
        (np.cumsum(count) - count).astype(np.int32),
        count.astype(np.int32),
        np.argsort(-count, kind="stable").astype(np.int32),
        np.array(prompts, np.int32),
        tile_S,
        shared_S,
        prompt_S,
        tokens_S,
        np.int32(len(visits)),
    )
    queries = [np.random.default_rng((seed, 2, row)).normal(size=(heads, group, head_width)) for row in range(rows)]
    return Case(np.array(queries, np.float32), k, v, plan, tile)


def _columns(rows: list[tuple], width: int) -> list[list[int]]:
    return [list(column) for column in zip(*rows, strict=True)] or [[]] * width


def brute_force(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(out, top, total) by loops over rows and pages, in float64."""
    plan, tile = case.plan, case.tile
    b, heads, g, h = case.q.shape
    out, top, total = np.zeros((b, heads, g, h)), np.full((b, heads, g), MASK_VALUE), np.zeros((b, heads, g))
    for row in range(b):
        pages = [
            (plan.page_I[i], plan.tokens_I[i]) for i in range(plan.first_B[row], plan.first_B[row] + plan.count_B[row])
        ]
        for s in range(int(plan.visits)):
            mine = plan.tile_S[s] == row // tile and plan.prompt_S[s] == plan.prompt_B[row]
            if mine and plan.shared_tokens_S[s]:
                pages.append((plan.shared_S[s], plan.shared_tokens_S[s]))
        if not pages:
            continue
        k = np.concatenate([np.asarray(case.k[p], np.float64)[:, :, :n] for p, n in pages], axis=-1)
        v = np.concatenate([np.asarray(case.v[p], np.float64)[:, :n] for p, n in pages], axis=1)
        scores = np.einsum("kgh,khc->kgc", np.asarray(case.q[row], np.float64), k) * h**-0.5
        top[row] = scores.max(axis=-1)
        e = np.exp(scores - top[row][..., None])
        total[row] = e.sum(axis=-1)
        out[row] = np.einsum("kgc,kch->kgh", e, v)
    return out, top, total
