"""The score job: log-likelihoods of stored samples under each arm."""

from __future__ import annotations

from ml_collections import ConfigDict

from rlvr_limit.evaluation.score import score_missing
from rlvr_limit.study.prepare import prepare
from rlvr_limit.training.loop import train_missing


def run(config: ConfigDict) -> None:
    """Every score that the config asks for is on record when it returns."""
    study = prepare(config)
    train_missing(study)
    score_missing(study)
    study.hosts.close()
