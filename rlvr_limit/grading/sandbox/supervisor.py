"""The clean interpreter that runs one program: confines itself, then watches the program, the only other process.

Three processes: the launcher, which the parent starts; the supervisor, process 1 of a process namespace, so that all
in it ends with it; and the program. The parent sends one job (the fields of SandboxJob, SandboxLimits and a few more)
on standard input and keeps that pipe open: when it is closed, all ends. Frames come back on standard output, one byte
of kind, four of length, then the content:

    h  names of the protections that are missing         v  bytes of lines of results (program.call_function)
    o  what a script wrote to standard output            e  how the program ended (_end)
    x  why the sandbox itself failed

Few imports: they cost every program its start.
"""

import fcntl
import gc
import marshal
import os
import resource
import select
import struct
import sys
import time

from rlvr_limit.grading.sandbox import linux, program

TICK_SECONDS, BUSY_SECONDS, SLACK_SECONDS = 0.1, 0.01, 2.0
STACK_BYTES, DESCRIPTORS = 120 << 20, 64
CHUNK, DETAIL_BYTES, BROKEN = 1 << 20, 200, 117
SIGKILL, SIGXCPU = 9, 24


def main() -> None:
    """Reads the job, runs it and exits."""
    try:
        linux.die_with_parent()
        job = marshal.loads(_read_exactly(0, *struct.unpack("!Q", _read_exactly(0, 8))))
        if os.getppid() == job["parent"]:
            _launch(job)
    except BaseException as error:
        place = error.__traceback__
        while place.tb_next:
            place = place.tb_next
        _send("x", f"{type(error).__name__}: {error} ({place.tb_frame.f_code.co_name}, {place.tb_lineno})".encode())
    os._exit(0)


def _launch(job: dict) -> None:
    sys.path[:] = job["path"]
    # Before anything is closed off: names that the program's texts mention are imported once for all its tests.
    for name in job["modules"]:
        __import__(name)
    if "random" in sys.modules:
        sys.modules["random"].seed(0)
    missing = _confine(job)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        return
    linux.die_with_parent()
    linux.hide_memory()
    _send("h", ",".join(missing).encode())
    gc.freeze()
    if job["entry"]:
        _supervise_calls(job)
    else:
        _supervise_scripts(job)


def _confine(job: dict) -> list[str]:
    """Enters the namespaces; what cannot be had is returned by name. Sets the job's folder and uid."""
    missing, without = [], job["without"]
    job["uid"] = job["first_uid"] + os.getpid()
    alone = "own user" not in without and linux.can_become(job["uid"])
    try:
        if "namespaces" in without:
            raise OSError("not asked for")
        linux.enter_namespaces()
    except OSError:
        missing.append("namespaces")
        os.chdir(job["folder"])
        # Another user may not be able to read the interpreter's own modules where they lie.
        alone = alone and all(map(linux.is_readable_by_all, job["readable"]))
    else:
        job["folder"] = linux.private_root(job["readable"], job["disk_bytes"], job["files"])
    if not alone:
        job["uid"] = None
        # Without root a user namespace, in which nothing of the user's can be reached, does as well.
        missing += ["own user"] if "namespaces" in missing else []
    job["file_rules"] = "namespaces" in missing and "file rules" not in without and linux.has_file_rules()
    if "namespaces" in missing and not job["file_rules"]:
        missing.append("file rules")
        if "own user" in missing and os.geteuid() == 0:
            raise OSError("refused: nothing here would keep a program from changing any file as root")
    if "filter" in without or not linux.has_filter():
        missing.append("filter")
    job["filter"] = "filter" not in missing
    return missing


def _supervise_calls(job: dict) -> None:
    cpu = [min(seconds, job["total_cpu_seconds"]) for seconds in job["cpu_seconds"]] or [job["total_cpu_seconds"]]
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, CHUNK)
    nothing = os.open("/dev/null", os.O_RDWR)

    def run() -> int:
        return program.call_function(job["prelude"], job["program"], job["entry"], job["inputs"], writing, cpu)

    _end(0, *_watched(job, run, (nothing, nothing, nothing, writing), cpu, job["total_cpu_seconds"], reading))


def _supervise_scripts(job: dict) -> None:
    left = job["total_cpu_seconds"]
    for index, text in enumerate(job["inputs"]):
        seconds = min(job["cpu_seconds"][index], left)
        if seconds <= 0:
            _end(index, 0, 0, 0.0, "cpu")
            return
        given, written, errors = _memory_file(text), _memory_file(b""), _memory_file(b"")

        def run(cpu: float = seconds) -> int:
            return program.run_script(job["prelude"], job["program"], cpu)

        code, signal, used, cause = _watched(job, run, (given, written, errors), [seconds], seconds + 2)
        _send("o", os.pread(written, job["output_bytes"], 0))
        size = os.fstat(errors).st_size
        _end(index, code, signal, used, cause, os.pread(errors, DETAIL_BYTES, max(0, size - DETAIL_BYTES)))
        for descriptor in (given, written, errors):
            os.close(descriptor)
        left -= used


