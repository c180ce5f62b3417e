"""Grades responses in killable worker processes beside whatever this process does: nothing hangs, nothing is lost.

    with GradingPool(grade, workers=2, seconds=10.0) as pool:
        pool.submit(tag, problem, response)         never waits
        for tag, verdict in pool.finished(): ...    what is done by now; wait=True: all that is left
    map_verdicts(grade, items, 2, 10.0)             the same as a stream in order

Workers fork from a server process of their own, which is started as a new program and has seen the grader only: no fork
ever copies a process that holds jax, and a killed worker is replaced in milliseconds.
"""

from __future__ import annotations

import dataclasses
import logging
import multiprocessing
import queue
import resource
import signal
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from pebble import ProcessExpired, ProcessPool

from rlvr_limit.types import Grader, Problem, Status, Verdict

AHEAD, REMEMBERED, MEMORY_BYTES = 64, 65_536, 2 << 30
WALL_FACTOR, ATTEMPTS, BREAKS, DETAIL_LENGTH = 5, 2, 3, 200
"""Wall time allowed for a second of CPU time; tries of what may be the machine's fault; new pools in a row."""

Shorten = Callable[[Problem, str], Verdict | str]


@dataclass
class _Task:
    """One distinct (problem, shortened response) that is out for grading, and whom its verdict is for."""

    key: tuple[str, str]
    problem: Problem
    response: str
    tags: list[Hashable] = field(default_factory=list)
    attempts: int = 0
    future: Future[Any] | None = None


class GradingPool:
    """Worker processes that grade. For one thread; close it, or use it in a `with`, so that no process stays behind.

    A verdict may take `seconds` of CPU time (then TIMEOUT) and memory_bytes of address space (then ERROR). If a worker
    dies, or has not answered after WALL_FACTOR * seconds though its CPU time is not used up (the machine is busy), the
    verdict is tried once more, then ERROR or TIMEOUT. An exception, or anything that is no Verdict, is ERROR.
    shorten, run here, gives the verdict at once or a shorter response that grade judges alike; equal ones of a problem
    are graded once. grade is a function that a fresh process can import; a problem's id stands for the problem.
    """

    def __init__(
        self,
        grade: Grader,
        workers: int,
        seconds: float,
        shorten: Shorten | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._grade, self._workers, self._seconds, self._memory = grade, workers, seconds, memory_bytes
        self._shorten = shorten
        self._ready: deque[tuple[Hashable, Verdict]] = deque()
        self._known: OrderedDict[tuple[str, str], Verdict] = OrderedDict()
        self._out: dict[tuple[str, str], _Task] = {}
        self._done: queue.SimpleQueue[tuple[_Task, Future[Any]]] = queue.SimpleQueue()
        self._breaks = 0
        self._pool = self._new_pool()

    def __enter__(self) -> GradingPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def unfinished(self) -> int:
        """Distinct verdicts that are still out."""
        return len(self._out)

    def submit(self, tag: Hashable, problem: Problem, response: str) -> None:
        """Takes a response without waiting; its verdict comes out of `finished` with its tag."""
        found = self._shortened(problem, response)
        if isinstance(found, Verdict):
            self._ready.append((tag, found))
            return
        key = (problem.id, found)
        if key in self._known:
            self._known.move_to_end(key)
            self._ready.append((tag, self._known[key]))
        elif key in self._out:
            self._out[key].tags.append(tag)
        else:
            # A grader judges text: token ids of the prompt would only be sent to and fro.
            task = _Task(key, dataclasses.replace(problem, prompt_ids=()), found, [tag])
            self._out[key] = task
            self._schedule(task)

    def finished(self, wait: bool = False) -> Iterator[tuple[Hashable, Verdict]]:
        """(tag, verdict) of what is done, in no particular order; with wait, until nothing is left.

        Raises RuntimeError where workers cannot be started at all.
        """
        while True:
            while self._ready:
                yield self._ready.popleft()
            try:
                self._settle(*self._done.get(block=wait and bool(self._out)))
            except queue.Empty:
                return

    def close(self) -> None:
        """Kills the workers; what is not finished is dropped."""
        self._pool.stop()
        self._pool.join()

    def _shortened(self, problem: Problem, response: str) -> Verdict | str:
        if self._shorten is None:
            return response
        try:
            return self._shorten(problem, response)
        except Exception as error:  # as in a worker: one bad response must not end the run
            return _error(error)

    def _new_pool(self) -> ProcessPool:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([self._grade.__module__])
        return ProcessPool(self._workers, initializer=_confine, initargs=(self._memory, self._grade), context=context)

    def _schedule(self, task: _Task) -> None:
        arguments = (self._seconds, self._grade, task.problem, task.response)
        task.attempts += 1
        try:
            task.future = self._pool.schedule(_timed, args=arguments, timeout=WALL_FACTOR * self._seconds)
        except RuntimeError:  # the pool is broken; schedules every task that is out
            self._replace_pool()
            return
        task.future.add_done_callback(lambda future: self._done.put((task, future)))

    def _replace_pool(self) -> None:
        self._breaks += 1
        if self._breaks > BREAKS:
            raise RuntimeError(f"grading workers ended {self._breaks} times in a row before any verdict")
        logging.warning("grading workers ended from outside: started anew, %d verdicts tried again", len(self._out))
        self.close()
        self._pool = self._new_pool()
        for task in tuple(self._out.values()):
            self._schedule(task)

    def _settle(self, task: _Task, future: Future[Any]) -> None:
        """Turns what became of a try into a verdict, or tries again where the machine may be to blame."""
        if task.future is not future:
            return
        try:
            verdict = future.result()
        except BrokenProcessPool:
            self._replace_pool()
            return
        except TimeoutError:
            wall = f"no verdict in {WALL_FACTOR * self._seconds:g} s on a busy machine"
            return self._again(task, Verdict(False, Status.TIMEOUT, detail=wall))
        except ProcessExpired as error:
            if error.exitcode == -signal.SIGPROF:
                late = f"no verdict in {self._seconds:g} s of CPU time"
                return self._finish(task, Verdict(False, Status.TIMEOUT, detail=late))
            died = f"the worker died with exit code {error.exitcode}"
            return self._again(task, Verdict(False, Status.ERROR, detail=died))
        except Exception as error:  # whatever the grader raised, carried over from the worker
            verdict = _error(error)
        if not isinstance(verdict, Verdict):
            verdict = Verdict(False, Status.ERROR, detail=f"the grader gave a {type(verdict).__name__}"[:DETAIL_LENGTH])
        self._breaks = 0
        self._finish(task, verdict)

    def _again(self, task: _Task, verdict: Verdict) -> None:
        if task.attempts < ATTEMPTS:
            self._schedule(task)
        else:
            # An equal response that comes later, when the machine may be well again, is tried anew.
            self._finish(task, dataclasses.replace(verdict, detail=f"{verdict.detail}, twice"), remember=False)

    def _finish(self, task: _Task, verdict: Verdict, remember: bool = True) -> None:
        del self._out[task.key]
        self._ready.extend((tag, verdict) for tag in task.tags)
        if remember:
            self._known[task.key] = verdict
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)


