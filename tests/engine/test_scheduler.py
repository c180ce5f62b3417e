"""Sequences and pages under any order of ends: who holds what, who waits, and that everybody is served once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count, islice
from random import Random

from hypothesis import event, example, given
from hypothesis import strategies as st

from rlvr_limit.engine.scheduler import NULL_PAGE, CacheShape, ScheduleOutput, Scheduler, Sequence, SequenceGroup

LONGEST = 6
"""Windows of the longest sample."""


def windows(group: SequenceGroup, shapes: CacheShape) -> int:
    return -(-group.max_tokens // shapes.steps_per_call)


def most_pages(group: SequenceGroup, shapes: CacheShape) -> int:
    """Pages of one sample and its prompt at the sample's last window, which is not cached."""
    return -(-(windows(group, shapes) - 1) * shapes.steps_per_call // shapes.page_size) - (
        -group.prefix_tokens // shapes.page_size
    )


@dataclass
class Watched:
    """A scheduler beside a memory that holds for each page of each shard what was written there last.

    Every round holds the promises about pages, sequences and order; `ends` are the finished samples in order.
    """

    shapes: CacheShape
    groups: dict[int, SequenceGroup]
    scheduler: Scheduler
    memory: dict[tuple[int, int], tuple] = field(default_factory=dict)
    saved: dict[Sequence, list[tuple]] = field(default_factory=dict)
    started: list[Sequence] = field(default_factory=list)
    unfinished: list[Sequence] = field(default_factory=list)
    ends: list[tuple[int, int]] = field(default_factory=list)
    preempted: int = 0
    rounds: int = 0

    @property
    def live(self) -> list[Sequence]:
        return [seq for running in self.scheduler.running for seq in running]

    def schedule(self) -> ScheduleOutput:
        before = [list(running) for running in self.scheduler.running]
        done = self.scheduler.schedule()
        self.rounds += 1
        self._hold_forgotten(done)
        self._hold_order(before, done)
        for seq, pages in done.preempted:
            self.saved[seq] = [self.memory.get((seq.shard, page)) for page in pages]
        self.preempted += len(done.preempted)
        for group in done.prefills:
            for shard, pages in enumerate(group.prompt_pages):
                for i, page in enumerate(pages):
                    self.memory[shard, page] = (group.number, i)
        for seq in done.resumed:
            saved = self.saved.pop(seq)
            assert len(seq.pages) >= len(saved)
            self.memory |= {(seq.shard, page): tag for page, tag in zip(seq.pages, saved, strict=False)}
        self.started += done.admitted
        self.unfinished += done.admitted
        self._hold_pages()
        self._hold_memory()
        return done

    def _hold_order(self, before: list[list[Sequence]], done: ScheduleOutput) -> None:
        lost = {seq for seq, _ in done.preempted}
        for shard, running in enumerate(before):
            # The samples that are preempted are the youngest ones.
            kept = [seq for seq in running if seq not in lost]
            assert running[: len(kept)] == kept
            if running and not kept:
                others = {s.group for other in before for s in other if s.shard != shard} - {running[0].group}
                assert others, "the oldest sample of a shard was preempted, and no other shard's prompt was in its way"
        for seq in done.resumed:
            assert seq in self.saved or seq in lost
        waiting = [seq for seq in (*self.saved, *lost) if seq not in done.resumed]
        assert not {seq.shard for seq in waiting} & {seq.shard for seq in done.admitted}
        assert sum(map(len, self.scheduler._waiting)) == len(waiting)

    def _hold_forgotten(self, done: ScheduleOutput) -> None:
        """Nothing is kept of a group after its last sample."""
        scheduler = self.scheduler
        known = {seq.group for seq in [*self.unfinished, *done.admitted]} | {group for group, _ in scheduler._open}
        assert set(scheduler._cached) <= known | ({scheduler._next[0]} if scheduler._next else set())
        assert all(bool(group.prompt_pages) == (group in scheduler._cached) for group in self.groups.values())

    def _hold_pages(self) -> None:
        """Each page has one owner or is free, no shard is overfull, and no sample holds more than it will need next."""
        scheduler, shapes = self.scheduler, self.shapes
        prompt_pages = 0
        for shard, running in enumerate(scheduler.running):
            assert len(running) <= shapes.max_num_seqs
            of_prompts = [page for group in scheduler._cached for page in group.prompt_pages[shard]]
            of_samples = [page for seq in running for page in seq.pages]
            assert sorted([*of_prompts, *of_samples, *scheduler._free[shard]]) == list(
                range(NULL_PAGE + 1, shapes.pages)
            )
            prompt_pages += len(of_prompts)
        live = self.live
        assert all(not seq.pages for seq in self.saved)
        assert (scheduler.pages_in_use - prompt_pages) * shapes.page_size <= sum(
            s.cached_tokens + shapes.page_size + shapes.steps_per_call for s in live
        )
        assert scheduler.num_running == len(live) == len(set(live))
        unfinished = scheduler.num_running + sum(map(len, scheduler._waiting))
        assert unfinished == len(self.unfinished) <= shapes.shards * shapes.max_num_seqs
        for seq in live:
            group = seq.group
            assert group is self.groups[group.number]
            last = seq.cached_tokens + shapes.steps_per_call >= group.max_tokens
            needed = seq.cached_tokens if last else seq.cached_tokens + shapes.steps_per_call
            assert len(seq.pages) == -(-needed // shapes.page_size) == scheduler.pages_needed(seq)

    def _hold_memory(self) -> None:
        """Everything that a live sample is about to read is what was written for it."""
        for seq in self.live:
            shared = seq.group.prompt_pages[seq.shard]
            assert len(shared) == -(-seq.group.prefix_tokens // self.shapes.page_size)
            read = [self.memory[seq.shard, page] for page in shared]
            assert read == [(seq.group.number, i) for i in range(len(shared))]
            for i, page in enumerate(seq.pages[: -(-seq.cached_tokens // self.shapes.page_size)]):
                tokens = min(self.shapes.page_size, seq.cached_tokens - i * self.shapes.page_size)
                assert self.memory[seq.shard, page] == (seq.group.number, seq.index, i, tokens)

    def window(self, ends: Callable[[list[Sequence]], Iterable[Sequence]]) -> None:
        """One window: what is cached, then the ends of samples at their limits and of those that `ends` picks."""
        shapes = self.shapes
        for seq in self.live:
            at, offset = divmod(seq.cached_tokens, shapes.page_size)
            page = seq.pages[at] if at < len(seq.pages) else NULL_PAGE
            self.memory[seq.shard, page] = (seq.group.number, seq.index, at, offset + shapes.steps_per_call)
        self.scheduler.mark_cached(self.live)
        at_limit = [seq for seq in self.live if seq.cached_tokens >= seq.group.max_tokens]
        for seq in dict.fromkeys([*at_limit, *ends(list(self.unfinished))]):
            self.unfinished.remove(seq)
            self.saved.pop(seq, None)
            self.scheduler.release(seq)
            self.ends.append((seq.group.number, seq.index))


def watched(shapes: CacheShape, groups: Iterable[SequenceGroup]) -> Watched:
    known: dict[int, SequenceGroup] = {}

    def read() -> Iterator[SequenceGroup]:
        for group in groups:
            # A group remembers how its samples went: examples are run more than once.
            known[group.number] = replace(group)
            yield known[group.number]

    return Watched(shapes, known, Scheduler(shapes, read()))


@st.composite
def workloads(draw: st.DrawFn) -> tuple[CacheShape, list[SequenceGroup]]:
    """Any shapes, groups with prompts of 0 to 3 pages and samples of 1 to 6 windows, in pools from just enough for one
    sample and its prompt to ample."""
    window, in_page = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3]))
    page, shards, max_num_seqs = window * in_page, draw(st.integers(1, 3)), draw(st.sampled_from([5, 4, 3, 2, 1]))
    longest = LONGEST * window
    shared, own = st.integers(0, 3 * page), st.integers(0, longest - 1).map(lambda less: longest - less)
    sizes = draw(st.lists(st.tuples(shared, own, st.sampled_from([7, 4, 2, 1, 0])), min_size=1, max_size=7))
    groups = [SequenceGroup(number, s, o, range(n)) for number, (s, o, n) in enumerate(sizes)]
    ahead = draw(st.sampled_from([1, 2, 3]))
    shapes = CacheShape(shards, max_num_seqs, 0, page, window)
    least = 1 + max(most_pages(group, shapes) for group in groups)
    pages = least + draw(st.one_of(st.integers(0, 3), st.integers(0, 8), st.integers(0, 60)))
    return CacheShape(shards, max_num_seqs, pages, page, window, ahead), groups


def some_of(random: Random) -> Callable[[list[Sequence]], list[Sequence]]:
    """Ends of any unfinished samples, preempted or not, as stop strings make them: seen a window late."""
    rate = random.choice([0.0, 0.1, 0.5])
    return lambda unfinished: [seq for seq in unfinished if random.random() < rate]


def run(
    shapes: CacheShape, groups: list[SequenceGroup], ends: Callable[[list[Sequence]], Iterable[Sequence]]
) -> Watched:
    """Until nobody is alive, which must not be before everybody was."""
    w = watched(shapes, groups)
    most_rounds = sum(windows(group, shapes) * len(group.indices) for group in groups)
    while True:
        w.schedule()
        if not w.live:
            break
        assert w.rounds <= most_rounds, "in some window nobody went on"
        w.window(ends)
    return w


TIGHT = CacheShape(1, 4, 5, 2, 2), [SequenceGroup(0, 3, 6, range(5)), SequenceGroup(1, 1, 5, range(3))]
CROSSED = CacheShape(2, 2, 4, 2, 2), [SequenceGroup(n, 2, 6, range(1)) for n in range(6)]


@given(workloads(), st.randoms(use_true_random=False))
@example(TIGHT, Random(0))
@example(CROSSED, Random(0))
def test_every_sample_starts_and_ends_once_in_any_pool_and_any_order_of_ends(workload, random):
    shapes, groups = workload
    w = run(shapes, groups, some_of(random))
    asked = [(group.number, index) for group in groups for index in group.indices]
    started = [(seq.group.number, seq.index) for seq in w.started]
    assert sorted(started, key=lambda start: start[0]) == asked
    assert started == asked or shapes.lookahead > 1
    assert Counter(w.ends) == Counter(asked)
    assert w.unfinished == [] and w.scheduler.pages_in_use == 0
    assert [sorted(free) for free in w.scheduler._free] == [list(range(1, shapes.pages))] * shapes.shards
    event(f"shards {shapes.shards}, preempted {w.preempted > 0}")


@given(workloads())
def test_in_a_pool_with_room_for_all_nobody_is_preempted_and_each_prompt_is_prefilled_once(workload):
    shapes, groups = workload
    ample = replace(shapes, pages=1000)
    w, prefilled = watched(ample, groups), []
    while True:
        done = w.schedule()
        prefilled += [group.number for group in done.prefills]
        if not w.live:
            break
        left = sum(len(group.indices) for group in groups) - len(w.started)
        assert left == 0 or len(w.live) == ample.max_num_seqs * ample.shards
        w.window(lambda unfinished: [])
    assert w.preempted == 0
    assert sorted(prefilled) == [group.number for group in groups if group.indices]


@given(workloads(), st.randoms(use_true_random=False), st.integers(1, 4))
def test_jobs_go_in_order_and_once_no_more_come_those_of_the_longest_expected_samples_first(workload, random, ahead):
    shapes, groups = workload
    groups = [group for group in groups if group.indices]
    w, ends = watched(replace(shapes, pages=1000, lookahead=ahead), groups), some_of(random)
    left = {group.number: len(group.indices) for group in groups}
    lengths: dict[int, list[int]] = {group.number: [] for group in groups}
    turns = 0

    def wanted() -> int:
        remaining = [request for request, n in left.items() if n]
        if len(remaining) >= ahead:
            return remaining[0]
        unknown = [request for request in remaining if not lengths[request]]
        return unknown[0] if unknown else max(remaining, key=lambda r: sum(lengths[r]) / len(lengths[r]))

    def ending(unfinished: list[Sequence]) -> list[Sequence]:
        chosen = ends(unfinished)
        for seq in unfinished:
            if seq in chosen or seq.cached_tokens >= seq.group.max_tokens:
                lengths[seq.group.number].append(seq.cached_tokens)
        return chosen

    while True:
        for seq in w.schedule().admitted:
            turns += seq.group.number != next(request for request, n in left.items() if n)
            assert seq.group.number == wanted()
            left[seq.group.number] -= 1
        if not w.live:
            break
        w.window(ending)
    event(f"out of order: {turns > 0}")
    assert not any(left.values())


@given(workloads(), st.randoms(use_true_random=False))
@example(CROSSED, Random(0))
def test_nobody_waits_long_in_an_endless_stream(workload, random):
    shapes, groups = workload
    groups = [group for group in groups if group.indices] or [SequenceGroup(0, 0, 1, range(1))]
    endless = (
        SequenceGroup(n, group.prefix_tokens, group.max_tokens, group.indices)
        for n in count()
        for group in [groups[n % len(groups)]]
    )
    w, ends, waits = watched(shapes, endless), some_of(random), Counter()
    for _ in range(60):
        w.schedule()
        assert w.live
        waits = Counter({seq: waits[seq] + 1 for seq in w.saved})
        # What is alive on its shard goes first, then perhaps all that is unfinished on the others.
        assert max(waits.values(), default=0) <= LONGEST * shapes.max_num_seqs * (1 + shapes.shards)
        w.window(ends)


def test_on_one_shard_the_pool_too_small_for_all_preempts_the_youngest_and_never_the_oldest():
    shapes = CacheShape(1, 3, 8, 2, 2)
    w = watched(shapes, [SequenceGroup(0, 3, 12, range(3))])
    lost, ends = [], []
    while w.schedule() and w.live:
        lost += [seq.index for seq in w.saved]
        w.window(lambda unfinished: [])
        ends = [index for _, index in w.ends]
    assert ends == [0, 1, 2]
    assert set(lost) == {1, 2} and lost[0] == 2


def test_a_sample_may_end_while_it_is_preempted():
    w = watched(CacheShape(1, 2, 6, 2, 2), [SequenceGroup(0, 0, 12, range(2))])
    while True:
        w.schedule()
        if w.saved:
            break
        w.window(lambda unfinished: [])
    w.window(lambda unfinished: list(w.saved))
    assert w.ends == [(0, 1)] and len(w.unfinished) == 1
    w.schedule()


def test_a_sample_that_waits_on_an_empty_shard_goes_on_before_others_begin():
    # Found by search: prompts of other shards' samples fill a shard whose only sample was preempted, and without the
    # rule new ones keep it full for ever.
    sizes = [(2, 3), (0, 2), (2, 6), (1, 3)]
    groups = (SequenceGroup(n, *(sizes[n % 4] if n else (1, 11)), range(1)) for n in count())
    w, waits = watched(CacheShape(6, 2, 12, 1, 1), groups), Counter()
    for _ in range(150):
        w.schedule()
        waits = Counter({seq: waits[seq] + 1 for seq in w.saved})
        assert max(waits.values(), default=0) < 50
        w.window(lambda unfinished: [])
    assert w.preempted > 0


def test_shards_that_have_pages_go_on_beginning_samples_while_another_waits():
    w = watched(CacheShape(2, 4, 7, 2, 2), [SequenceGroup(0, 0, 12, range(40))])
    seen = 0
    for _ in range(30):
        done = w.schedule()
        seen += bool(w.saved and done.admitted)
        # Samples of shard 1 end early, so that it has room.
        w.window(lambda unfinished: [seq for seq in unfinished if seq.shard == 1])
    assert seen > 0


def test_jobs_and_indices_are_read_only_as_samples_finish():
    read, indices = [], iter(range(100))

    def groups() -> Iterator[SequenceGroup]:
        for request in range(100):
            read.append(request)
            yield SequenceGroup(request, 1, 9, iter([0, 1]))

    scheduler = Scheduler(CacheShape(1, 4, 50, 2, 2), groups())
    assert read == []
    scheduler.schedule()
    assert read == [0, 1]
    scheduler.schedule()
    assert read == [0, 1]
    scheduler.release(scheduler.running[0][3])
    scheduler.schedule()
    assert read == [0, 1, 2]
    assert len(Scheduler(CacheShape(1, 3, 50, 2, 2), [SequenceGroup(0, 1, 9, indices)]).schedule().admitted) == 3
    assert next(indices) == 3


def test_a_sample_that_waits_for_a_page_through_many_windows_costs_no_more_at_the_last_than_at_the_first():
    # One sample holds one page for ever; two are left, and a second sample would need one more to spare.
    shapes = CacheShape(1, 2, 3, 10**9, 1)
    scheduler = Scheduler(shapes, [SequenceGroup(0, 0, 10**8, range(3))])
    for _ in range(50_000):
        done = scheduler.schedule()
        scheduler.mark_cached(scheduler.running[0])
    assert done == ScheduleOutput([], [], [], []) and scheduler.num_running == 1
    scheduler.release(scheduler.running[0][0])
    assert [seq.index for seq in scheduler.schedule().admitted] == [1]


def test_an_endless_job_is_drawn_from_as_long_as_asked():
    w = watched(CacheShape(1, 3, 40, 2, 2), [SequenceGroup(0, 3, 4, count())])
    while len(w.ends) < 100:
        w.schedule()
        w.window(lambda unfinished: [])
    assert list(islice(w.ends, 100)) == [(0, index) for index in range(100)]