def _end(index: int, code: int, signal: int, used: float, cause: str, detail: bytes = b"") -> None:
    _send("e", f"{index}\t{code}\t{signal}\t{used:.3f}\t{cause}\t".encode() + detail)


def _watched(
    job: dict, run: object, kept: tuple[int, ...], limits: list[float], total: float, results: int = -1
) -> tuple[int, int, float, str]:
    """Forks, confines and runs the program on the descriptors `kept`, and watches it until it has ended.

    Returns its exit code, the signal that ended it, its CPU seconds, and why it was ended: "" if it was not. limits:
    the CPU seconds of its inputs, which the kernel holds it to. total: of all together.
    """
    pid = os.fork()
    if not pid:
        _become_program(job, run, kept, total)
    watch, clock = os.pidfd_open(pid), ((~pid) << 3) | 2
    poll = select.poll()
    poll.register(0, 0)
    poll.register(watch, select.POLLIN)
    if results >= 0:
        os.close(kept[-1])
        poll.register(results, select.POLLIN)
    cause, sent, seen, looks, last_result = "", 0, 0.0, 0, 0.0
    while True:
        events = dict(poll.poll(TICK_SECONDS * 1000))
        if 0 in events:  # the parent is gone
            cause = "stopped"
        if results in events:
            data = os.read(results, CHUNK)
            sent += len(data)
            if not data:
                poll.unregister(results)
            elif sent > job["output_bytes"]:
                cause = "output"
            else:
                _send("v", data)
                if b"\n" in data:
                    last_result = time.clock_gettime(clock)
                continue
        if not events:
            # Idle: so many looks in a row find no progress of its CPU clock. On a busy machine the looks come late as
            # well, so that waiting for a processor is no idling.
            used = time.clock_gettime(clock)
            looks = 0 if used - seen > BUSY_SECONDS else looks + 1
            seen = used if not looks else seen
            if looks * TICK_SECONDS >= job["idle_seconds"]:
                cause = "idle"
            elif used - last_result > max(limits) + SLACK_SECONDS:  # it evades the kernel's limit
                cause = "cpu"
            elif job["file_rules"] and _bytes_below(job["folder"]) > job["disk_bytes"]:
                cause = "disk"
        if cause or watch in events:
            break
    if cause:
        os.kill(pid, SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    os.close(watch)
    used = usage.ru_utime + usage.ru_stime
    signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0
    if not cause and signal in (SIGXCPU, SIGKILL) and used > 0.9 * min(limits):
        cause = "cpu"
    if code == BROKEN:
        raise OSError("the program's process could not be confined")
    return code, signal, used, cause


def _become_program(job: dict, run: object, kept: tuple[int, ...], cpu: float) -> None:
    """Never returns: this process is the program from here on."""
    code = BROKEN
    try:
        for place, descriptor in enumerate(kept[:3]):
            os.dup2(descriptor, place)
        last = kept[3] if len(kept) > 3 else 2
        os.closerange(3, last)
        os.closerange(last + 1, 4 * DESCRIPTORS)
        linux.set_limit(resource.RLIMIT_CPU, int(cpu) + 1)
        linux.set_limit(resource.RLIMIT_AS, job["memory_bytes"])
        linux.set_limit(resource.RLIMIT_FSIZE, job["output_bytes"])
        linux.set_limit(resource.RLIMIT_NOFILE, DESCRIPTORS)
        linux.set_limit(resource.RLIMIT_STACK, STACK_BYTES)
        linux.set_limit(resource.RLIMIT_CORE, 0)
        if job["uid"] is not None:
            linux.become_user(job["uid"], job["folder"], job["threads"])
            linux.die_with_parent()
        linux.drop_capabilities()
        if job["file_rules"]:
            linux.allow_files_only(job["readable"], job["folder"])
        if job["filter"]:
            linux.filter_system_calls()
        code = 1
        code = run()
    finally:
        # Whatever was raised, and whatever the program has done to this interpreter.
        os._exit(code)


def _bytes_below(folder: str) -> int:
    """Size of what lies in the folder, where no file system of its own bounds it."""
    return sum(os.lstat(f"{place}/{name}").st_blocks * 512 for place, _, names in os.walk(folder) for name in names)


def _memory_file(content: bytes) -> int:
    descriptor = os.memfd_create("program")
    _write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _send(kind: str, content: bytes) -> None:
    _write(1, kind.encode() + struct.pack("!I", len(content)) + content)


def _write(descriptor: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]


def _read_exactly(descriptor: int, size: int) -> bytes:
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            raise EOFError("the job was cut short")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


if __name__ == "__main__":
    main()
