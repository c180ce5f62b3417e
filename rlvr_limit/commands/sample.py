"""The sample job: the samples that the run folder still lacks."""

from __future__ import annotations

from rlvr_limit.evaluation.sample import sample_missing
from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import Settings
from rlvr_limit.training.loop import train_missing


def run(settings: Settings) -> None:
    """n samples of every arm and problem are on record when it returns.

    With sampling.adaptive the second stage is drawn only where the first one is graded.
    """
    study = prepare(settings)
    train_missing(study)
    sample_missing(study)
    study.hosts.close()
