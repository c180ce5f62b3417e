"""Live progress: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.folders import append_line

LINE_SECONDS = 5.0


class Outlook:
    """What a study has still to draw of each arm and to score, and how long that takes."""

    def __init__(self, lacking: Mapping[str, int], to_score: int):
        self._lacking, self._to_score = dict(lacking), to_score
        self._seconds_each: dict[str, float] = {}

    def seconds_left(self, arm: str, drawn: int, seconds_each: float) -> float:
        """Seconds to the end of the study, where `drawn` more samples of an arm took so long each.

        An arm that was not drawn yet is taken to be as slow as the others. Scoring counts as drawing would: an upper
        bound, as a model that is given a text reads its weights once for all tokens.
        """
        pace = self._seconds_each | {arm: seconds_each}
        typical = sum(pace.values()) / len(pace)
        lacking = self._lacking | {arm: self._lacking[arm] - drawn}
        return sum(n * pace.get(name, typical) for name, n in lacking.items()) + self._to_score * typical

    def need_not_draw(self, arm: str, samples: int) -> None:
        """Takes into account that so many samples of an arm came from elsewhere."""
        self._lacking[arm] -= min(samples, self._lacking[arm])

    def drew(self, arm: str, drawn: int, seconds_each: float | None) -> None:
        """Takes into account that so many samples of an arm were drawn, and how long each took, where that is known."""
        self._lacking[arm] -= drawn
        if seconds_each is not None:
            self._seconds_each[arm] = seconds_each


class Progress:
    """One stage of work: units done of total, rate, time left, and the few numbers that matter now."""

    def __init__(
        self,
        root: Place,
        stage: str,
        total: int,
        unit: str,
        done: int = 0,
        shown: bool = True,
        study_left: Callable[[int, float], float] | None = None,
        at_once: int = 1,
    ):
        """done units were there already and do not count for the rate; the stage's seconds end in timings.jsonl.

        Of the hosts of a run only one shows progress and keeps the seconds. study_left: from the units done in this
        stage and the seconds that each took, the seconds to the end of the whole study. at_once: units that are worked
        on side by side; before so many are done, their pace is not known.
        """
        self._at_once, self._pace_began = at_once, 0.0
        self._study_left = study_left
        self._is_shown = shown
        self._root, self._stage, self._total, self._unit = root, stage, total, unit
        self._first, self.done = done, done
        self._values: dict[str, float | int | str] = {}
        self._began = self._spoke = time.monotonic()
        self._bar = None
        if shown and sys.stdout.isatty():
            self._bar = RichProgress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
                TextColumn("{task.fields[values]}", style="dim"),
                console=Console(),
            )

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(self._stage, total=self._total, completed=self.done, **self._fields())
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        seconds = time.monotonic() - self._began
        if self._bar:
            self._bar.update(self._task, completed=self.done, **self._fields())
            self._bar.stop()
        elif kind is None and self._is_shown:
            self._line()
        if not self._is_shown:
            return
        line = json.dumps({"stage": self._stage, "seconds": round(seconds, 2)})
        append_line(self._root / "timings.jsonl", line)

    def update(self, done: int, **values: float | int | str) -> None:
        """Shows the state; cheap enough to call for every unit."""
        self.done, self._values = done, values
        if not self._is_shown:
            return
        now = time.monotonic()
        if now - self._spoke < (0.2 if self._bar else LINE_SECONDS):
            return
        self._spoke = now
        if self._bar:
            self._bar.update(self._task, completed=done, **self._fields())
        else:
            self._line()

    def begin_pace(self) -> None:
        """What was done before, such as compiling, is no part of the pace. The first call counts."""
        self._pace_began = self._pace_began or time.monotonic()

    @property
    def seconds_each(self) -> float | None:
        """The pace: seconds that a unit takes; None where too few are done to tell."""
        done = self.done - self._first
        if done < self._at_once:
            return None
        return (time.monotonic() - (self._pace_began or self._began)) / done

    def _fields(self) -> dict[str, Any]:
        return {"left": ", ".join(self._left()), "values": self._shown()}

    def _rate(self) -> float:
        return (self.done - self._first) / max(time.monotonic() - self._began, 1e-9)

    def _left(self) -> list[str]:
        """The time that the stage and the whole study still take, as far as this is known."""
        each, lacking = self.seconds_each, self._total - self.done
        if each is None:
            return []
        left = [f"{duration(lacking * each)} left"] if lacking else []
        if self._study_left:
            left.append(f"study {duration(self._study_left(self.done - self._first, each))} left")
        return left

    def _shown(self) -> str:
        values = [f"{name} {v:.3g}" if isinstance(v, float) else f"{name} {v}" for name, v in self._values.items()]
        return "  ".join([f"{self._rate():,.1f} {self._unit}/s", *values])

    def _line(self) -> None:
        elapsed = duration(time.monotonic() - self._began)
        state = ", ".join([f"{self._stage}: {self.done}/{self._total} {self._unit}", elapsed, *self._left()])
        print(f"{state}  {self._shown()}", flush=True)


def duration(seconds: float) -> str:
    """Seconds in the two largest units that they fill: "7 s", "4 min 10 s", "2 h 05 min", "3 d 4 h"."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if not minutes:
        return f"{whole} s"
    if not hours:
        return f"{minutes} min {whole % 60:02} s"
    return f"{hours} h {minutes % 60:02} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
