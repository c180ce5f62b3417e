"""The report job: the page, figures and tables from the records alone."""

from __future__ import annotations

from rlvr_limit.evaluation.results import write_report
from rlvr_limit.settings import Settings
from rlvr_limit.study.prepare import prepare


def run(settings: Settings) -> None:
    """Needs no accelerator and no weights."""
    study = prepare(settings)
    if study.hosts.is_first:
        print(f"report: {write_report(study).absolute()}")
    study.hosts.close()
