"""The whole comparison: trains what is missing, then samples, grades, scores and reports."""

from __future__ import annotations

from rlvr_limit import records
from rlvr_limit.evaluation.grade import give_second_opinions, grade_missing
from rlvr_limit.evaluation.interim import InterimPages
from rlvr_limit.evaluation.results import write_report
from rlvr_limit.evaluation.sample import sample_missing
from rlvr_limit.evaluation.score import score_missing
from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import Settings
from rlvr_limit.training.loop import train_missing


def run(settings: Settings) -> None:
    """The compare job. Stages meet in files only, so each goes on where an earlier run of it was stopped."""
    study = prepare(settings)
    if study.hosts.is_first:
        print(f"run folder: {study.root}", flush=True)
    train_missing(study)
    every = study.settings.report.every
    with InterimPages(lambda: write_report(study, refresh=every), every if study.hosts.is_first else 0):
        sample_missing(study)
        grade_missing(study)
        if study.settings.sampling.adaptive:
            # The verdicts on the first stage say which problems have a second one.
            sample_missing(study, "second stage")
            grade_missing(study, stage="second grade")
        score_missing(study)
        give_second_opinions(study)
    if study.hosts.is_first:
        for table in ("samples", "costs", "verdicts", "scores"):
            records.compact(study.root, table)
        page, lacking = write_report(study)
        print(f"report: {page.absolute()}{lacking}")
    study.hosts.close()
