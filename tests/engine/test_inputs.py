"""The plan of a window, read as decode attention reads it: every row gets exactly its own tokens, in their order."""

from __future__ import annotations

from random import Random

import numpy as np
from hypothesis import event, given
from hypothesis import strategies as st

from kernels.decode_attention import DecodePlan, Tiling, tiling
from rlvr_limit.engine.inputs import attention_plan, in_row_order
from rlvr_limit.engine.scheduler import CacheShape, Scheduler, Sequence, SequenceGroup
from rlvr_limit.engine.shapes import PlanSizes, plan_sizes

Reads = list[tuple[int, int]]
"""(page, tokens in use) in the order in which a row's tokens stand."""


@st.composite
def seatings(draw: st.DrawFn) -> tuple[Scheduler, int, int, Tiling]:
    """A scheduler in mid-run on 1 to 3 shards; the rows of a shard in the plan; from how many tokens prompts are
    visited by all of their rows together; the tiling of a platform."""
    window, in_page, shards = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    page, max_num_seqs = window * in_page, draw(st.sampled_from([1, 2, 3, 6, 8, 12]))
    sizes = draw(st.lists(st.tuples(st.integers(0, 6 * page), st.integers(1, 6)), min_size=1, max_size=6))
    first = draw(st.sampled_from([0, 2**31 - 2]))
    groups = [SequenceGroup(first + number, shared, 9 * window, range(n)) for number, (shared, n) in enumerate(sizes)]
    least = 1 + max(-(-8 * window // page) - (-group.prefix_tokens // page) for group in groups)
    pages = least + draw(st.sampled_from([0, 5, 400]))
    scheduler = Scheduler(CacheShape(shards, max_num_seqs, pages, page, window), groups)
    random = Random(draw(st.integers(0, 2**32)))
    for _ in range(draw(st.integers(0, 8))):
        scheduler.schedule()
        scheduler.mark_cached(seq for running in scheduler.running for seq in running)
        for seq in [seq for running in scheduler.running for seq in running]:
            if seq.cached_tokens >= 9 * window or random.random() < 0.1:
                scheduler.release(seq)
    scheduler.schedule()
    rows = max(1, *map(len, scheduler.running)) + draw(st.sampled_from([0, 1, 5]))
    suited = tiling(draw(st.sampled_from(["cpu", "tpu", "gpu"])))
    min_shared_prefix = draw(st.sampled_from([1, page, 2 * page + 1, 100 * page])) if suited.lists_prompts else 1
    return scheduler, rows, min_shared_prefix, suited


def made(
    scheduler: Scheduler, rows: int, min_shared_prefix: int, tiling: Tiling
) -> tuple[PlanSizes, list[list[Sequence]], DecodePlan]:
    shapes = scheduler.shape
    prompt_pages = max([0, *(len(group.prompt_pages[0]) for group in scheduler._cached)])
    sizes = plan_sizes(
        rows, shapes.pages, prompt_pages, min(-(-min_shared_prefix // shapes.page_size), prompt_pages), tiling
    )
    running = [in_row_order(part) for part in scheduler.running]
    return sizes, running, attention_plan(running, shapes.page_size, sizes, min_shared_prefix)


def shard_of(plan: DecodePlan, shard: int, sizes: PlanSizes) -> DecodePlan:
    """The part of a plan that one shard is sent."""
    lengths = DecodePlan(
        *[sizes.items] * 3, 1, *[sizes.rows] * 4, *[sizes.visits] * 4, 1
    )  # fmt: skip
    return DecodePlan(*(x[n * shard : n * (shard + 1)] for x, n in zip(plan, lengths, strict=True)))


def own_reads(plan: DecodePlan, row: int) -> Reads:
    at = range(plan.first_B[row], plan.first_B[row] + plan.count_B[row])
    assert all(i < plan.items[0] and plan.row_I[i] == row for i in at)
    return [(int(plan.page_I[i]), int(plan.tokens_I[i])) for i in at]


def shared_reads(plan: DecodePlan, row: int, tile: int) -> Reads:
    visits = range(int(plan.visits[0]))
    mine = [s for s in visits if plan.tile_S[s] == row // tile and plan.prompt_S[s] == plan.prompt_B[row]]
    return [(int(plan.shared_S[s]), int(plan.shared_tokens_S[s])) for s in mine if plan.shared_tokens_S[s]]


def in_use(pages: list[int], tokens: int, size: int) -> Reads:
    """Full pages and the rest, by division."""
    full, rest = divmod(tokens, size)
    return [(page, size) for page in pages[:full]] + ([(pages[full], rest)] if rest else [])


@given(seatings())
def test_each_row_reads_its_prompt_and_then_what_its_sample_has_cached_and_nothing_else(seating):
    scheduler, rows, min_shared_prefix, _ = seating
    sizes, running, plan = made(*seating)
    size = scheduler.shape.page_size
    for shard, part in enumerate(running):
        mine = shard_of(plan, shard, sizes)
        for row in range(rows):
            found = shared_reads(mine, row, sizes.tile) + own_reads(mine, row)
            if row >= len(part):
                assert found == []
                continue
            seq = part[row]
            group = seq.group
            expected = in_use(group.prompt_pages[shard], group.prefix_tokens, size)
            assert found == expected + in_use(seq.pages, seq.cached_tokens, size)
            assert bool(shared_reads(mine, row, sizes.tile)) == (group.prefix_tokens >= min_shared_prefix)
        event(f"preempted: {any(scheduler._waiting)}, grouped: {int(mine.visits[0]) > 0}")


@given(seatings())
def test_visits_come_by_tile_then_prompt_in_whole_groups_and_each_page_once_a_tile(seating):
    scheduler, *_ = seating
    sizes, running, plan = made(*seating)
    for shard in range(scheduler.shape.shards):
        mine = shard_of(plan, shard, sizes)
        n = int(mine.visits[0])
        runs: list[list[int]] = []
        for s in range(n):
            key = [int(mine.tile_S[s]), int(mine.prompt_S[s])]
            if not runs or runs[-1][:2] != key:
                runs.append([*key, 0])
            runs[-1][2] += 1
        assert [run[0] for run in runs] == sorted(run[0] for run in runs)
        assert len({tuple(run[:2]) for run in runs}) == len(runs), "a tile visits a prompt twice"
        assert all(run[2] % sizes.group == 0 for run in runs)
        used = [(mine.tile_S[s], mine.shared_S[s]) for s in range(n) if mine.shared_tokens_S[s]]
        assert len(set(used)) == len(used)


@given(seatings())
def test_order_lists_every_row_once_those_with_most_pages_first_and_lists_have_the_promised_lengths(seating):
    scheduler, rows, *_ = seating
    sizes, running, plan = made(*seating)
    shards = scheduler.shape.shards
    assert rows % sizes.tile == 0
    lengths = [*[sizes.items] * 3, 1, *[rows] * 4, *[sizes.visits] * 4, 1]
    assert [x.shape for x in plan] == [(n * shards,) for n in lengths]
    assert all(x.dtype == np.int32 for x in plan)
    for shard in range(shards):
        mine = shard_of(plan, shard, sizes)
        assert sorted(mine.order_B) == list(range(rows))
        counts = mine.count_B[mine.order_B]
        assert list(counts) == sorted(mine.count_B, reverse=True)
        # Rows lie side by side: the items of one end where the next one's begin.
        assert list(mine.first_B) == [*np.cumsum([0, *mine.count_B])[:-1]][: len(running[shard])] + [0] * (
            rows - len(running[shard])
        )
        assert int(mine.items[0]) == mine.count_B.sum() <= sizes.items and int(mine.visits[0]) <= sizes.visits


@given(seatings(), st.randoms(use_true_random=False))
def test_rows_of_one_prompt_are_neighbours_and_keep_the_order_they_were_admitted_in(seating, random):
    scheduler, *_ = seating
    for part in scheduler.running:
        part = random.sample(part, len(part))
        rows = in_row_order(part)
        assert sorted(map(id, rows)) == sorted(map(id, part))
        requests = [seq.group.number for seq in rows]
        runs = [r for i, r in enumerate(requests) if i == 0 or requests[i - 1] != r]
        assert len(runs) == len(set(runs))
        for request in runs:
            assert [s for s in rows if s.group.number == request] == [s for s in part if s.group.number == request]


@given(st.integers(1, 300), st.sampled_from([("cpu", 32), ("tpu", 64), ("gpu", 8)]))
def test_tiles_are_the_largest_power_of_two_up_to_the_platform_s_that_divides_the_rows(rows: int, most: tuple):
    platform, largest = most
    tile = plan_sizes(rows, 9, 2, 1, tiling(platform)).tile
    assert tile == max(t for t in range(1, largest + 1) if rows % t == 0 and t & (t - 1) == 0)
