"""What is kept of every training step: JSON lines, TensorBoard's events, and Weights & Biases where asked."""

from __future__ import annotations

import importlib
import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from tensorboardX import SummaryWriter

from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.files import publish
from rlvr_limit.records.storage.folders import Growing
from rlvr_limit.records.training_log import METRICS_FILE, training_rows
from rlvr_limit.types import UserError

SAMPLES_EVERY = 10
"""Steps between those of which a few answers are kept as text."""

PUT, PUT_SECONDS = (METRICS_FILE, "tensorboard/*"), 30.0
"""In an object store these files are put again so often, since nothing can be appended to them there."""


class Metrics:
    """Writes one row a step to metrics.jsonl and to the events of tensorboard/ in train/<arm>; a context manager.

    Rows after step `done` are dropped: those steps are about to be run again. project names a Weights & Biases project
    ("": none); UserError where its package is not installed or it cannot be reported to.
    """

    def __init__(self, root: Place, arm: str, done: int, project: str = ""):
        folder = root / "train" / arm
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._put = Growing(folder), time.monotonic()
        here = self._folder.here
        lines = "".join(json.dumps(row) + "\n" for row in training_rows(root, arm) if row["step"] <= done)
        publish(here / METRICS_FILE, lambda file: file.write(lines.encode()))
        self._run = _wandb_run(project, folder, here) if project else None
        self._board = SummaryWriter(str(here / "tensorboard"), purge_step=done + 1, write_to_disk=True)
        self._file = (here / METRICS_FILE).open("a")

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._board.close()
        if self._run:
            self._run.finish()
        self._folder.put(*PUT)
        self._folder.close()

    def append(self, step: int, row: dict[str, float], seconds: float) -> None:
        """The row of a step. Its seconds go to the boards only: a run that was killed has the same rows as another."""
        self._file.write(json.dumps({"step": step, **row}) + "\n")
        self._file.flush()
        timed = {**row, "seconds": seconds}
        if "length" in row:
            timed["tokens_per_s"] = row["length"] * row["samples"] / seconds
        for name, value in timed.items():
            self._board.add_scalar(name, value, step)
        if self._run:
            self._run.log(timed, step=step)
        if time.monotonic() - self._put > PUT_SECONDS:
            self.put()

    def put(self) -> None:
        """In an object store: all rows so far are there when it returns, as they must be before a state counts."""
        self._put = time.monotonic()
        self._board.flush()
        self._folder.put(*PUT)


def write_samples(folder: Place, step: int, rows: list[dict[str, Any]]) -> None:
    """A few answers of a step with what they earned, one JSON line each, as samples/<step>.jsonl of train/<arm>."""
    folder = folder / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{step:06}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _wandb_run(project: str, folder: Place, here: Path) -> Any:
    try:
        wandb = importlib.import_module("wandb")
    except ImportError as error:
        raise UserError(f"config.wandb: found {project!r}, but its package is missing: pip install wandb") from error
    # The same name after a kill continues the same run.
    name = f"{folder.parent.parent.name}-{folder.name}"
    try:
        return wandb.init(project=project, id=name, name=name, resume="allow", dir=str(here))
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"config.wandb: found {project!r}, but it cannot be reported to: {said}") from error
