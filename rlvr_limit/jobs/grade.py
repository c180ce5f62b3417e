"""Gives a verdict on every stored sample that has none by the grader of this version. Needs no model."""

from __future__ import annotations

from ml_collections import ConfigDict

from rlvr_limit import records
from rlvr_limit.grading import countdown as grading
from rlvr_limit.jobs.experiment import Experiment, prepare
from rlvr_limit.jobs.progress import Progress
from rlvr_limit.jobs.sample import verdict_row

BATCH = 512


def run(config: ConfigDict) -> None:
    """The grade job."""
    grade_missing(prepare(config))


def grade_missing(experiment: Experiment) -> None:
    """Grades what sampling left ungraded, or all again after the grader's version has changed."""
    problems = {problem.id: problem for problem in experiment.problems}
    with records.Writer(experiment.root, "verdicts") as verdicts:
        for entry in experiment.evaluated:
            have = records.existing(experiment.root, "verdicts", arm=entry.name, grader=grading.VERSION)
            drawn = records.existing(experiment.root, "samples", arm=entry.name)
            if not any(indices - have.get(name, set()) for name, indices in drawn.items()):
                continue
            stored = records.read(
                experiment.root, "samples", columns=["problem_id", "index", "text"], where={"arm": entry.name}
            )
            todo = [row for row in stored.to_pylist() if row["index"] not in have.get(row["problem_id"], set())]
            done = stored.num_rows - len(todo)
            with Progress(experiment.root, f"grade {entry.name}", stored.num_rows, "samples", done) as progress:
                for start in range(0, len(todo), BATCH):
                    part = todo[start : start + BATCH]
                    verdicts.append(
                        [
                            verdict_row(
                                entry.name,
                                row["problem_id"],
                                row["index"],
                                grading.grade(problems[row["problem_id"]], row["text"]),
                            )
                            for row in part
                        ]
                    )
                    done += len(part)
                    progress.update(done)
