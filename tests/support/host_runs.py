"""Runs of the smoke config that several processes of this machine share."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.support import smoke


def start_hosts(runs: Path, count: int, *overrides: str) -> list[subprocess.Popen]:
    """The processes of a run, host 0 first; each writes to host-<index>.log."""
    common = (f"hosts.coordinator={smoke.free_address()}", f"hosts.count={count}", "hosts.patience=6", *overrides)
    processes = []
    for index in range(count):
        with (runs / f"host-{index}.log").open("w") as log:
            words = smoke.command(runs, *common, f"hosts.index={index}")
            processes.append(
                subprocess.Popen(words, cwd=smoke.REPOSITORY, env=smoke.environment(), stdout=log, stderr=log)
            )
    return processes


def ended(processes: list[subprocess.Popen], seconds: float = 300) -> list[int]:
    return [process.wait(timeout=seconds) for process in processes]


def log(runs: Path, index: int) -> str:
    return (runs / f"host-{index}.log").read_text()


def copy_of_trained(smoke_run: Path, runs: Path) -> Path:
    """A copy of a run folder with its weights and without its records."""
    root = runs / smoke_run.parent.name / smoke_run.name
    for part in ("weights", "train"):
        shutil.copytree(smoke_run / part, root / part)
    smoke.share_compiled(runs)
    return root


def killed(processes: list[subprocess.Popen], runs: Path, who: int, delay: float) -> None:
    """kill -9 of one host, `delay` seconds after the first samples."""
    while processes[0].poll() is None and "sample base" not in log(runs, 0):
        time.sleep(0.02)
    time.sleep(delay)
    processes[who].send_signal(signal.SIGKILL)
