"""Grades responses in killable worker processes: the process that serves a GradingPool (pool.py) holds these.

Workers fork from a server process of their own, which is started as a new program and has seen the grader only: no fork
ever copies a process that holds jax, and a killed worker is replaced in milliseconds.
"""

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import pickle
import queue
import resource
import select
import signal
import socket
import struct
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, TimeoutError
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from pebble import ProcessExpired, ProcessPool

from rlvr_limit.types import Grader, Problem, Status, Verdict

REMEMBERED, CHUNK, LENGTH = 65_536, 1 << 20, struct.Struct("!I")
LOOK_MILLISECONDS = 1000
WALL_FACTOR, ATTEMPTS, BREAKS, DETAIL_LENGTH = 5, 2, 3, 200
"""Wall time allowed for a second of CPU time; tries of what may be the machine's fault; new pools in a row."""

Shorten = Callable[[Problem, str], Verdict | str]


@dataclass
class _GradingTask:
    """One distinct (problem, shortened response) that is out for grading, and whom its verdict is for."""

    key: tuple[str, str]
    problem: Problem
    response: str
    tags: list[Hashable] = field(default_factory=list)
    attempts: int = 0
    future: Future[Any] | None = None


@dataclass(eq=False)
class GradingWorkers:
    """The worker processes of a GradingPool, whose promises are kept here. For one thread; closing it kills them."""

    grade: Grader
    workers: int
    seconds: float
    shorten: Shorten | None
    memory_bytes: int
    tell: Callable[[], None]  # called, from any thread, when something new may come out of `finished`

    def __post_init__(self) -> None:
        self._ready: deque[tuple[Hashable, Verdict]] = deque()
        self._known: OrderedDict[tuple[str, str], Verdict] = OrderedDict()
        self._tasks: dict[tuple[str, str], _GradingTask] = {}
        self._done: queue.SimpleQueue[tuple[_GradingTask, Future[Any]]] = queue.SimpleQueue()
        self._breaks = 0
        self._pool = self._new_pool()

    def submit(self, tag: Hashable, problem: Problem, response: str) -> None:
        """Takes a response without waiting; its verdict comes out of `finished` with its tag."""
        try:
            short = self.shorten(problem, response) if self.shorten else response
        except Exception as error:  # as in a worker: one bad response must not end the run
            short = _raised(error)
        if isinstance(short, Verdict):
            self._ready.append((tag, short))
            return
        key = (problem.id, short)
        if key in self._known:
            self._known.move_to_end(key)
            self._ready.append((tag, self._known[key]))
        elif key in self._tasks:
            self._tasks[key].tags.append(tag)
        else:
            self._tasks[key] = _GradingTask(key, problem, short, [tag])
            self._schedule(self._tasks[key])

    def finished(self) -> Iterator[tuple[Hashable, Verdict]]:
        """(tag, verdict) of what is done by now, in no particular order.

        Raises RuntimeError where workers cannot be started at all.
        """
        while True:
            while self._ready:
                yield self._ready.popleft()
            try:
                self._settle(*self._done.get(block=False))
            except queue.Empty:
                # A task that reaches the pool while it breaks is one that nobody ends: no future of it ever comes.
                if not self._tasks or self._pool.active:
                    return
                self._replace_pool()

    def close(self) -> None:
        """Kills the workers; what is not finished is dropped."""
        self._pool.stop()
        self._pool.join()

    def _new_pool(self) -> ProcessPool:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([self.grade.__module__, __name__])
        return ProcessPool(
            self.workers, initializer=_confine, initargs=(self.memory_bytes, self.grade), context=context
        )

    def _schedule(self, task: _GradingTask) -> None:
        arguments = (self.seconds, self.grade, task.problem, task.response)
        task.attempts += 1
        try:
            task.future = self._pool.schedule(_timed, args=arguments, timeout=WALL_FACTOR * self.seconds)
        except RuntimeError:  # the pool is broken; schedules every task that is out
            self._replace_pool()
            return
        task.future.add_done_callback(lambda future: self._put(task, future))

    def _put(self, task: _GradingTask, future: Future[Any]) -> None:
        self._done.put((task, future))
        self.tell()

    def _replace_pool(self) -> None:
        self._breaks += 1
        if self._breaks > BREAKS:
            raise RuntimeError(f"grading workers ended {self._breaks} times in a row before any verdict")
        logging.warning("grading workers ended from outside: started anew, %d verdicts tried again", len(self._tasks))
        self.close()
        self._pool = self._new_pool()
        for task in tuple(self._tasks.values()):
            self._schedule(task)

    def _settle(self, task: _GradingTask, future: Future[Any]) -> None:
        """Turns what became of a try into a verdict, or tries again where the machine may be to blame."""
        if task.future is not future:
            return
        try:
            verdict = future.result()
        except BrokenProcessPool:
            return self._replace_pool()
        except TimeoutError:
            detail = f"no verdict in {WALL_FACTOR * self.seconds:g} s on a busy machine"
            return self._try_again(task, Verdict(False, Status.TIMEOUT, detail=detail))
        except ProcessExpired as error:
            if error.exitcode == -signal.SIGPROF:
                detail = f"no verdict in {self.seconds:g} s of CPU time"
                return self._finish(task, Verdict(False, Status.TIMEOUT, detail=detail))
            detail = f"the worker died with exit code {error.exitcode}"
            return self._try_again(task, Verdict(False, Status.ERROR, detail=detail))
        except Exception as error:  # whatever the grader raised, carried over from the worker
            verdict = _raised(error)
        if not isinstance(verdict, Verdict):
            verdict = Verdict(False, Status.ERROR, detail=f"the grader gave a {type(verdict).__name__}"[:DETAIL_LENGTH])
        self._breaks = 0
        self._finish(task, verdict)

    def _try_again(self, task: _GradingTask, verdict: Verdict) -> None:
        if task.attempts < ATTEMPTS:
            self._schedule(task)
        else:
            # An equal response that comes later, when the machine may be well again, is tried anew.
            self._finish(task, dataclasses.replace(verdict, detail=f"{verdict.detail}, twice"), remember=False)

    def _finish(self, task: _GradingTask, verdict: Verdict, remember: bool = True) -> None:
        del self._tasks[task.key]
        self._ready.extend((tag, verdict) for tag in task.tags)
        if remember:
            self._known[task.key] = verdict
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)


