"""Runs untrusted programs in processes of their own and hands back what they returned or wrote.

The program's process gets the program and the inputs, nothing else; whether a result is right is decided here, by the
caller, on plain values. Needs Linux.
"""

import contextlib
import functools
import logging
import marshal
import os
import re
import select
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

START = "import sys; sys.path.insert(0, sys.argv[1]); from rlvr_limit.grading.sandbox.supervisor import main; main()"
LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
FIRST_UID = 2_000_000_000
LOOK_SECONDS, GRACE_SECONDS = 0.2, 5.0
PROTECTIONS = {
    "namespaces": "programs can read what every user of this machine can read, and fill its temporary folders",
    "own user": "programs can read and change the files of the user who runs this",
    "file rules": "programs can change whatever files their user can change",
    "filter": "programs can start further processes, so that memory and CPU limits hold for each alone, and, without "
    "namespaces, use the network",
}
"""What keeps a program in, and what it can do where that is missing."""

_CAUSES = {
    "cpu": "more than its CPU time",
    "idle": "waits for what does not come",
    "wall": "more than its wall time",
    "output": "too much output",
    "disk": "too much on disk",
}
_LINE = re.compile(rb"(-1|[0-9]{1,9}) ([0-9]{1,9}\.[0-9]{4}) ([vx]) (.*)", re.DOTALL)
_FORGED = "results that are not the sandbox's"


class SandboxError(Exception):
    """The sandbox failed, not the program in it."""


@dataclass(frozen=True)
class SandboxLimits:
    """What one program may use. CPU time decides; wall time only ends what uses none."""

    total_cpu_seconds: float = 60.0
    idle_seconds: float = 10.0  # of waiting without using a processor
    wall_seconds: float = 900.0  # of everything
    memory_bytes: int = 4 << 30  # address space
    output_bytes: int = 16 << 20  # standard output of one test, all results together
    disk_bytes: int = 32 << 20  # in its folder
    files: int = 1000  # in its folder
    threads: int = 64


@dataclass(frozen=True)
class SandboxJob:
    """A program and its inputs."""

    program: str
    entry: str  # the function to call, "f", or "Class.f" of a fresh object; "" for a script
    inputs: tuple[bytes, ...]  # marshal's form of the list of arguments, or what a script reads from standard input
    cpu_seconds: tuple[float, ...]  # the limit of each input
    prelude: str = ""  # stands before the program, as one text with it
    modules: tuple[str, ...] = ()  # imported before the clock starts


class ResultKind(StrEnum):
    VALUE = "value"  # returned
    OUTPUT = "output"  # written by a script that ended by itself
    RAISED = "raised"  # an exception, an exit or a signal
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class SandboxResult:
    """What became of one input."""

    index: int  # -1: of loading the program
    kind: ResultKind
    data: bytes = b""  # what a script wrote, or a function returned (encode.dumps), not checked (decode.loads)
    detail: str = ""
    cpu_seconds: float = 0.0  # as the program's own process saw it


def execute(
    job: SandboxJob, limits: SandboxLimits, stopped: Callable[[], bool] = lambda: False, without: Sequence[str] = ()
) -> Iterator[SandboxResult]:
    """The results of a program's inputs, in order, as they come; ends early after a timeout or the program's end.

    No process and no file is left when the iterator is exhausted or closed. without leaves out protections by name.
    Raises SandboxError when the sandbox itself fails or protects less than `missing_protection` has found, and
    InterruptedError when stopped() becomes true.
    """
    expected = tuple(without) or missing_protection()
    with contextlib.closing(_frames(job, limits, stopped, expected)) as frames:
        missing = _names(next(frames)[1])
        if not without and missing != expected:
            raise SandboxError(f"programs are run without {missing}, but {expected} was found before")
        yield from _results(job, frames)


@functools.cache
def missing_protection() -> tuple[str, ...]:
    """Names of the protections that this system does not give, found by running an empty program."""
    if sys.platform != "linux":
        raise SandboxError(f"programs are run on Linux only, not on {sys.platform}")
    failure = None
    for without in ((), ("namespaces",)):
        empty = _frames(SandboxJob("", "", (), ()), SandboxLimits(), lambda: False, without)
        try:
            with contextlib.closing(empty) as frames:
                return _names(next(frames)[1])
        except SandboxError as error:
            failure = failure or error
    raise SandboxError(f"programs cannot be run here: {failure}")


@functools.cache
def warn_of_missing_protection() -> None:
    """Logs once a process what programs could do here that they should not be able to do."""
    for name in missing_protection():
        logging.warning("running programs without %s: %s", name, PROTECTIONS[name])


def _results(job: SandboxJob, frames: Iterator[tuple[str, bytes]]) -> Iterator[SandboxResult]:
    unfinished: list[bytes] = []
    done, output = 0, b""
    for kind, content in frames:
        if kind == "v":
            unfinished.append(content)
            if b"\n" not in content:
                continue
            *lines, rest = b"".join(unfinished).split(b"\n")
            unfinished = [rest]
            for line in lines:
                result = _returned(line, done)
                yield result
                done += 1
                if result.index == -1 or result.detail == _FORGED:
                    return
        elif kind == "o":
            output = content
        elif kind == "e" and (result := _ended(job, content, output, done)):
            yield result
            if result.kind == ResultKind.TIMEOUT:
                return


