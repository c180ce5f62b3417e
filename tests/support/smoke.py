"""Runs main.py: the smoke config as a user would, in a process of its own; any config in this process."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax

import main

VIRTUAL_DEVICES = "--xla_force_host_platform_device_count"
REPOSITORY = Path(__file__).resolve().parents[2]


def command(runs: Path, *overrides: str) -> list[str]:
    """The command line of the smoke config with its run folders under `runs`; each draws its own samples."""
    usual = ["--config=configs/countdown_smoke.py", f"--config.runs={runs}", "--config.share_samples=False"]
    return [sys.executable, "main.py", *usual, *(f"--config.{o}" for o in overrides)]


def environment() -> dict[str, str]:
    """Without the tests' virtual devices, as at a user's desk."""
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(VIRTUAL_DEVICES)]
    return {**os.environ, "XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}


def run(runs: Path, *overrides: str, largest_file: int | None = None) -> subprocess.CompletedProcess[str]:
    """Runs to the end; the caller looks at the exit code. largest_file bounds every file, in units of 512 bytes."""
    words = command(runs, *overrides)
    if largest_file is not None:
        words = ["sh", "-c", f'ulimit -f {largest_file}; exec "$@"', "sh", *words]
    return subprocess.run(words, cwd=REPOSITORY, env=environment(), capture_output=True, text=True)


def run_here(*words: str) -> subprocess.CompletedProcess[str]:
    """main.py with these words in this process, which has imported everything: three seconds less than a new one."""
    out, err, before = io.StringIO(), io.StringIO(), jax.config.jax_compilation_cache_dir
    try:
        with contextlib.chdir(REPOSITORY), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main.main(["main.py", *words])
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())


def run_smoke_here(runs: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """The smoke config in this process."""
    return run_here(*command(runs, *overrides)[2:])


def share_compiled(runs: Path) -> Path:
    """A folder for runs, in which they find what any test has compiled before."""
    (runs / ".compiled").symlink_to(os.environ["JAX_COMPILATION_CACHE_DIR"])
    return runs


def free_address() -> str:
    """An address of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def run_folder(output: str) -> Path:
    """The run folder that a compare job named."""
    return Path(re.search(r"^run folder: (.+)$", output, re.MULTILINE)[1])


def kill_when(runs: Path, ready: Callable[[str], bool], delay: float, *overrides: str) -> str:
    """Starts a run, waits until ready(output so far), then `delay` seconds, then kill -9; returns the output.

    Returns "" for a run that ended before it could be killed.
    """
    log = runs / f"killed-{time.monotonic_ns()}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command(runs, *overrides), cwd=REPOSITORY, env=environment(), stdout=file, stderr=file
        )
    while process.poll() is None and not ready(log.read_text()):
        time.sleep(0.02)
    time.sleep(delay)
    if process.poll() is not None:
        assert process.returncode == 0, log.read_text()
        return ""
    process.send_signal(signal.SIGKILL)
    process.wait()
    return log.read_text()