def serve(link: socket.socket, *arguments: Any) -> None:
    """Grades what comes from a GradingPool's socket and writes back (number, verdict), or (None, why there is none).

    What comes is (number, the problem or the id of one sent before, response). Ends when the socket is closed.
    arguments are those of GradingWorkers but for tell.
    """
    # Ctrl-C and a scheduler's notice reach all processes; the one that samples alone decides, by closing the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    listening, telling = os.pipe()
    os.set_blocking(telling, False)

    def tell() -> None:
        # A full pipe wakes this process as well.
        with contextlib.suppress(BlockingIOError):
            os.write(telling, b".")

    with contextlib.suppress(ConnectionError), contextlib.closing(GradingWorkers(*arguments, tell)) as workers:
        try:
            _serve(link, listening, workers)
        except RuntimeError as error:
            link.sendall(pack_message((None, str(error))))


def _serve(link: socket.socket, listening: int, workers: GradingWorkers) -> None:
    problems: dict[str, Problem] = {}
    unread = bytearray()
    poll = select.poll()
    for descriptor in (link.fileno(), listening):
        poll.register(descriptor, select.POLLIN)
    while True:
        ready = dict(poll.poll(LOOK_MILLISECONDS))
        if listening in ready:
            os.read(listening, CHUNK)
        if link.fileno() in ready:
            data = link.recv(CHUNK)
            if not data:
                return
            unread += data
            for number, sent, response in take_messages(unread):
                problem = problems.setdefault(sent.id, sent) if isinstance(sent, Problem) else problems[sent]
                workers.submit(number, problem, response)
        link.sendall(b"".join(map(pack_message, workers.finished())))


def pack_message(message: tuple) -> bytes:
    """A message as it goes through the socket: the length of its pickle in four bytes, then the pickle."""
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(data)) + data


def take_messages(unread: bytearray) -> list[tuple]:
    """Takes the messages that are complete from the start of what was read."""
    messages, start = [], 0
    while len(unread) - start >= LENGTH.size:
        begin = start + LENGTH.size
        end = begin + LENGTH.unpack_from(unread, start)[0]
        if end > len(unread):
            break
        messages.append(pickle.loads(unread[begin:end]))
        start = end
    del unread[:start]
    return messages


def _timed(seconds: float, grade: Grader, problem: Problem, response: str) -> Verdict:
    """The kernel ends this process by SIGPROF when the CPU time is used up, whatever it is doing."""
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        return grade(problem, response)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _raised(error: Exception) -> Verdict:
    return Verdict(False, Status.ERROR, detail=f"{type(error).__name__}: {error}"[:DETAIL_LENGTH])


def _confine(memory_bytes: int, grade: Grader) -> None:
    """Runs first in each worker. Unpickling grade has imported its module, so that no verdict's time pays for it."""
    # Ctrl-C reaches the whole process group; the parent alone decides, and ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # The hard limit stays: a program that a grader runs has a limit of its own, which may be higher.
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
