"""Which sample is alive, and which pages of the cache it holds. Plain Python, no jax.

Time goes in windows of `window` tokens. A sample's own tokens are the last one of its prompt and all it draws; at the
end of each window their keys and values are filed in its pages. Those of the rest of the prompt lie in the prompt's
pages, once for all of its samples. On a mesh each shard has slots and pages of its own: a sample lives on one shard,
a prompt's pages are on all of them.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from math import inf

TRASH = 0
"""The page that takes what nobody will read."""


@dataclass(frozen=True)
class Shapes:
    """Slots and pages of each shard, tokens of a page and of a window; a page is a whole number of windows.

    Jobs are read `ahead` at a time.
    """

    shards: int
    slots: int
    pages: int
    page: int
    window: int
    ahead: int = 1


@dataclass(frozen=True)
class Job:
    """Draw samples `indices` of request number request, whose prompt leaves `shared` tokens for all of them to read.

    No sample has more than `own` tokens of its own.
    """

    request: int
    shared: int
    own: int
    indices: Iterable[int]


@dataclass(eq=False)
class Seat:
    """A live sample: sample `index` of a request, on a shard, with `filed` own tokens in its pages."""

    request: int
    index: int
    shard: int
    pages: list[int] = field(default_factory=list)
    filed: int = 0


@dataclass(frozen=True)
class Round:
    """What is to be done before a window, in this order.

    Pages of `set_back` samples are saved, prompts are prefilled into their pages (one list a shard), saved pages of
    `resumed` samples are written into the pages they hold now; `admitted` are new. Of the requests in `ended`, all
    samples have been released since the last round: each is told once, and is not heard of again.
    """

    set_back: list[tuple[Seat, list[int]]]
    prefills: list[tuple[int, list[list[int]]]]
    resumed: list[Seat]
    admitted: list[Seat]
    ended: list[int]


class Scheduler:
    """Seats samples in order of the jobs; once no more jobs come, those of the longest expected samples first, by the
    mean of what has ended, so that no long sample is left alone in the end (Graham 1969, sec. 3). Jobs of which nothing
    has ended come before all others.

    All finish: the oldest live sample of a shard is never set back but where it is the shard's only one and prompts
    of other shards' samples take its pages; nobody begins then until it has gone on.
    """

    def __init__(self, shapes: Shapes, jobs: Iterable[Job]):
        """jobs are read only as slots free up, up to shapes.ahead before they are needed; each request once."""
        self.shapes = shapes
        self.seats: list[list[Seat]] = [[] for _ in range(shapes.shards)]
        self._free = [list(range(TRASH + 1, shapes.pages)) for _ in range(shapes.shards)]
        self._waiting: list[deque[Seat]] = [deque() for _ in range(shapes.shards)]
        self._prompts: OrderedDict[int, list[list[int]]] = OrderedDict()
        self._pending = iter(jobs)
        self._known: dict[int, Job] = {}
        self._alive: dict[int, int] = {}
        self._ended: list[int] = []
        self._lengths: dict[int, tuple[int, int]] = {}
        self._open: list[tuple[Job, Iterator[int]]] = []
        self._next: tuple[Job, int] | None = None

    @property
    def live(self) -> int:
        """Samples that have a slot."""
        return sum(map(len, self.seats))

    @property
    def unfinished(self) -> int:
        """Samples that have begun and not finished: live, or set back for want of pages."""
        return self.live + sum(map(len, self._waiting))

    @property
    def held(self) -> int:
        """Pages that are neither free nor the trash, on all shards."""
        return self.shapes.shards * (self.shapes.pages - 1) - sum(map(len, self._free))

    def prompt_pages(self, request: int, shard: int) -> list[int]:
        """The pages in which the keys and values of a prompt lie."""
        return self._prompts[request][shard]

    def job(self, request: int) -> Job:
        """The job of a request that has a sample alive."""
        return self._known[request]

    def next_round(self) -> Round:
        """Gives every live sample the pages of its next window, and seats waiting and new ones while there is room."""
        set_back: list[tuple[Seat, list[int]]] = []
        prefills: list[tuple[int, list[list[int]]]] = []
        for shard, seats in enumerate(self.seats):
            at = 0
            while at < len(seats):
                self._grow(seats[at], set_back)
                at += 1
            for seat, _ in set_back:
                if seat.shard == shard:
                    self._waiting[shard].appendleft(seat)
        resumed = [seat for shard in range(self.shapes.shards) for seat in self._resume(shard, prefills)]
        admitted = list(self._admit(prefills))
        ended, self._ended = self._ended, []
        return Round(set_back, prefills, resumed, admitted, ended)

    def window_done(self, seats: Iterable[Seat]) -> None:
        """The own tokens of a window of these live samples have been filed."""
        for seat in seats:
            seat.filed += self.shapes.window

    def release(self, seat: Seat) -> None:
        """A sample is finished, live or set back: its slot and pages are free."""
        waiting = self._waiting[seat.shard]
        (waiting if seat in waiting else self.seats[seat.shard]).remove(seat)
        self._give(seat.shard, seat.pages)
        seat.pages = []
        self._alive[seat.request] -= 1
        ended, tokens = self._lengths.get(seat.request, (0, 0))
        self._lengths[seat.request] = ended + 1, tokens + seat.filed
        self._forget(seat.request)

    def pages_for(self, seat: Seat) -> int:
        """Pages that hold a sample's own tokens once its next window is filed; of its last window nothing is."""
        shapes = self.shapes
        after = seat.filed + shapes.window
        if after >= self._known[seat.request].own:
            after = seat.filed
        return -(-after // shapes.page)

    def _grow(self, seat: Seat, set_back: list[tuple[Seat, list[int]]]) -> None:
        seats = self.seats[seat.shard]
        while True:
            lacking = self.pages_for(seat) - len(seat.pages)
            if lacking <= 0 or self._make_room(seat.shard, lacking):
                break
            youngest = seats[-1]
            seats.pop()
            set_back.append((youngest, youngest.pages))
            self._give(youngest.shard, youngest.pages)
            youngest.pages = []
            if youngest is seat:
                return
        seat.pages += self._get(seat.shard, lacking)

    def _resume(self, shard: int, prefills: list) -> Iterator[Seat]:
        waiting = self._waiting[shard]
        while waiting and len(self.seats[shard]) < self.shapes.slots:
            seat = waiting[0]
            if not self._seat(seat, prefills):
                return
            waiting.popleft()
            yield seat

    def _admit(self, prefills: list) -> Iterator[Seat]:
        while True:
            shard = self._emptiest()
            following = None if shard is None else self._following()
            if following is None:
                return
            job, index = following
            seat = Seat(job.request, index, shard)
            if not self._seat(seat, prefills):
                return
            self._next = None
            self._alive[job.request] = self._alive.get(job.request, 0) + 1
            yield seat

    def _emptiest(self) -> int | None:
        """The shard that a new sample goes to, or None.

        Samples that were set back go first: a new one would take the pages that they wait for. Where one waits and its
        shard is empty, its pages are held by prompts of other shards' samples: nobody begins until it has gone on.
        """
        shards = range(self.shapes.shards)
        if any(self._waiting[s] and not self.seats[s] for s in shards):
            return None
        open_to_new = [s for s in shards if len(self.seats[s]) < self.shapes.slots and not self._waiting[s]]
        return min(open_to_new, key=lambda s: len(self.seats[s]), default=None)

    def _following(self) -> tuple[Job, int] | None:
        """The sample that is seated next; it is read once and kept until it has a slot."""
        while self._next is None:
            for job in islice(self._pending, self.shapes.ahead - len(self._open)):
                self._known[job.request] = job
                self._open.append((job, iter(job.indices)))
            if not self._open:
                return None
            more_may_come = len(self._open) == self.shapes.ahead
            at = 0 if more_may_come else max(range(len(self._open)), key=lambda i: self._expected(self._open[i][0]))
            job, indices = self._open[at]
            index = next(indices, None)
            if index is None:
                del self._open[at]
                self._forget(job.request)
            else:
                self._next = job, index
        return self._next

    def _expected(self, job: Job) -> float:
        ended, tokens = self._lengths.get(job.request, (0, 0))
        return tokens / ended if ended else inf

    def _seat(self, seat: Seat, prefills: list) -> bool:
        """Gives a sample its pages and a slot, if one page stays for each live sample of the shards it takes from."""
        own, known = self.pages_for(seat), seat.request in self._prompts
        shared = 0 if known else -(-self._known[seat.request].shared // self.shapes.page)

        def has_room(shard: int, pages: int) -> bool:
            return self._make_room(shard, pages + len(self.seats[shard]), keep=seat.request)

        everywhere = range(self.shapes.shards)
        if not has_room(seat.shard, own + shared):
            return False
        if not known:
            if not all(has_room(s, shared) for s in everywhere if s != seat.shard):
                return False
            self._prompts[seat.request] = [self._get(s, shared) for s in everywhere]
            prefills.append((seat.request, self._prompts[seat.request]))
        seat.pages = self._get(seat.shard, own)
        self.seats[seat.shard].append(seat)
        return True

    def _make_room(self, shard: int, pages: int, keep: int | None = None) -> bool:
        """Whether so many pages are free, once prompts that no live sample reads have been given up, oldest first."""
        while len(self._free[shard]) < pages:
            read = {seat.request for seats in self.seats for seat in seats} | {keep}
            idle = next((request for request in self._prompts if request not in read), None)
            if idle is None:
                return False
            self._drop_prompt(idle)
        return True

    def _forget(self, request: int) -> None:
        """Gives up the pages of a prompt with no sample left."""
        going_on = any(job.request == request for job, _ in self._open)
        if not self._alive.get(request) and not going_on:
            self._drop_prompt(request)
            self._alive.pop(request, None)
            self._lengths.pop(request, None)
            del self._known[request]
            self._ended.append(request)

    def _drop_prompt(self, request: int) -> None:
        for shard, pages in enumerate(self._prompts.pop(request, [])):
            self._give(shard, pages)

    def _get(self, shard: int, pages: int) -> list[int]:
        return [heapq.heappop(self._free[shard]) for _ in range(pages)]

    def _give(self, shard: int, pages: list[int]) -> None:
        for page in pages:
            heapq.heappush(self._free[shard], page)
