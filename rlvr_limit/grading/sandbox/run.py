"""Runs untrusted programs in processes of their own and hands back what they returned or wrote.

The program's process gets the program and the inputs, nothing else; whether a result is right is decided here, by the
caller, on plain values. Needs Linux.
"""

from __future__ import annotations

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
PROTECTIONS = ("namespaces", "own user", "file rules", "filter")


class SandboxError(Exception):
    """The sandbox failed, not the program in it."""


@dataclass(frozen=True)
class SandboxLimits:
    """What one program may use. CPU time decides; wall time only ends what uses none.

    idle_seconds: of waiting without using a processor. wall_seconds: of everything. memory_bytes: address space.
    disk_bytes and files: what may lie in its folder. output_bytes: standard output of one test, all results together.
    """

    total_cpu_seconds: float = 60.0
    idle_seconds: float = 10.0
    wall_seconds: float = 900.0
    memory_bytes: int = 4 << 30
    output_bytes: int = 16 << 20
    disk_bytes: int = 32 << 20
    files: int = 1000
    threads: int = 64


@dataclass(frozen=True)
class SandboxJob:
    """A program and its inputs. cpu_seconds[i] is the limit of input i.

    entry is the function to call ("f", or "Class.f" of a fresh object), and an input is marshal's form of the list of
    its arguments; or entry is "" and an input is what a script reads from standard input, in UTF-8.
    prelude runs before the program, in its namespace; modules are imported before the clock starts.
    """

    program: str
    entry: str
    inputs: tuple[bytes, ...]
    cpu_seconds: tuple[float, ...]
    prelude: str = ""
    modules: tuple[str, ...] = ()


EMPTY = SandboxJob("", "", (), ())


class ResultKind(StrEnum):
    """VALUE: returned. OUTPUT: written by a script that ended by itself. RAISED: an exception, an exit or a signal."""

    VALUE = "value"
    OUTPUT = "output"
    RAISED = "raised"
    TIMEOUT = "timeout"


@dataclass(frozen=True)
class SandboxResult:
    """What became of one input; index -1: of loading the program. cpu_seconds as the program's own process saw it.

    data is what a script wrote, or what a function returned in the form of encode.dumps, not checked (decode.loads).
    """

    index: int
    kind: ResultKind
    data: bytes = b""
    detail: str = ""
    cpu_seconds: float = 0.0


