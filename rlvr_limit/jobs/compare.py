"""The whole comparison: trains what is missing, then samples, grades, scores and reports."""

from __future__ import annotations

from ml_collections import ConfigDict

from rlvr_limit import records
from rlvr_limit.jobs.grade import grade_missing
from rlvr_limit.jobs.prepare import prepare
from rlvr_limit.jobs.report import write_report
from rlvr_limit.jobs.sample import sample_missing
from rlvr_limit.jobs.score import score_missing
from rlvr_limit.jobs.train import train_missing


def run(config: ConfigDict) -> None:
    """The compare job. Stages meet in files only, so each goes on where an earlier run of it was stopped."""
    experiment = prepare(config)
    print(f"run folder: {experiment.root}", flush=True)
    train_missing(experiment)
    sample_missing(experiment)
    grade_missing(experiment)
    if experiment.settings.sampling.adaptive:
        # The verdicts on the first stage say which problems have a second one.
        sample_missing(experiment)
        grade_missing(experiment)
    score_missing(experiment)
    for table in ("samples", "verdicts", "scores"):
        records.compact(experiment.root, table)
    print(f"report: {write_report(experiment).absolute()}")
