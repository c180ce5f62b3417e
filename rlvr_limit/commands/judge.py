"""The judge job: what a model says of the chains of thought behind right answers."""

from __future__ import annotations

from rlvr_limit.evaluation.others.judging import questions, told
from rlvr_limit.evaluation.sample import sample_missing
from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import Settings


def run(settings: Settings) -> None:
    """The judge has answered about every chain that it is to be asked about when it returns; job=report shows it."""
    study = prepare(settings)
    asked = questions(study)
    if asked:
        sample_missing(prepare(asked))
    print(told(study))
    study.hosts.close()
