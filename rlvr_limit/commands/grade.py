"""The grade job: verdicts of this grader version on all stored samples, and what a person should look at."""

from __future__ import annotations

from rlvr_limit.evaluation.grade import give_second_opinions, grade_missing
from rlvr_limit.evaluation.review import write_review
from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import Settings


def run(settings: Settings) -> None:
    """Grades again what an older grader judged; older verdicts stay on record. Prints what review/ says in short."""
    study = prepare(settings)
    grade_missing(study, again=True)
    give_second_opinions(study, all_of_them=True)
    if study.hosts.is_first:
        print("\n".join(write_review(study)))
    study.hosts.close()
