"""The report job: the page, figures and tables from the records alone."""

from __future__ import annotations

from rlvr_limit.evaluation.results import write_report
from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import Settings


def run(settings: Settings) -> None:
    """Needs no accelerator, no weights and no complete samples: a page that lacks some says so."""
    study = prepare(settings)
    if study.hosts.is_first:
        page, lacking = write_report(study)
        print(f"report: {page.absolute()}{lacking}")
    study.hosts.close()
