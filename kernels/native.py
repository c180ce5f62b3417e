"""Kernels for XLA:CPU in C++ (kernels/*/cpu.cc): built for this machine by its own compiler on first use, kept in the
user's cache, and called as custom calls of XLA.

Machines without a compiler compute the same in plain XLA, which is said once.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock

import jax

FLAGS = ("-std=c++20", "-O3", "-march=native", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared", "-w")
COMPILERS = ("c++", "g++", "clang++")
NAMES = ("rlvr_decode_attention", "rlvr_draw", "rlvr_matmul", "rlvr_put", "rlvr_take")


class BuildError(Exception):
    """Says why there is no library."""


_ONE_AT_A_TIME = Lock()
"""Programs may be traced in several threads."""


def library() -> Path | None:
    """Where the built kernels lie, which are then registered with XLA; None where programs are not the CPU's.

    Logs a warning that says why where a CPU has to do without them.
    """
    with _ONE_AT_A_TIME:
        return _found()


@cache
def _found() -> Path | None:
    if jax.default_backend() != "cpu":
        return None
    try:
        path = built(compiler(), cache_folder())
        loaded = ctypes.CDLL(str(path))
    except (BuildError, OSError) as why:
        logging.getLogger(__name__).warning(
            "attention, products, drawing and copies run in plain XLA, which is slower: their C++ was not built: %s",
            why,
        )
        return None
    for name in NAMES:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(loaded, name)), platform="cpu")
    return path


def ready() -> bool:
    """Whether the kernels can be called; the first question builds them (seconds)."""
    return library() is not None


def multiplies() -> bool:
    """Whether the matrix product in C++ is one for this processor."""
    path = library()
    return path is not None and bool(ctypes.CDLL(str(path)).rlvr_multiplies())


def compiler() -> str:
    """$CXX if that is set, else the first that there is. Raises BuildError."""
    names = (os.environ["CXX"],) if os.environ.get("CXX") else COMPILERS
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise BuildError(f"found none of {', '.join(names)}; $CXX may name a C++20 compiler")
    return path


def cache_folder() -> Path:
    """Where libraries are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlvr_limit"


def built(compiler: str, folder: Path) -> Path:
    """The library of these sources, this compiler and this processor; compiled (seconds) unless it lies in folder.

    Raises BuildError with what the compiler said, OSError where folder cannot be written.
    """
    here = Path(__file__).resolve().parent
    sources, headers = sorted(here.glob("*/cpu.cc")), sorted(here.rglob("*.h"))
    include = [f"-I{here.parent}", f"-I{jax.ffi.include_dir()}"]
    # Names the compiler's version and all that -march=native found.
    target = _run([compiler, *FLAGS, "-dM", "-E", "-x", "c++", os.devnull])
    texts = [version("jaxlib"), " ".join(FLAGS), target, *(p.read_text() for p in [*headers, *sources])]
    library = folder / f"{hashlib.sha256(chr(0).join(texts).encode()).hexdigest()[:16]}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        # Other processes may build it too: each renames its own, whole.
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / library.name
            _run([compiler, *FLAGS, *include, *map(str, sources), "-o", str(made)])
            made.replace(library)
    return library


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
        raise BuildError(f"{command[0]} ended with {done.returncode}: {errors[0]}")
    return done.stdout
