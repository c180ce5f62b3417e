"""The imported job: the page from files of samples that others drew, graded here."""

from __future__ import annotations

from rlvr_limit.evaluation.grade import give_second_opinions, grade_missing
from rlvr_limit.evaluation.others.importing import import_samples
from rlvr_limit.evaluation.results import write_report
from rlvr_limit.evaluation.review import own_agreement
from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import ImportedSettings


def run(settings: ImportedSettings) -> None:
    """Needs no accelerator and no weights. What is on record already is neither read nor graded again."""
    import_samples(settings)
    study = prepare(settings)
    grade_missing(study)
    give_second_opinions(study)
    print("\n".join(own_agreement(study)))
    page, lacking = write_report(study)
    print(f"report: {page.absolute()}{lacking}")
    study.hosts.close()
