"""Grades a stream of responses in killable worker processes: nothing hangs, nothing is lost, order is kept."""

from __future__ import annotations

import multiprocessing
import resource
import signal
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, TimeoutError

from pebble import ProcessExpired, ProcessPool

from rlvr_limit.types import Grader, Problem, Status, Verdict

AHEAD, REMEMBERED, MEMORY_BYTES = 64, 65_536, 2 << 30
DETAIL_LENGTH = 200


def map_verdicts(
    grade: Grader,
    items: Iterable[tuple[Problem, str]],
    workers: int,
    timeout_seconds: float,
    shorten: Callable[[Problem, str], Verdict | str] | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> Iterator[Verdict]:
    """The verdict of each (problem, response), in order, at most 64 items a worker ahead of the one that is yielded.

    A verdict that takes longer than timeout_seconds of wall time is TIMEOUT and its worker is killed; an exception, too
    much memory (address space beyond memory_bytes) or a dead worker is ERROR with its cause; the others go on.
    shorten, run here, gives the verdict at once or a shorter response that grade judges alike; equal ones are graded
    once. grade is a function that a fresh process can import; a problem's id stands for the problem.
    """
    context = multiprocessing.get_context("forkserver")
    # Workers fork from a server that has imported the grader once; neither has ever seen the parent's jax.
    context.set_forkserver_preload([grade.__module__])
    pool = ProcessPool(workers, initializer=_confine, initargs=(memory_bytes, grade), context=context)
    known: OrderedDict[tuple[str, str], Future[Verdict] | Verdict] = OrderedDict()
    waiting: deque[tuple[tuple[str, str], Future[Verdict] | Verdict]] = deque()

    def place(problem: Problem, response: str) -> None:
        found = _shortened(shorten, problem, response)
        key = (problem.id, "" if isinstance(found, Verdict) else found)
        if isinstance(found, Verdict):
            waiting.append((key, found))
            return
        if key not in known:
            known[key] = pool.schedule(grade, args=(problem, found), timeout=timeout_seconds)
            if len(known) > REMEMBERED:
                known.popitem(last=False)
        known.move_to_end(key)
        waiting.append((key, known[key]))

    def finish() -> Verdict:
        key, result = waiting.popleft()
        verdict = result if isinstance(result, Verdict) else _outcome(result, timeout_seconds)
        if isinstance(result, Future) and known.get(key) is result:
            if verdict.status in (Status.TIMEOUT, Status.ERROR):
                # The machine may be to blame, so that an equal response that comes later is tried anew.
                del known[key]
            else:
                known[key] = verdict
        return verdict

    try:
        for problem, response in items:
            place(problem, response)
            while waiting and (_is_done(waiting[0][1]) or len(waiting) >= AHEAD * workers):
                yield finish()
        while waiting:
            yield finish()
    finally:
        pool.stop()
        pool.join()


def _shortened(
    shorten: Callable[[Problem, str], Verdict | str] | None, problem: Problem, response: str
) -> Verdict | str:
    if shorten is None:
        return response
    try:
        return shorten(problem, response)
    except Exception as error:  # as in a worker: one bad response must not end the run
        return _error(error)


def _is_done(result: Future[Verdict] | Verdict) -> bool:
    return isinstance(result, Verdict) or result.done()


def _outcome(future: Future[Verdict], timeout_seconds: float) -> Verdict:
    try:
        return future.result()
    except TimeoutError:
        return Verdict(False, Status.TIMEOUT, detail=f"no verdict in {timeout_seconds:g} s")
    except ProcessExpired as error:
        return Verdict(False, Status.ERROR, detail=f"the worker died with exit code {error.exitcode}")
    except Exception as error:  # whatever the grader raised, carried over from the worker
        return _error(error)


def _error(error: Exception) -> Verdict:
    return Verdict(False, Status.ERROR, detail=f"{type(error).__name__}: {error}"[:DETAIL_LENGTH])


def _confine(memory_bytes: int, grade: Grader) -> None:
    """Runs first in each worker. Unpickling grade has imported its module, so that no verdict's time pays for it."""
    # Ctrl-C reaches the whole process group; the parent alone decides, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
