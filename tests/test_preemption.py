"""Whenever the notice to go comes, the step that is last is kept before training stops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from test_algorithms import config_of

from rlvr_limit.jobs import train
from rlvr_limit.jobs.metrics import training_rows
from rlvr_limit.jobs.preemption import Preempted
from rlvr_limit.jobs.prepare import prepare

pytestmark = pytest.mark.usefixtures("compilation_cache")


class Late:
    """A notice that comes while nobody looks, before it is asked for the n-th time."""

    def __init__(self, n: int):
        self.left = n

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0

    def heed(self) -> None:
        if self:
            raise Preempted


def test_training_stops_with_the_last_step_kept_whenever_the_notice_comes(tmp_path: Path) -> None:
    config = config_of(tmp_path, {})
    config.checkpoint_seconds = 1000.0
    for later in range(3):
        experiment = replace(prepare(config), notice=Late(later))
        with pytest.raises(Preempted):
            train.train_missing(experiment)
        steps = len(training_rows(experiment.root, "base"))
        kept = [int(path.name) for path in (experiment.root / "train/base/states").iterdir() if path.name.isdigit()]
        assert max(kept) == steps
    assert steps == 1 + 2 + 3
