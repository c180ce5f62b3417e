"""From the scheduler's seats to what a decode window is sent: who sits in which row, and which pages it reads. numpy.

Legend: kernels/decode_attention/plan.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from kernels.decode_attention import Plan, Tiling
from rlvr_limit.engine.scheduler import Scheduler, Seat


@dataclass(frozen=True)
class Sizes:
    """Lengths of a plan's lists, of one shard: rows, own items, visits; rows of a tile, and multiples of visits."""

    rows: int
    items: int
    visits: int
    tile: int
    group: int


def sizes_of(rows: int, pages: int, prompt_pages: int, grouped: int, tiling: Tiling) -> Sizes:
    """Sizes of a plan for any seating of `rows` rows on a shard of so many pages.

    A prompt has at most prompt_pages pages; one of up to `grouped` pages may be listed once for each of its rows.
    """
    tile = next(t for t in (64, 32, 16, 8, 4, 2, 1) if t <= tiling.tile and rows % t == 0)
    in_groups = -(-prompt_pages // tiling.group) * tiling.group
    return Sizes(rows, pages + rows * grouped, rows * in_groups, tile, tiling.group)


def seated(seats: Sequence[Seat]) -> list[Seat]:
    """Seats of a shard in the order of its rows: samples of a prompt side by side."""
    return sorted(seats, key=lambda seat: seat.request)


def plan_of(
    shards: Sequence[Sequence[Seat]], scheduler: Scheduler, sizes: Sizes, is_grouped: Callable[[int], bool]
) -> Plan:
    """The plan of all shards, one after the other; is_grouped tells of a request whether its prompt is visited."""
    parts = [_shard_plan(shard, seats, scheduler, sizes, is_grouped) for shard, seats in enumerate(shards)]
    return Plan(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _shard_plan(
    shard: int, seats: Sequence[Seat], scheduler: Scheduler, sizes: Sizes, is_grouped: Callable[[int], bool]
) -> Plan:
    size = scheduler.shapes.page
    items: list[tuple[int, int, int]] = []
    first, count = np.zeros(sizes.rows, np.int32), np.zeros(sizes.rows, np.int32)
    prompt_B = np.full(sizes.rows, -1, np.int32)
    grouped: list[tuple[int, int]] = []
    for row, seat in enumerate(seats):
        first[row] = len(items)
        if is_grouped(seat.request):
            prompt_B[row] = seat.request % 2**31
            grouped.append((row // sizes.tile, seat.request))
        else:
            shared = _in_use(scheduler.prompt_pages(seat.request, shard), scheduler.job(seat.request).shared, size)
            items += [(page, row, tokens) for page, tokens in shared]
        items += [(page, row, tokens) for page, tokens in _in_use(seat.pages, seat.filed, size)]
        count[row] = len(items) - first[row]
    visits: list[tuple[int, int, int, int]] = []
    for (tile, request), _ in groupby(grouped):
        pages = _in_use(scheduler.prompt_pages(request, shard), scheduler.job(request).shared, size)
        pages += [(0, 0)] * (-len(pages) % sizes.group)
        visits += [(tile, page, request % 2**31, tokens) for page, tokens in pages]
    own, shared = _columns(items, 3, sizes.items), _columns(visits, 4, sizes.visits)
    order = np.argsort(-count, kind="stable").astype(np.int32)
    return Plan(*own, _one(len(items)), first, count, order, prompt_B, *shared, _one(len(visits)))


def _in_use(pages: Sequence[int], tokens: int, size: int) -> list[tuple[int, int]]:
    return [(page, min(size, tokens - i * size)) for i, page in enumerate(pages) if i * size < tokens]


def _columns(rows: list[tuple[int, ...]], width: int, length: int) -> tuple[np.ndarray, ...]:
    table = np.zeros((length, width), np.int32)
    table[: len(rows)] = np.array(rows, np.int32).reshape(len(rows), width)
    return tuple(np.ascontiguousarray(table[:, i]) for i in range(width))


def _one(value: int) -> np.ndarray:
    return np.array([value], np.int32)
