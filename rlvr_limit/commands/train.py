"""The train job: the weights of every arm that is a recipe."""

from __future__ import annotations

from ml_collections import ConfigDict

from rlvr_limit.study.prepare import prepare
from rlvr_limit.training.loop import train_missing


def run(config: ConfigDict) -> None:
    """Every arm's weights are in the run folder when it returns."""
    study = prepare(config)
    train_missing(study)
    study.hosts.close()
