"""Gives a verdict on every stored sample that has none by the grader of this version. Needs no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ml_collections import ConfigDict

from rlvr_limit import records
from rlvr_limit.grading.pool import map_verdicts
from rlvr_limit.jobs.experiment import Experiment
from rlvr_limit.jobs.prepare import prepare
from rlvr_limit.jobs.progress import Progress
from rlvr_limit.jobs.sample import verdict_row
from rlvr_limit.types import Problem, Verdict

BATCH = 512


def run(config: ConfigDict) -> None:
    """The grade job."""
    grade_missing(prepare(config))


def grade_missing(experiment: Experiment) -> None:
    """Grades what sampling left ungraded, or all again after the grader's version has changed."""
    problems = {problem.id: problem for problem in experiment.problems}
    version = experiment.task.version
    with records.Writer(experiment.root, "verdicts") as verdicts:
        for entry in experiment.evaluated:
            have = records.existing(experiment.root, "verdicts", arm=entry.name, grader=version)
            drawn = records.existing(experiment.root, "samples", arm=entry.name)
            if not any(indices - have.get(name, set()) for name, indices in drawn.items()):
                continue
            stored = records.read(
                experiment.root, "samples", columns=["problem_id", "index", "text"], where={"arm": entry.name}
            )
            todo = [row for row in stored.to_pylist() if row["index"] not in have.get(row["problem_id"], set())]
            done, solved = stored.num_rows - len(todo), set()
            items = ((problems[row["problem_id"]], row["text"]) for row in todo)
            waiting = []
            with Progress(experiment.root, f"grade {entry.name}", stored.num_rows, "samples", done) as progress:
                for row, verdict in zip(todo, _verdicts(experiment, items), strict=True):
                    waiting.append(verdict_row(entry.name, row["problem_id"], row["index"], version, verdict))
                    done += 1
                    if verdict.correct:
                        solved.add(row["problem_id"])
                    if len(waiting) == BATCH:
                        verdicts.append(waiting)
                        waiting = []
                    progress.update(done, solved=len(solved))
                verdicts.append(waiting)


def _verdicts(experiment: Experiment, items: Iterable[tuple[Problem, str]]) -> Iterator[Verdict]:
    task, grading = experiment.task, experiment.settings.grading
    if task.inline:
        return (task.grade(problem, text) for problem, text in items)
    return map_verdicts(task.grade, items, grading.workers, grading.seconds, task.shorten)