def _returned(line: bytes, done: int) -> SandboxResult:
    """A line of call_function, or of a program that pretends to be it."""
    match = _LINE.fullmatch(line)
    if not match or int(match[1]) not in (done, -1):
        return SandboxResult(done, ResultKind.RAISED, detail=_FORGED)
    index, cpu, data = int(match[1]), float(match[2]), match[4]
    if match[3] == b"v":
        return SandboxResult(index, ResultKind.VALUE, data, cpu_seconds=cpu)
    detail = data[:400].decode(errors="replace").strip('"')
    return SandboxResult(index, ResultKind.RAISED, detail=detail, cpu_seconds=cpu)


def _ended(job: SandboxJob, content: bytes, output: bytes, done: int) -> SandboxResult | None:
    """What an end means for the input that was running; None where every input of a function has its result."""
    index, code, signal, cpu, cause, detail = content.decode(errors="replace").split("\t", 5)
    if job.entry and done == len(job.inputs) and not cause:
        return None
    place, seconds = min(done, len(job.inputs) - 1) if job.entry else int(index), float(cpu)
    kind, data = ResultKind.RAISED, b""
    if cause:
        kind = ResultKind.RAISED if cause in ("output", "disk") else ResultKind.TIMEOUT
        detail = f"{_CAUSES[cause]} ({seconds:g} CPU seconds used)"
    elif signal != "0":
        detail = f"killed by signal {signal}"
    elif job.entry or code != "0":
        detail = detail or f"exit with code {code}"
    else:
        kind, data, detail = ResultKind.OUTPUT, output, ""
    return SandboxResult(place, kind, data, detail, seconds)


def _names(content: bytes) -> tuple[str, ...]:
    return tuple(content.decode().split(",")) if content else ()


def _frames(
    job: SandboxJob, limits: SandboxLimits, stopped: Callable[[], bool], without: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Starts the clean interpreter, sends the job, and yields its frames; closing ends all of its processes."""
    path = _python_path()
    with tempfile.TemporaryDirectory(prefix="program-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)
        sent = {
            **asdict(job), **asdict(limits), "parent": os.getpid(), "folder": folder, "without": list(without),
            "path": path, "readable": _readable(path), "first_uid": FIRST_UID,
        }  # fmt: skip
        data = marshal.dumps(sent)
        process = subprocess.Popen(
            # Isolated from the environment, but for a hash seed that makes verdicts repeatable.
            [sys.executable, "-S", "-P", "-s", "-X", "utf8", "-c", START, str(Path(__file__).resolve().parents[3])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LANG": "C.UTF-8"},
            start_new_session=True,
        )
        try:
            until = time.monotonic() + limits.wall_seconds
            with contextlib.suppress(BrokenPipeError):  # what went wrong is in the frames, or said with them
                process.stdin.write(struct.pack("!Q", len(data)) + data)
                process.stdin.flush()
            for kind, content in _read_frames(process.stdout.fileno(), stopped, until):
                if kind == "h" and "namespaces" not in _names(content):
                    # The program has a file system of its own; should this process be killed, nothing is left behind.
                    os.rmdir(folder)
                yield kind, content
        finally:
            # Closing flushes what a broken pipe did not take.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def _read_frames(descriptor: int, stopped: Callable[[], bool], until: float) -> Iterator[tuple[str, bytes]]:
    poll, data, ended, any_frame = select.poll(), bytearray(), False, False
    poll.register(descriptor, select.POLLIN)
    while not ended:
        if not poll.poll(LOOK_SECONDS * 1000):
            if stopped():
                raise InterruptedError("stopped while a program ran")
            if time.monotonic() > until:
                yield "e", b"0\t0\t0\t0\twall\t"
                return
            continue
        part = os.read(descriptor, 1 << 20)
        data += part
        ended = not part
        while len(data) >= 5:
            kind, size = chr(data[0]), struct.unpack_from("!I", data, 1)[0]
            if len(data) < 5 + size:
                break
            content = bytes(data[5 : 5 + size])
            del data[: 5 + size]
            if kind == "x":
                raise SandboxError(content.decode(errors="replace").strip().replace("\n", " | "))
            any_frame = True
            yield kind, content
    if not any_frame or data:
        raise SandboxError("the sandbox's interpreter ended without a word")


def _python_path() -> list[str]:
    """Where a program's imports are looked for: the standard library and the installed packages, no project's."""
    library = [path for path in sys.path if path and _is_below(path, sys.base_prefix) and "site-packages" not in path]
    return [*library, *dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))]


def _readable(path: list[str]) -> list[str]:
    """Folders that a program may read, none inside another: its imports and the system's libraries."""
    folders: list[str] = []
    for entry in sorted({*map(os.path.realpath, path), *path, os.path.join(sys.base_prefix, "lib"), *LIBRARIES}):
        if os.path.isdir(entry) and not any(_is_below(entry, folder) for folder in folders):
            folders.append(entry)
    return folders


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath((os.path.abspath(path), folder)) == folder
