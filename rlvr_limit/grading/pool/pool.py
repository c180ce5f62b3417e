"""Grades responses beside whatever this process does: nothing hangs, nothing is lost, and next to nothing is done here.

    with GradingPool(grade, workers=2, seconds=10.0) as pool:
        pool.submit(tag, problem, response)         never waits
        for tag, verdict in pool.finished(): ...    what is done by now; wait=True: all that is left
    map_verdicts(grade, items, 2, 10.0)             the same as a stream in order

A process of its own (workers.py) reads the responses, tells equal ones and watches the worker processes; this one
writes to a socket and reads from it, without a thread, so that a sampler which has one core keeps it.
"""

import atexit
import contextlib
import dataclasses
import logging
import multiprocessing
import select
import socket
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple, Self

from rlvr_limit.grading.pool.workers import BREAKS, CHUNK, Shorten, pack_message, serve, take_messages
from rlvr_limit.types import Grader, Problem, Verdict

AHEAD, MEMORY_BYTES, GRACE_SECONDS = 64, 2 << 30, 10.0


class _Submission(NamedTuple):
    tag: Hashable
    problem: Problem
    response: str


class GradingPool:
    """Worker processes that grade. For one thread; close it, or use it in a `with`, so that no process stays behind.

    A verdict may take `seconds` of CPU time (then TIMEOUT) and memory_bytes of address space (then ERROR). If a worker
    dies, or has not answered after WALL_FACTOR * seconds though its CPU time is not used up (the machine is busy), the
    verdict is tried once more, then ERROR or TIMEOUT. An exception, or anything that is no Verdict, is ERROR.
    shorten gives the verdict at once or a shorter response that grade judges alike; equal ones of a problem are graded
    once. Both are functions that a fresh process can import; a problem's id stands for the problem.
    """

    def __init__(
        self,
        grade: Grader,
        workers: int,
        seconds: float,
        shorten: Shorten | None = None,
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        self._arguments = (grade, workers, seconds, shorten, memory_bytes)
        self._unfinished: dict[int, _Submission] = {}
        self._count = self._breaks = 0
        self._start()
        # Should nobody close it, the server must see its socket closed before this process waits for it to end.
        atexit.register(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def unfinished(self) -> int:
        """Responses whose verdicts have not come out of `finished`."""
        return len(self._unfinished)

    def submit(self, tag: Hashable, problem: Problem, response: str) -> None:
        """Takes a response without waiting; its verdict comes out of `finished` with its tag."""
        self._unfinished[self._count] = _Submission(tag, problem, response)
        self._send(self._count)
        self._count += 1
        self._write()

    def finished(self, wait: bool = False) -> Iterator[tuple[Hashable, Verdict]]:
        """(tag, verdict) of what is done, in no particular order; with wait, until nothing is left.

        Raises RuntimeError where workers, or the process that watches them, cannot be started at all.
        """
        while self._unfinished:
            self._write()
            self._read()
            if not self._ready and not wait:
                return
            if not self._ready:
                self._poll.modify(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0))
                self._poll.poll()
            while self._ready:
                self._breaks = 0
                number, verdict = self._ready.popleft()
                yield self._unfinished.pop(number).tag, verdict

    def close(self) -> None:
        """Kills the workers; what is not finished is dropped."""
        atexit.unregister(self.close)
        self._unfinished.clear()
        self._stop()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([self._arguments[0].__module__, serve.__module__])
        self._socket, theirs = socket.socketpair()
        self._process = context.Process(target=serve, args=(theirs, *self._arguments), name="grading")
        self._process.start()
        theirs.close()
        self._socket.setblocking(False)
        self._poll = select.poll()
        self._poll.register(self._socket)
        self._unsent, self._unread = bytearray(), bytearray()
        self._sent_problems: set[str] = set()
        self._ready: deque[tuple[int, Verdict]] = deque()

    def _stop(self) -> None:
        self._socket.close()
        self._process.join(GRACE_SECONDS)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _restart(self) -> None:
        """The server was ended from outside: what it had goes to a new one."""
        self._breaks += 1
        if self._breaks > BREAKS:
            raise RuntimeError(f"the process that watches the graders ended {self._breaks} times before any verdict")
        logging.warning("the process that watches the graders ended: %d verdicts tried again", len(self._unfinished))
        self._stop()
        self._start()
        for number in self._unfinished:
            self._send(number)

    def _send(self, number: int) -> None:
        _, problem, response = self._unfinished[number]
        # A problem is sent once, then its id. A grader judges text: token ids and images would be sent for nothing.
        first = problem.id not in self._sent_problems
        self._sent_problems.add(problem.id)
        sent = dataclasses.replace(problem, prompt_ids=(), images=()) if first else problem.id
        self._unsent += pack_message((number, sent, response))

    def _write(self) -> None:
        """As much as the socket takes now."""
        while self._unsent:
            try:
                sent = self._socket.send(memoryview(self._unsent)[:CHUNK])
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):
                return self._restart()
            del self._unsent[:sent]

    def _read(self) -> None:
        """The verdicts that are there now."""
        full = True
        while full:
            try:
                data = self._socket.recv(CHUNK)
            except BlockingIOError:
                break
            except ConnectionResetError:
                data = b""
            if not data:
                return self._restart()
            self._unread += data
            full = len(data) == CHUNK
        for number, verdict in take_messages(self._unread):
            if number is None:
                raise RuntimeError(verdict)
            self._ready.append((number, verdict))


def map_verdicts(
    grade: Grader,
    items: Iterable[tuple[Problem, str]],
    workers: int,
    seconds: float,
    shorten: Shorten | None = None,
    memory_bytes: int = MEMORY_BYTES,
) -> Iterator[Verdict]:
    """The verdict of each (problem, response), in order, at most AHEAD items a worker ahead of the one yielded."""
    pool = None  # until an item needs it
    with contextlib.ExitStack() as stack:
        early: dict[Hashable, Verdict] = {}
        taken = given = 0
        for problem, response in items:
            # This process has nothing else to do: what needs no algebra never takes the way to the workers.
            try:
                short = shorten(problem, response) if shorten else response
            except Exception:  # the workers' side makes a verdict of it
                short = response
            if isinstance(short, Verdict):
                early[taken] = short
            else:
                pool = pool or stack.enter_context(GradingPool(grade, workers, seconds, shorten, memory_bytes))
                pool.submit(taken, problem, short)
            taken += 1
            early.update(pool.finished() if pool else ())
            while given in early or taken - given >= AHEAD * workers:
                while given not in early:
                    early.update([next(pool.finished(wait=True))])
                yield early.pop(given)
                given += 1
        early.update(pool.finished(wait=True) if pool else ())
        for place in range(given, taken):
            yield early[place]
