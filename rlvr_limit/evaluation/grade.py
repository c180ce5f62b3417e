"""Gives a verdict on every stored sample that has none against its present reference by this grader. Needs no model.

A corrected reference, or another grading.seconds, asks for new verdicts whichever job grades.
As a job of its own (--config.job=grade) it also grades again what an older version of the grader has judged: the old
verdicts stay on record beside the new ones, and review/ in the run folder tells what changed. A second opinion is given
in the same way: verdicts under another name, that count nowhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from rlvr_limit import records
from rlvr_limit.grading.named import is_second_opinion, opinions
from rlvr_limit.grading.pool.pool import map_verdicts
from rlvr_limit.records.progress import Progress
from rlvr_limit.settings import Grading
from rlvr_limit.study.prepared import Study, Task
from rlvr_limit.study.verdicts import counted, references
from rlvr_limit.types import Problem, UserError, Verdict

BATCH, KEY = 512, ("problem_id", "index")


def grade_missing(study: Study, again: bool = False, stage: str = "grade") -> None:
    """Grades what sampling left ungraded. `again`: also what only another version of the grader has judged.

    Without it that is a UserError: verdicts that a reader has seen are not replaced unasked. Host 0 does it for all.
    """
    if study.hosts.is_first:
        with records.Writer(study.root, "verdicts") as verdicts:
            for entry in study.evaluated:
                _grade_arm(study, study.task, entry.name, again, verdicts)
    study.hosts.wait(stage)


def give_second_opinions(study: Study, all_of_them: bool = False) -> None:
    """Verdicts of the task's second grader, if it has one, on all samples that have none by it. Host 0 does it.

    all_of_them: also those of the second's own second, and so on.
    """
    if study.hosts.is_first:
        with records.Writer(study.root, "verdicts") as verdicts:
            seconds = opinions(study.task.second)
            for second in seconds if all_of_them else seconds[:1]:
                task = dataclasses.replace(
                    study.task, grade=second.grade, version=second.version, shorten=second.shorten
                )
                for entry in study.evaluated:
                    _grade_arm(study, task, entry.name, True, verdicts)
    study.hosts.wait("second opinion")


def verdict_row(arm: str, problem_id: str, index: int, grader: str, against: str, verdict: Verdict) -> dict:
    """A verdict as it stands in the records."""
    return {
        "arm": arm,
        "problem_id": problem_id,
        "index": index,
        "grader": grader,
        "against": against,
        "correct": verdict.correct,
        "status": str(verdict.status),
        "extracted": verdict.extracted,
        "detail": verdict.detail,
    }


def _grade_arm(study: Study, task: Task, arm: str, again: bool, verdicts: records.Writer) -> None:
    given = counted(study, arm, KEY, task)
    have = set(zip(*(given[name].to_pylist() for name in KEY), strict=True))
    drawn = records.existing(study.root, "samples", arm=arm)
    # Others' samples may be of problems that another arm lacks.
    problems = {problem.id: problem for problem in study.problems}
    if all((name, index) in have for name in drawn.keys() & problems.keys() for index in drawn[name]):
        return
    if not again:
        _refuse_older(study, arm)
    stored = records.read(study.root, "samples", [*KEY, "text"], {"arm": arm, "problem_id": list(problems)})
    todo = [
        key for key in zip(*(stored[name].to_pylist() for name in (*KEY, "text")), strict=True) if key[:2] not in have
    ]
    against = references(study, task)
    given = _verdicts(task, study.settings.grading, ((problems[name], text) for name, _, text in todo))
    done, solved, waiting = stored.num_rows - len(todo), set(), []
    stage = f"grade {arm}" if task is study.task else f"grade {arm} by {task.version}"
    with Progress(study.root, stage, stored.num_rows, "samples", done) as progress:
        for (name, index, _), verdict in zip(todo, given, strict=True):
            waiting.append(verdict_row(arm, name, index, task.version, against[name], verdict))
            done += 1
            if verdict.correct:
                solved.add(name)
            if len(waiting) == BATCH:
                verdicts.append(waiting)
                waiting = []
                study.notice.raise_if_preempted()
            progress.update(done, solved=len(solved))
        verdicts.append(waiting)


def _refuse_older(study: Study, arm: str) -> None:
    """UserError where only other versions have judged a sample. Verdicts of this one, on any reference, are no bar."""
    rows = records.read(study.root, "verdicts", [*KEY, "grader"], {"arm": arm}).to_pylist()
    by_grader: dict[str, set[tuple[str, int]]] = {}
    for row in rows:
        by_grader.setdefault(row["grader"], set()).add((row["problem_id"], row["index"]))
    ours = by_grader.pop(study.task.version, set())
    older = sorted(version for version, keys in by_grader.items() if keys - ours and not is_second_opinion(version))
    if older:
        raise UserError(
            f"arm {arm} has verdicts by {', '.join(older)}, this version grades as {study.task.version}: "
            "--config.job=grade grades its samples again and keeps both"
        )


def _verdicts(task: Task, grading: Grading, items: Iterable[tuple[Problem, str]]) -> Iterator[Verdict]:
    if task.inline:
        return (task.grade(problem, text) for problem, text in items)
    return map_verdicts(task.grade, items, grading.workers, grading.seconds, task.shorten)
