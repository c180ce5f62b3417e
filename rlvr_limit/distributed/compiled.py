"""What this machine has compiled, kept for processes to come, and how long the first token waited for it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

RUNS = Path("runs")


def keep_compiled(runs: Path = RUNS) -> None:
    """jax keeps programs in runs/.compiled, and finds them there: what was compiled fits this machine only."""
    jax.config.update("jax_compilation_cache_dir", str((runs / ".compiled").absolute()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


class FirstToken:
    """Says once how long after the start of the process the first token was there, and what took how long until then.

    Compiling counts what is read from the cache on disk too, and what threads do side by side for each of them.
    """

    def __init__(self, shown: bool):
        # Elsewhere a process's age is not to be had from the standard library.
        self._is_due, self._windows = shown and sys.platform == "linux", 0
        self._seconds = {"weights": 0.0, "compiling": 0.0}
        jax.monitoring.register_event_duration_secs_listener(self._hear)

    def load(self, weights: Callable[..., Any], *args: Any) -> Any:
        """weights(*args), timed."""
        began = time.monotonic()
        params = weights(*args)
        self._seconds["weights"] += time.monotonic() - began
        return params

    def window_begins(self) -> None:
        """The tokens of a window are here when the next one begins."""
        self._windows += 1
        if self._windows > 1:
            self.is_here()

    def is_here(self) -> None:
        """The first token is here, if not before."""
        if self._is_due:
            self._is_due = False
            took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self._seconds.items())
            print(f"first token after {_seconds_since_start():.1f} s ({took})", flush=True)

    def _hear(self, event: str, seconds: float, **_: str) -> None:
        if self._is_due and event.endswith(("/jaxpr_to_mlir_module_duration", "/backend_compile_duration")):
            self._seconds["compiling"] += seconds


def _seconds_since_start() -> float:
    """The age of this process, on Linux."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
