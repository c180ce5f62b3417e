"""The train job: the weights of every arm that is a recipe."""

from __future__ import annotations

from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import Settings
from rlvr_limit.training.loop import train_missing


def run(settings: Settings) -> None:
    """Every arm's weights are in the run folder when it returns."""
    study = prepare(settings)
    train_missing(study)
    study.hosts.close()
