"""Live progress: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.folders import append_line

LINE_SECONDS = 5.0


class Progress:
    """One stage of work: units done of total, rate, time left, and the few numbers that matter now."""

    def __init__(self, root: Place, stage: str, total: int, unit: str, done: int = 0, shown: bool = True):
        """done units were there already and do not count for the rate; the stage's seconds end in timings.jsonl.

        Of the hosts of a run only one shows progress and keeps the seconds.
        """
        self._is_shown = shown
        self._root, self._stage, self._total, self._unit = root, stage, total, unit
        self._first, self._done = done, done
        self._values: dict[str, float | int | str] = {}
        self._began = self._spoke = time.monotonic()
        self._bar = None
        if shown and sys.stdout.isatty():
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[values]}", style="dim"),
                console=Console(),
            )

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self._stage, total=self._total, completed=self._done, values="")
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        seconds = time.monotonic() - self._began
        if self._bar:
            self._bar.update(self._task, completed=self._done, values=self._shown())
            self._bar.stop()
        elif kind is None and self._is_shown:
            self._line()
        if not self._is_shown:
            return
        line = json.dumps({"stage": self._stage, "seconds": round(seconds, 2)})
        append_line(self._root / "timings.jsonl", line)

    def update(self, done: int, **values: float | int | str) -> None:
        """Shows the state; cheap enough to call for every unit."""
        self._done, self._values = done, values
        if not self._is_shown:
            return
        now = time.monotonic()
        if now - self._spoke < (0.2 if self._bar else LINE_SECONDS):
            return
        self._spoke = now
        if self._bar:
            self._bar.update(self._task, completed=done, values=self._shown())
        else:
            self._line()

    def _rate(self) -> float:
        return (self._done - self._first) / max(time.monotonic() - self._began, 1e-9)

    def _shown(self) -> str:
        values = [f"{name} {v:.3g}" if isinstance(v, float) else f"{name} {v}" for name, v in self._values.items()]
        return "  ".join([f"{self._rate():,.1f} {self._unit}/s", *values])

    def _line(self) -> None:
        rate, lacking = self._rate(), self._total - self._done
        left = f", {lacking / rate:.0f} s left" if rate > 0 and lacking else ""
        elapsed = time.monotonic() - self._began
        state = f"{self._stage}: {self._done}/{self._total} {self._unit}, {elapsed:.0f} s{left}"
        print(f"{state}  {self._shown()}", flush=True)
