"""What a call is sent: what is known of every row, and the plan of the pages that each row reads. numpy.

Legend of plans: kernels/decode_attention/plan.py.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np

from kernels.decode_attention import DecodePlan
from kernels.draw import SamplingTensors
from rlvr_limit.engine.programs import WindowInputs
from rlvr_limit.engine.requests import MAX_STOP_TOKENS
from rlvr_limit.engine.scheduler import NULL_PAGE, CacheShape, Sequence, SequenceGroup
from rlvr_limit.engine.shapes import PlanSizes


def in_row_order(sequences: list[Sequence]) -> list[Sequence]:
    """Sequences of a shard in the order of its rows: samples of a prompt side by side."""
    return sorted(sequences, key=lambda seq: seq.group.number)


IDLE = (False, 0, 0, 0, 0, NULL_PAGE, 0, (0, 0), 0, (-1,) * MAX_STOP_TOKENS, 1.0, 1.0, 0, 0.0)
"""What _known gives, for a row without a sequence."""
DTYPES = (bool, *[np.int32] * 6, np.uint32, np.int32, np.int32, np.float32, np.float32, np.int32, np.float32)


def window_inputs(rows: list[Sequence | None], shape: CacheShape) -> WindowInputs:
    """What is known of each row."""
    columns = zip(*(_known(seq, shape.page_size) if seq else IDLE for seq in rows), strict=True)
    known = [np.array(column, dtype) for column, dtype in zip(columns, DTYPES, strict=True)]
    return WindowInputs(*known[:10], SamplingTensors(*known[10:]))


def _known(seq: Sequence, page_size: int) -> tuple:
    """The fields of WindowInputs, then those of SamplingTensors."""
    request, cached = seq.group.request, seq.cached_tokens
    at, offset = divmod(cached, page_size)
    s = request.sampling
    return (
        True,
        seq.last,
        # Behind images positions lag behind the number of tokens.
        seq.group.prefix_tokens + cached + (seq.group.layout.delta if seq.group.layout else 0),
        cached,  # the first of a sample's own tokens is its prompt's last one
        request.limit(seq.index),
        seq.pages[at] if at < len(seq.pages) else NULL_PAGE,
        offset,
        request.key,
        seq.index,
        (*s.stop_tokens, *[-1] * MAX_STOP_TOKENS)[:MAX_STOP_TOKENS],
        s.temperature,
        s.top_p,
        s.top_k,
        s.min_p,
    )


def prompt_inputs(
    groups: list[SequenceGroup], rows: int, length: int, shape: CacheShape
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of up to `rows` prompts of at most `length` tokens, and their pages on each shard."""
    tokens = np.zeros((rows, length), np.int32)
    pages = np.full((shape.shards, rows, length // shape.page_size), NULL_PAGE, np.int32)
    for i, group in enumerate(groups):
        ids = group.request.prompt_ids
        tokens[i, : len(ids)] = ids
        pages[:, i, : len(group.prompt_pages[0])] = group.prompt_pages
    return tokens, pages


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
    visiting: list[tuple[int, SequenceGroup]] = []  # (tile, whose prompt)
    first, count = np.zeros(sizes.rows, np.int32), np.zeros(sizes.rows, np.int32)
    prompt_B = np.full(sizes.rows, -1, np.int32)

    for row, seq in enumerate(rows):
        first[row] = len(items)
        if seq.group.prefix_tokens >= min_shared_prefix:
            prompt_B[row] = seq.group.number % 2**31
            visiting.append((row // sizes.tile, seq.group))
        else:
            shared = _in_use(seq.group.prompt_pages[shard], seq.group.prefix_tokens, page_size)
            items += [(page, row, tokens) for page, tokens in shared]
        items += [(page, row, tokens) for page, tokens in _in_use(seq.pages, seq.cached_tokens, page_size)]
        count[row] = len(items) - first[row]
    visits: list[tuple[int, int, int, int]] = []
    for (tile, group), _ in groupby(visiting):
        pages = _in_use(group.prompt_pages[shard], group.prefix_tokens, page_size)
        pages += [(0, 0)] * (-len(pages) % sizes.group)
        visits += [(tile, page, group.number % 2**31, tokens) for page, tokens in pages]
    order = np.argsort(-count, kind="stable").astype(np.int32)
    own, shared = _columns(items, 3, sizes.items), _columns(visits, 4, sizes.visits)
    item_count, visit_count = (np.array([len(rows)], np.int32) for rows in (items, visits))
    return DecodePlan(*own, item_count, first, count, order, prompt_B, *shared, visit_count)


def _in_use(pages: list[int], tokens: int, size: int) -> list[tuple[int, int]]:
    return [(page, min(size, tokens - i * size)) for i, page in enumerate(pages) if i * size < tokens]


def _columns(rows: list[tuple[int, ...]], width: int, length: int) -> tuple[np.ndarray, ...]:
    table = np.zeros((length, width), np.int32)
    table[: len(rows)] = np.array(rows, np.int32).reshape(len(rows), width)
    return tuple(np.ascontiguousarray(table[:, i]) for i in range(width))
