"""Runs one untrusted program in a process that is already confined. Standard library only.

What is here shares its interpreter with the program, which may do to it what it likes: it can only spoil its own
results. Nothing here knows what a right result is.
"""

import atexit
import builtins
import io
import marshal
import math
import os
import resource
import sys

from rlvr_limit.grading.sandbox import encode

DETAIL_LENGTH = 200
FAILED = 1


def call_function(prelude: str, program: str, entry: str, inputs: list[bytes], results: int, cpu: list[float]) -> int:
    """Calls `entry` (a name, or Class.method of a fresh object) on each input; writes a line for each to `results`.

    An input is the arguments, as marshal has them (they come from the parent). A line is `index seconds v JSON` or
    `index seconds x JSON of what was raised`; index -1 is loading the program. cpu[i] is the limit of input i in CPU
    seconds, after which the kernel sends SIGXCPU.
    """

    def send(index: int, began: float, kind: str, text: str) -> None:
        view = memoryview(f"{index} {_cpu() - began:.4f} {kind} {text}\n".encode())
        while view:
            view = view[os.write(results, view) :]

    began = _start_clock(max(cpu))
    try:
        module = _module("solution")
        _run(prelude, program, module)
        name, _, method = entry.partition(".")
        function = getattr(module, name)
        function = getattr(function(), method) if method else function
    except BaseException as error:
        send(-1, began, "x", _describe(error))
        return FAILED
    for index, line in enumerate(inputs):
        arguments = marshal.loads(line)
        began = _start_clock(cpu[index])
        try:
            text = encode.dumps_or_digest(function(*arguments))
        except BaseException as error:
            send(index, began, "x", _describe(error))
        else:
            send(index, began, "v", text)
    return 0


def run_script(prelude: str, program: str, cpu: float) -> int:
    """Runs the program as a script on descriptors 0 and 1; its exit code, in which SystemExit counts as 0."""
    _start_clock(cpu)
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    raw = io.BufferedWriter(io.FileIO(1, "w", closefd=False))
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(raw, encoding="utf-8")
    code = 0
    try:
        module = _module("__main__")
        _run(prelude, program, module)
    except SystemExit:
        pass
    except BaseException as error:
        code = FAILED
        os.write(2, _describe(error).encode())
    # As at the end of any script: other threads finish, atexit's functions run, what is buffered is written.
    if "threading" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    return code


def _run(prelude: str, program: str, module: object) -> None:
    # As one text, like the evaluators, and without the compiler's flags of this file: a program has the future imports
    # that it may have there, and no other.
    text = f"{prelude}\n{program}" if prelude else program
    exec(compile(text, "<program>", "exec", dont_inherit=True), module.__dict__)


def _module(name: str) -> object:
    """A fresh module of that name; exit and quit are there as in any script."""
    builtins.exit = builtins.quit = sys.exit
    module = sys.modules[name] = type(sys)(name)
    module.__dict__["__builtins__"] = builtins
    return module


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _start_clock(seconds: float) -> float:
    """The CPU seconds used so far, after which `seconds` more may be used."""
    used = _cpu()
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(used + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))
    return used


def _describe(error: BaseException) -> str:
    """JSON of the exception's name and text."""
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:  # the program's own exception, whose text it has made to fail
        text = type(error).__name__
    return encode.dumps(text[:DETAIL_LENGTH])
