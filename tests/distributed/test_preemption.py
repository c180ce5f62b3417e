"""Whenever the notice to go comes, the step that is last is kept before training stops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlvr_limit.distributed.preemption import Preempted
from rlvr_limit.records.training_log import training_rows
from rlvr_limit.training import loop
from tests.support.studies import algorithms_config, prepare_config

pytestmark = pytest.mark.usefixtures("compilation_cache")


class Late:
    """A notice that comes while nobody looks, before it is asked for the n-th time."""

    def __init__(self, n: int):
        self.left = n

    def __bool__(self) -> bool:
        self.left -= 1
        return self.left < 0

    def raise_if_preempted(self) -> None:
        if self:
            raise Preempted


def test_training_stops_with_the_last_step_kept_whenever_the_notice_comes(tmp_path: Path) -> None:
    config = algorithms_config(tmp_path, {})
    config.checkpoint_seconds = 1000.0
    for later in range(3):
        study = replace(prepare_config(config), notice=Late(later))
        with pytest.raises(Preempted):
            loop.train_missing(study)
        steps = len(training_rows(study.root, "base"))
        kept = [int(path.name) for path in (study.root / "train/base/states").iterdir() if path.name.isdigit()]
        assert max(kept) == steps
    assert steps == 1 + 2 + 3
