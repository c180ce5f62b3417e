"""What a call is sent: what is known of every row, and the plan of the pages that each row reads. numpy.

Legend of plans: kernels/decode_attention/plan.py.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby

import numpy as np

from kernels.decode_attention import DecodePlan
from kernels.draw import SamplingTensors
from rlvr_limit.engine.programs import WindowInputs
from rlvr_limit.engine.requests import MAX_STOP_TOKENS
from rlvr_limit.engine.scheduler import NULL_PAGE, CacheShape, Sequence
from rlvr_limit.engine.shapes import PlanSizes


def in_row_order(sequences: list[Sequence]) -> list[Sequence]:
    """Sequences of a shard in the order of its rows: samples of a prompt side by side."""
    return sorted(sequences, key=lambda seq: seq.group.number)


def window_inputs(rows: list[Sequence | None], guesses: list[list[int]], shape: CacheShape) -> WindowInputs:
    """What is known of each row; guesses, one list a row, are what may follow its known tokens."""

    def column(value: Callable[[Sequence], object], idle: object, dtype: type) -> np.ndarray:
        return np.array([idle if seq is None else value(seq) for seq in rows], dtype)

    def next_page(seq: Sequence) -> int:
        at = seq.cached_tokens // shape.page_size
        return seq.pages[at] if at < len(seq.pages) else NULL_PAGE

    def stops(seq: Sequence) -> tuple[int, ...]:
        return (*seq.group.request.sampling.stop_tokens, *[-1] * MAX_STOP_TOKENS)[:MAX_STOP_TOKENS]

    i32, f32 = np.int32, np.float32
    tokens = np.full((len(rows), shape.steps_per_call), -1, i32)
    for row, (seq, guess) in enumerate(zip(rows, guesses, strict=True)):
        known = [*(seq.pending if seq else [0]), *guess]
        tokens[row, : len(known)] = known
    return WindowInputs(
        live_B=column(lambda s: True, False, bool),
        token_BW=tokens,
        known_B=column(lambda s: len(s.pending), 1, i32),
        length_B=column(lambda s: s.group.prefix_tokens + s.cached_tokens, 0, i32),
        # The first of a sample's own tokens is its prompt's last one.
        generated_B=column(lambda s: s.cached_tokens, 0, i32),
        limit_B=column(lambda s: s.group.request.limit(s.index), 0, i32),
        page_B=column(next_page, NULL_PAGE, i32),
        offset_B=column(lambda s: s.cached_tokens % shape.page_size, 0, i32),
        key_B2=column(lambda s: s.group.request.key, (0, 0), np.uint32),
        index_B=column(lambda s: s.index, 0, i32),
        stops_BE=column(stops, (-1,) * MAX_STOP_TOKENS, i32),
        rules=SamplingTensors(
            column(lambda s: s.group.request.sampling.temperature, 1.0, f32),
            column(lambda s: s.group.request.sampling.top_p, 1.0, f32),
            column(lambda s: s.group.request.sampling.top_k, 0, i32),
            column(lambda s: s.group.request.sampling.min_p, 0.0, f32),
        ),
    )


def attention_plan(
    shards: list[list[Sequence]], page_size: int, sizes: PlanSizes, min_shared_prefix: int
) -> DecodePlan:
    """The plans of all shards, one after the other. Prompts of min_shared_prefix tokens or more are visited."""
    parts = [_shard_plan(shard, rows, page_size, sizes, min_shared_prefix) for shard, rows in enumerate(shards)]
    return DecodePlan(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _shard_plan(
    shard: int, rows: list[Sequence], page_size: int, sizes: PlanSizes, min_shared_prefix: int
) -> DecodePlan:
    items: list[tuple[int, int, int]] = []
    first, count = np.zeros(sizes.rows, np.int32), np.zeros(sizes.rows, np.int32)
    prompt_B = np.full(sizes.rows, -1, np.int32)

    def in_use(pages: list[int], tokens: int) -> list[tuple[int, int]]:
        starts = range(0, tokens, page_size)
        return [(page, min(page_size, tokens - start)) for page, start in zip(pages, starts, strict=False)]

    def add_items(row: int, pages: list[int], tokens: int) -> None:
        items.extend((page, row, used) for page, used in in_use(pages, tokens))

    for row, seq in enumerate(rows):
        first[row] = len(items)
        if seq.group.prefix_tokens >= min_shared_prefix:
            prompt_B[row] = seq.group.number % 2**31
        else:
            add_items(row, seq.group.prompt_pages[shard], seq.group.prefix_tokens)
        add_items(row, seq.pages, seq.cached_tokens)
        count[row] = len(items) - first[row]
    visits: list[tuple[int, int, int, int]] = []
    visiting = ((row // sizes.tile, seq.group) for row, seq in enumerate(rows) if prompt_B[row] >= 0)
    for (tile, group), _ in groupby(visiting):
        pages = in_use(group.prompt_pages[shard], group.prefix_tokens)
        pages += [(0, 0)] * (-len(pages) % sizes.group)
        visits += [(tile, page, group.number % 2**31, tokens) for page, tokens in pages]
    order = np.argsort(-count, kind="stable").astype(np.int32)
    own, shared = _columns(items, 3, sizes.items), _columns(visits, 4, sizes.visits)
    item_count, visit_count = (np.array([len(rows)], np.int32) for rows in (items, visits))
    return DecodePlan(*own, item_count, first, count, order, prompt_B, *shared, visit_count)


def _columns(rows: list[tuple[int, ...]], width: int, length: int) -> tuple[np.ndarray, ...]:
    table = np.zeros((length, width), np.int32)
    table[: len(rows)] = np.array(rows, np.int32).reshape(len(rows), width)
    return tuple(np.ascontiguousarray(table[:, i]) for i in range(width))
