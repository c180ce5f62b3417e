"""Which sample is alive, and which pages of the cache it holds. Plain Python, no jax.

Time goes in calls of `steps_per_call` decode steps. A sample's own tokens are the last one of its prompt and all it
draws; at the end of each call their keys and values are cached in its pages. Those of the rest of the prompt lie in
the prompt's pages, once for all of its samples. On a mesh a sample lives on one shard, and a prompt's pages are on all.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import inf
from typing import Any

from rlvr_limit.types import Stop

NULL_PAGE = 0
"""The page that takes what nobody will read."""


@dataclass(frozen=True)
class CacheShape:
    """Sequences and pages of each shard. A page holds the tokens of a whole number of calls."""

    shards: int
    max_num_seqs: int  # alive at once on a shard
    pages: int  # of a shard, the null page included
    page_size: int  # tokens
    steps_per_call: int
    lookahead: int = 1  # groups that are read before they are needed


@dataclass(eq=False)
class SequenceGroup:
    """Samples of one prompt that are to be drawn, and what the scheduler knows of them."""

    number: int
    prefix_tokens: int  # tokens of the prompt that all of its samples read
    max_tokens: int  # own tokens of a sample, at most
    indices: Iterable[int]
    request: Any = None  # the engine's; the scheduler does not look at it
    layout: Any = None  # likewise
    prompt_pages: list[list[int]] = field(default_factory=list)  # of each shard; [] where the prompt is not cached
    unfinished: int = 0  # samples that have begun and not finished
    finished: int = 0
    finished_tokens: int = 0
    has_more: bool = True  # whether samples may begin

    @property
    def expected_tokens(self) -> float:
        """The mean length of the samples that have finished."""
        return self.finished_tokens / self.finished if self.finished else inf


@dataclass(eq=False)
class Sequence:
    """A sample in the making."""

    group: SequenceGroup
    index: int
    shard: int
    pages: list[int] = field(default_factory=list)
    cached_tokens: int = 0  # own tokens whose keys and values lie in its pages
    # What follows is the engine's.
    last: int = -1  # the last token, which is not cached yet
    tokens: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)
    logp_model: list[float] = field(default_factory=list)
    saved: list = field(default_factory=list)  # its pages, on the host, while it is preempted
    is_released: bool = False
    stop: Stop | None = None  # set once the sample is handed out


@dataclass(frozen=True)
class ScheduleOutput:
    """What is to be done before a call, in this order."""

    preempted: list[tuple[Sequence, list[int]]]  # samples whose pages, these, are to be saved
    prefills: list[SequenceGroup]  # prompts to be computed into their pages
    resumed: list[Sequence]  # samples whose saved pages are to be written into the pages they hold now
    admitted: list[Sequence]  # new samples


class Scheduler:
    """Admits samples in order of the groups; once no more groups come, those of the longest expected samples first, so
    that no long sample is left alone in the end (Graham 1969, sec. 3). Groups of which nothing has finished come before
    all others.

    All finish: the oldest running sample of a shard is never preempted but where it is the shard's only one and prompts
    of other shards' samples take its pages; nobody begins then until it has gone on.
    """

    def __init__(self, shape: CacheShape, groups: Iterable[SequenceGroup]):
        """groups are read only as samples finish, up to shape.lookahead before they are needed."""
        self.shape = shape
        self.running: list[list[Sequence]] = [[] for _ in range(shape.shards)]
        self._waiting: list[deque[Sequence]] = [deque() for _ in range(shape.shards)]  # preempted samples
        self._free = [list(range(NULL_PAGE + 1, shape.pages)) for _ in range(shape.shards)]
        self._cached: dict[SequenceGroup, None] = {}  # groups whose prompts are cached, oldest first
        self._pending = iter(groups)
        self._open: list[tuple[SequenceGroup, Iterator[int]]] = []
        self._next: tuple[SequenceGroup, int] | None = None

    @property
    def num_running(self) -> int:
        """Samples that the next call goes on with."""
        return sum(map(len, self.running))

    @property
    def pages_in_use(self) -> int:
        """Pages that are neither free nor the null page, on all shards."""
        return self.shape.shards * (self.shape.pages - 1) - sum(map(len, self._free))

    def schedule(self) -> ScheduleOutput:
        """Gives running samples the pages of their next call, and admits waiting and new ones while there is room."""
        preempted: list[tuple[Sequence, list[int]]] = []
        prefills: list[SequenceGroup] = []
        for shard, running in enumerate(self.running):
            at = 0
            while at < len(running):
                self._grow(running[at], preempted)
                at += 1
            self._waiting[shard].extendleft(seq for seq, _ in preempted if seq.shard == shard)
        resumed = [seq for shard in range(self.shape.shards) for seq in self._resume(shard, prefills)]
        admitted = list(self._admit(prefills))
        return ScheduleOutput(preempted, prefills, resumed, admitted)

    def mark_cached(self, sequences: Iterable[Sequence]) -> None:
        """The own tokens of a call of these running samples have been cached."""
        for seq in sequences:
            seq.cached_tokens += self.shape.steps_per_call

    def release(self, seq: Sequence) -> None:
        """A sample is finished, running or preempted: its pages are free."""
        group, waiting = seq.group, self._waiting[seq.shard]
        (waiting if seq in waiting else self.running[seq.shard]).remove(seq)
        self._give(seq.shard, seq.pages)
        seq.pages = []
        group.unfinished -= 1
        group.finished += 1
        group.finished_tokens += seq.cached_tokens
        self._drop_if_done(group)

    def pages_needed(self, seq: Sequence) -> int:
        """Pages that hold a sample's own tokens once its next call is cached; of its last call nothing is."""
        after = seq.cached_tokens + self.shape.steps_per_call
        if after >= seq.group.max_tokens:
            after = seq.cached_tokens
        return -(-after // self.shape.page_size)

    def _grow(self, seq: Sequence, preempted: list[tuple[Sequence, list[int]]]) -> None:
        running = self.running[seq.shard]
        while True:
            lacking = self.pages_needed(seq) - len(seq.pages)
            if lacking <= 0 or self._make_room(seq.shard, lacking):
                break
            youngest = running.pop()
            preempted.append((youngest, youngest.pages))
            self._give(youngest.shard, youngest.pages)
            youngest.pages = []
            if youngest is seq:
                return
        seq.pages += self._take(seq.shard, lacking)

    def _resume(self, shard: int, prefills: list[SequenceGroup]) -> Iterator[Sequence]:
        waiting = self._waiting[shard]
        while waiting and len(self.running[shard]) < self.shape.max_num_seqs and self._run(waiting[0], prefills):
            yield waiting.popleft()

    def _admit(self, prefills: list[SequenceGroup]) -> Iterator[Sequence]:
        while (shard := self._emptiest()) is not None and (following := self._following()):
            group, index = following
            seq = Sequence(group, index, shard)
            if not self._run(seq, prefills):
                return
            self._next = None
            group.unfinished += 1
            yield seq

    def _emptiest(self) -> int | None:
        """The shard that a new sample goes to, or None.

        Preempted samples go first: a new one would take the pages that they wait for. Where one waits and its shard is
        empty, its pages are held by prompts of other shards' samples: nobody begins until it has gone on.
        """
        shards = range(self.shape.shards)
        if any(self._waiting[s] and not self.running[s] for s in shards):
            return None
        open_to_new = [s for s in shards if len(self.running[s]) < self.shape.max_num_seqs and not self._waiting[s]]
        return min(open_to_new, key=lambda s: len(self.running[s]), default=None)

    def _following(self) -> tuple[SequenceGroup, int] | None:
        """The sample that begins next; it is read once and kept until there is room for it."""
        while self._next is None:
            for group in islice(self._pending, self.shape.lookahead - len(self._open)):
                self._open.append((group, iter(group.indices)))
            if not self._open:
                return None
            in_order = len(self._open) == self.shape.lookahead  # more may come
            expected = [group.expected_tokens for group, _ in self._open]
            at = 0 if in_order else expected.index(max(expected))
            group, indices = self._open[at]
            index = next(indices, None)
            if index is None:
                del self._open[at]
                group.has_more = False
                self._drop_if_done(group)
            else:
                self._next = group, index
        return self._next

    def _run(self, seq: Sequence, prefills: list[SequenceGroup]) -> bool:
        """Gives a sample its pages, if one page stays for each running sample of the shards it takes from."""
        group, own = seq.group, self.pages_needed(seq)
        prompt = 0 if group in self._cached else -(-group.prefix_tokens // self.shape.page_size)

        def has_room(shard: int, pages: int) -> bool:
            return self._make_room(shard, pages + len(self.running[shard]), keep=group)

        shards = range(self.shape.shards)
        if not has_room(seq.shard, own + prompt):
            return False
        if group not in self._cached:
            if not all(has_room(s, prompt) for s in shards if s != seq.shard):
                return False
            group.prompt_pages = [self._take(s, prompt) for s in shards]
            self._cached[group] = None
            prefills.append(group)
        seq.pages = self._take(seq.shard, own)
        self.running[seq.shard].append(seq)
        return True

    def _make_room(self, shard: int, pages: int, keep: SequenceGroup | None = None) -> bool:
        """Whether so many pages are free, once prompts that no running sample reads have been dropped, oldest first."""
        while len(self._free[shard]) < pages:
            read = {seq.group for running in self.running for seq in running} | {keep}
            idle = next((group for group in self._cached if group not in read), None)
            if idle is None:
                return False
            self._drop_prompt(idle)
        return True

    def _drop_if_done(self, group: SequenceGroup) -> None:
        if not group.unfinished and not group.has_more:
            self._drop_prompt(group)

    def _drop_prompt(self, group: SequenceGroup) -> None:
        self._cached.pop(group, None)
        for shard, pages in enumerate(group.prompt_pages):
            self._give(shard, pages)
        group.prompt_pages = []

    def _take(self, shard: int, pages: int) -> list[int]:
        return [heapq.heappop(self._free[shard]) for _ in range(pages)]

    def _give(self, shard: int, pages: list[int]) -> None:
        for page in pages:
            heapq.heappush(self._free[shard], page)
