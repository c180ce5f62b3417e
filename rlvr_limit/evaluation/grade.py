"""Gives a verdict on every stored sample that has none by the grader of this version. Needs no model.

As a job of its own (--config.job=grade) it also grades again what an older version of the grader has judged: the old
verdicts stay on record beside the new ones, and review/ in the run folder tells what changed. A second opinion is given
in the same way: verdicts under another name, that count nowhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from rlvr_limit import records
from rlvr_limit.grading.named import is_second_opinion
from rlvr_limit.grading.pool.pool import map_verdicts
from rlvr_limit.records.progress import Progress
from rlvr_limit.settings import Grading
from rlvr_limit.study.prepared import Study, Task
from rlvr_limit.types import Problem, UserError, Verdict

BATCH = 512


def grade_missing(study: Study, again: bool = False, stage: str = "grade") -> None:
    """Grades what sampling left ungraded. `again`: also what only another version of the grader has judged.

    Without it that is a UserError: verdicts that a reader has seen are not replaced unasked. Host 0 does it for all.
    """
    if study.hosts.is_first:
        with records.Writer(study.root, "verdicts") as verdicts:
            for entry in study.evaluated:
                _grade_arm(study, study.task, entry.name, again, verdicts)
    study.hosts.wait(stage)


def give_second_opinions(study: Study) -> None:
    """Verdicts of the task's second grader, if it has one, on all samples that have none by it. Host 0 does it."""
    second = study.task.second
    if study.hosts.is_first and second:
        task = dataclasses.replace(study.task, grade=second.grade, version=second.version, shorten=second.shorten)
        with records.Writer(study.root, "verdicts") as verdicts:
            for entry in study.evaluated:
                _grade_arm(study, task, entry.name, True, verdicts)
    study.hosts.wait("second opinion")


def verdict_row(arm: str, problem_id: str, index: int, grader: str, verdict: Verdict) -> dict:
    """A verdict as it stands in the records."""
    return {
        "arm": arm,
        "problem_id": problem_id,
        "index": index,
        "grader": grader,
        "correct": verdict.correct,
        "status": str(verdict.status),
        "extracted": verdict.extracted,
        "detail": verdict.detail,
    }


def _grade_arm(study: Study, task: Task, arm: str, again: bool, verdicts: records.Writer) -> None:
    grader = task.version
    have = records.existing(study.root, "verdicts", arm=arm, grader=grader)
    drawn = records.existing(study.root, "samples", arm=arm)
    if not any(indices - have.get(name, set()) for name, indices in drawn.items()):
        return
    if not again:
        _refuse_older(study, arm, have)
    stored = records.read(study.root, "samples", ["problem_id", "index", "text"], {"arm": arm}).to_pylist()
    keys = [(row["problem_id"], row["index"], row["text"]) for row in stored]
    todo = [key for key in keys if key[1] not in have.get(key[0], set())]
    problems = {problem.id: problem for problem in study.problems}
    given = _verdicts(task, study.settings.grading, ((problems[name], text) for name, _, text in todo))
    done, solved, waiting = len(stored) - len(todo), set(), []
    with Progress(
        study.root, f"grade {arm}" if task is study.task else f"grade {arm} by {grader}", len(stored), "samples", done
    ) as progress:
        for (name, index, _), verdict in zip(todo, given, strict=True):
            waiting.append(verdict_row(arm, name, index, grader, verdict))
            done += 1
            if verdict.correct:
                solved.add(name)
            if len(waiting) == BATCH:
                verdicts.append(waiting)
                waiting = []
                study.notice.raise_if_preempted()
            progress.update(done, solved=len(solved))
        verdicts.append(waiting)


def _refuse_older(study: Study, arm: str, have: dict[str, set[int]]) -> None:
    grader = study.task.version
    rows = records.read(study.root, "verdicts", ["problem_id", "index", "grader"], {"arm": arm}).to_pylist()
    older = {r["grader"] for r in rows if r["index"] not in have.get(r["problem_id"], set())}
    older = {version for version in older - {grader} if not is_second_opinion(version)}
    if older:
        raise UserError(
            f"arm {arm} has verdicts by {', '.join(sorted(older))}, this version grades as {grader}: "
            "--config.job=grade grades its samples again and keeps both"
        )


def _verdicts(task: Task, grading: Grading, items: Iterable[tuple[Problem, str]]) -> Iterator[Verdict]:
    if task.inline:
        return (task.grade(problem, text) for problem, text in items)
    return map_verdicts(task.grade, items, grading.workers, grading.seconds, task.shorten)
