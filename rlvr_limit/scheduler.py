"""Which sample sits in which slot, and which prompt in which prefix row. Plain Python, no jax."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain


@dataclass(frozen=True)
class Work:
    """Sample number index of request number request."""

    request: int
    index: int


@dataclass(frozen=True)
class Admission:
    """A sample enters a slot; its prompt's keys and values lie in a row of the prefix store."""

    slot: int
    row: int
    work: Work


class Scheduler:
    """Fills free slots with work in order; a prompt keeps its prefix row until its last sample has been admitted."""

    def __init__(self, slots: int, rows: int, work: Iterable[tuple[int, Iterable[int]]]):
        """work yields (request number, its sample indices), each request once, and is read only as slots free up."""
        self.free = deque(range(slots))
        self.live: dict[int, Work] = {}
        self._rows = deque(range(rows))
        self._pending = iter(work)
        self._current: tuple[int, int, Iterator[int]] | None = None

    def admit(self) -> tuple[list[tuple[int, int]], list[Admission]]:
        """(prompts to prefill as (row, request), samples to admit); a row is handed out at most once a call."""
        prefills: list[tuple[int, int]] = []
        admissions: list[Admission] = []
        spent: list[int] = []
        while self.free:
            if self._current is None:
                if not self._rows:
                    break
                entry = next(self._pending, None)
                if entry is None:
                    break
                indices = iter(entry[1])
                first = next(indices, None)
                if first is None:
                    continue
                row = self._rows.popleft()
                self._current = (entry[0], row, chain((first,), indices))
                prefills.append((row, entry[0]))
            request, row, indices = self._current
            index = next(indices, None)
            if index is None:
                used = bool(admissions) and admissions[-1].row == row
                (spent if used else self._rows).append(row)
                self._current = None
                continue
            slot = self.free.popleft()
            self.live[slot] = Work(request, index)
            admissions.append(Admission(slot, row, self.live[slot]))
        # What this call admitted still reads these rows, so they are handed out again only in the next one.
        self._rows.extend(spent)
        return prefills, admissions

    def release(self, slot: int) -> Work:
        """Frees a slot whose sample is finished."""
        work = self.live.pop(slot)
        self.free.append(slot)
        return work