def map_verdicts(
    grade: Grader,
    items: Iterable[tuple[Problem, str]],
    workers: int,
    seconds: float,
    shorten: Shorten | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> Iterator[Verdict]:
    """The verdict of each (problem, response), in order, at most 64 items a worker ahead of the one that is yielded."""
    with GradingPool(grade, workers, seconds, shorten, memory_bytes) as pool:
        early: dict[Hashable, Verdict] = {}
        taken = given = 0
        for problem, response in items:
            pool.submit(taken, problem, response)
            taken += 1
            early.update(pool.finished())
            while given in early or taken - given >= AHEAD * workers:
                while given not in early:
                    early.update([next(pool.finished(wait=True))])
                yield early.pop(given)
                given += 1
        early.update(pool.finished(wait=True))
        for place in range(given, taken):
            yield early[place]


def _timed(seconds: float, grade: Grader, problem: Problem, response: str) -> Verdict:
    """The kernel ends this process by SIGPROF when the CPU time is used up, whatever it is doing."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return grade(problem, response)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _error(error: Exception) -> Verdict:
    return Verdict(False, Status.ERROR, detail=f"{type(error).__name__}: {error}"[:DETAIL_LENGTH])


def _confine(memory_bytes: int, grade: Grader) -> None:
    """Runs first in each worker. Unpickling grade has imported its module, so that no verdict's time pays for it."""
    # Ctrl-C reaches the whole process group; the parent alone decides, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # The hard limit stays: a program that a grader runs has a limit of its own, which may be higher.
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