def execute(
    job: SandboxJob, limits: SandboxLimits, stopped: Callable[[], bool] = lambda: False, without: Sequence[str] = ()
) -> Iterator[SandboxResult]:
    """The results of a program's inputs, in order, as they come; ends early after a timeout or the program's end.

    No process and no file is left when the iterator is exhausted or closed. without leaves out protections by name.
    Raises SandboxError when the sandbox itself fails or protects less than `missing_protection` has found, and
    InterruptedError when stopped() becomes true.
    """
    expected = tuple(without) or missing_protection()
    with tempfile.TemporaryDirectory(prefix="program-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o711)
        frames = _frames(job, limits, stopped, folder, expected)
        try:
            missing = _names(next(frames)[1])
            if not without and missing != expected:
                raise SandboxError(f"programs are run without {missing}, but {expected} was found before")
            if "namespaces" not in missing:
                # The program has a file system of its own; should this process be killed, nothing is left behind.
                os.rmdir(folder)
            yield from _results(job, frames)
        finally:
            frames.close()


@functools.cache
def missing_protection() -> tuple[str, ...]:
    """Names of the protections that this system does not give, found by running an empty program."""
    if sys.platform != "linux":
        raise SandboxError(f"programs are run on Linux only, not on {sys.platform}")
    failure = None
    for without in ((), ("namespaces",)):
        with tempfile.TemporaryDirectory(prefix="program-") as folder:
            os.chmod(folder, 0o711)
            try:
                return _names(next(_frames(EMPTY, SandboxLimits(), lambda: False, folder, without))[1])
            except SandboxError as error:
                failure = failure or error
    raise SandboxError(f"programs cannot be run here: {failure}")


@functools.cache
def warn_of_missing_protection() -> None:
    """Logs once a process what programs could do here that they should not be able to do."""
    effects = {
        "namespaces": "programs can read what every user of this machine can read, fill its temporary folders"
        + (" and use its network" if "filter" in missing_protection() else ""),
        "own user": "programs can read and change the files of the user who runs this",
        "filter": "programs can start further processes, so that memory and CPU limits hold for each alone",
    }
    for name in missing_protection():
        logging.warning("running programs without %s: %s", name, effects[name])


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
                if result.index == -1 or result.detail == FORGED:
                    return
        elif kind == "o":
            output = content
        elif kind == "e":
            result = _ended(job, content.decode(errors="replace").split("\t", 5), output, done)
            if result:
                yield result
            if result and result.kind == ResultKind.TIMEOUT:
                return


CAUSES = {
    "cpu": "more than its CPU time",
    "idle": "waits for what does not come",
    "wall": "more than its wall time",
    "output": "too much output",
    "disk": "too much on disk",
}
LINE = re.compile(rb"(-1|[0-9]{1,9}) ([0-9]{1,9}\.[0-9]{4}) ([vx]) (.*)", re.DOTALL)
FORGED = "results that are not the sandbox's"


def _returned(line: bytes, done: int) -> SandboxResult:
    """A line of call_function, or of a program that pretends to be it."""
    match = LINE.fullmatch(line)
    if not match or int(match[1]) not in (done, -1):
        return SandboxResult(done, ResultKind.RAISED, detail=FORGED)
    index, cpu = int(match[1]), float(match[2])
    if match[3] == b"v":
        return SandboxResult(index, ResultKind.VALUE, match[4], cpu_seconds=cpu)
    return SandboxResult(
        index, ResultKind.RAISED, detail=match[4][:400].decode(errors="replace").strip('"'), cpu_seconds=cpu
    )


def _ended(job: SandboxJob, fields: list[str], output: bytes, done: int) -> SandboxResult | None:
    """What an end means for the input that was running; None where every input of a function has its result."""
    code, number, cpu, cause, detail = int(fields[1]), int(fields[2]), float(fields[3]), fields[4], fields[5]
    if job.entry and done == len(job.inputs) and not cause:
        return None
    index = min(done, len(job.inputs) - 1) if job.entry else int(fields[0])
    if cause:
        kind = ResultKind.RAISED if cause in ("output", "disk") else ResultKind.TIMEOUT
        return SandboxResult(index, kind, detail=f"{CAUSES[cause]} ({cpu:g} CPU seconds used)", cpu_seconds=cpu)
    if number:
        return SandboxResult(index, ResultKind.RAISED, detail=f"killed by signal {number}", cpu_seconds=cpu)
    if job.entry or code:
        return SandboxResult(index, ResultKind.RAISED, detail=detail or f"exit with code {code}", cpu_seconds=cpu)
    return SandboxResult(index, ResultKind.OUTPUT, output, cpu_seconds=cpu)


def _names(content: bytes) -> tuple[str, ...]:
    return tuple(content.decode().split(",")) if content else ()


def _frames(
    job: SandboxJob, limits: SandboxLimits, stopped: Callable[[], bool], folder: str, without: Sequence[str]
) -> Iterator[tuple[str, bytes]]:
    """Starts the clean interpreter, sends the job, and yields its frames; closing ends all of its processes."""
    path = _python_path()
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
        try:
            process.stdin.write(struct.pack("!Q", len(data)) + data)
            process.stdin.flush()
        except BrokenPipeError:
            pass  # what went wrong is in the frames, or said below
        yield from _read_frames(process.stdout.fileno(), stopped, until)
    finally:
        process.stdin.close()
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _read_frames(descriptor: int, stopped: Callable[[], bool], until: float) -> Iterator[tuple[str, bytes]]:
    poll, data, ended = select.poll(), bytearray(), False
    poll.register(descriptor, select.POLLIN)
    any_frame = False
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
    found = [
        entry for entry in sys.path if entry and _is_below(entry, sys.base_prefix) and "site-packages" not in entry
    ]
    return [*found, *dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))]


def _readable(path: list[str]) -> list[str]:
    """Folders that a program may read, none inside another: its imports and the system's libraries."""
    wanted = sorted({*map(os.path.realpath, path), *path, os.path.join(sys.base_prefix, "lib"), *LIBRARIES})
    found: list[str] = []
    for entry in wanted:
        if os.path.isdir(entry) and not any(_is_below(entry, other) for other in found):
            found.append(entry)
    return found


def _is_below(path: str, folder: str) -> bool:
    return os.path.commonpath((os.path.abspath(path), folder)) == folder
