"""Gives a verdict on every stored sample that has none by the grader of this version. Needs no model.

As a job of its own (--config.job=grade) it also grades again what an older version of the grader has judged: the old
verdicts stay on record beside the new ones, and review/ in the run folder tells what changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rlvr_limit import records
from rlvr_limit.evaluation.sample import verdict_row
from rlvr_limit.grading.pool.pool import map_verdicts
from rlvr_limit.records.progress import Progress
from rlvr_limit.study.prepared import Study
from rlvr_limit.types import Problem, UserError, Verdict

BATCH = 512


def grade_missing(study: Study, again: bool = False, stage: str = "grade") -> None:
    """Grades what sampling left ungraded. `again`: also what only another version of the grader has judged.

    Without it that is a UserError: verdicts that a reader has seen are not replaced unasked. Host 0 does it for all.
    """
    if study.hosts.is_first:
        _grade(study, again)
    study.hosts.wait(stage)


def _grade(study: Study, again: bool) -> None:
    problems = {problem.id: problem for problem in study.problems}
    version = study.task.version
    with records.Writer(study.root, "verdicts") as verdicts:
        for entry in study.evaluated:
            have = records.existing(study.root, "verdicts", arm=entry.name, grader=version)
            drawn = records.existing(study.root, "samples", arm=entry.name)
            if not any(indices - have.get(name, set()) for name, indices in drawn.items()):
                continue
            if not again:
                _refuse_older(study, entry.name, have)
            stored = records.read(
                study.root, "samples", columns=["problem_id", "index", "text"], where={"arm": entry.name}
            )
            todo = [row for row in stored.to_pylist() if row["index"] not in have.get(row["problem_id"], set())]
            done, solved = stored.num_rows - len(todo), set()
            items = ((problems[row["problem_id"]], row["text"]) for row in todo)
            waiting = []
            with Progress(study.root, f"grade {entry.name}", stored.num_rows, "samples", done) as progress:
                for row, verdict in zip(todo, _verdicts(study, items), strict=True):
                    waiting.append(verdict_row(entry.name, row["problem_id"], row["index"], version, verdict))
                    done += 1
                    if verdict.correct:
                        solved.add(row["problem_id"])
                    if len(waiting) == BATCH:
                        verdicts.append(waiting)
                        waiting = []
                        study.notice.raise_if_preempted()
                    progress.update(done, solved=len(solved))
                verdicts.append(waiting)


def _refuse_older(study: Study, arm: str, have: dict[str, set[int]]) -> None:
    version = study.task.version
    rows = records.read(study.root, "verdicts", ["problem_id", "index", "grader"], {"arm": arm}).to_pylist()
    older = {r["grader"] for r in rows if r["index"] not in have.get(r["problem_id"], set())} - {version}
    if older:
        raise UserError(
            f"arm {arm} has verdicts by {', '.join(sorted(older))}, this version grades as {version}: "
            "--config.job=grade grades its samples again and keeps both"
        )


def _verdicts(study: Study, items: Iterable[tuple[Problem, str]]) -> Iterator[Verdict]:
    task, grading = study.task, study.settings.grading
    if task.inline:
        return (task.grade(problem, text) for problem, text in items)
    return map_verdicts(task.grade, items, grading.workers, grading.seconds, task.shorten)
