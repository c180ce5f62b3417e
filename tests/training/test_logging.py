"""What is kept of training steps goes to Weights & Biases too where that is asked; a stub is its package here."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlvr_limit.records.training_log import training_rows
from rlvr_limit.training.logging import Metrics
from rlvr_limit.types import UserError


class Run:
    """What wandb.init returns."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict]] = []
        self.is_finished = False

    def log(self, row: dict, step: int) -> None:
        self.rows.append((step, row))

    def finish(self) -> None:
        self.is_finished = True


def test_rows_go_to_the_project_and_a_run_that_goes_on_keeps_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, asked = [], []

    def init(**options: object) -> Run:
        asked.append(options)
        runs.append(Run())
        return runs[-1]

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    root = tmp_path / "countdown"
    for done, steps in ((0, (1, 2, 3)), (2, (3,))):
        with Metrics(root, "grpo", done, "limits") as metrics:
            for step in steps:
                metrics.append(step, {"loss": 0.5 * step, "length": 4.0, "samples": 6}, seconds=2.0)
    assert [step for run in runs for step, _ in run.rows] == [1, 2, 3, 3]
    assert runs[0].rows[1][1] == {"loss": 1.0, "length": 4.0, "samples": 6, "seconds": 2.0, "tokens_per_s": 12.0}
    assert asked[0] == asked[1] and all(run.is_finished for run in runs)
    assert {k: asked[0][k] for k in ("project", "id", "resume")} == {
        "project": "limits",
        "id": "countdown-grpo",
        "resume": "allow",
    }
    assert [row["step"] for row in training_rows(root, "grpo")] == [1, 2, 3]


def test_without_a_project_nothing_is_asked_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace())
    with Metrics(tmp_path / "countdown", "grpo", 0) as metrics:
        metrics.append(1, {"loss": 1.0}, seconds=1.0)


def test_a_project_that_cannot_be_reported_to_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> Run:
        raise RuntimeError("api_key not configured\n(no-tty)")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    with pytest.raises(UserError) as raised:
        Metrics(tmp_path / "countdown", "grpo", 0, "limits")
    assert str(raised.value) == (
        "config.wandb: found 'limits', but it cannot be reported to: RuntimeError: api_key not configured (no-tty)"
    )
