"""The score job: log-likelihoods of stored samples under each arm."""

from __future__ import annotations

from rlvr_limit.evaluation.score import score_missing
from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import Settings
from rlvr_limit.training.loop import train_missing


def run(settings: Settings) -> None:
    """Every score that the config asks for is on record when it returns."""
    study = prepare(settings)
    train_missing(study)
    score_missing(study)
    study.hosts.close()
