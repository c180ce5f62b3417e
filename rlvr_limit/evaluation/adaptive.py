"""Adaptive sampling in two stages: every problem first gets few samples, and more where none of them is right.

Which problems those are is read from the records, so a run that was stopped between the stages goes on where it was.
The estimate that this leaves unbiased is passk.two_stage_curves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from rlvr_limit import passk, records
from rlvr_limit.study.prepared import Evaluated, Study
from rlvr_limit.types import Problem


def wanted(study: Study, entry: Evaluated) -> Callable[[Problem], int]:
    """How many samples of an arm each problem is to have, as far as its verdicts tell by now.

    n for all without sampling.adaptive; with it n only for problems whose first stage is graded and has no right one.
    """
    if not study.settings.sampling.adaptive:
        return study.n
    graded: Counter[str] = Counter()
    solved: set[str] = set()
    for name, index, correct in _verdicts(study, entry):
        if index < study.settings.sampling.adaptive:
            graded[name] += 1
            if correct:
                solved.add(name)

    def of(problem: Problem) -> int:
        first = study.first(problem)
        unsolved = graded[problem.id] == first and problem.id not in solved
        return study.n(problem) if unsolved else first

    return of


def second_stage(study: Study, entry: Evaluated, problems: Sequence[Problem]) -> passk.SecondStageCounts | None:
    """What the second stage of an arm drew for problems of one benchmark; None without sampling.adaptive.

    0 of 0 where the first stage has a right sample, whatever an earlier run may have drawn there.
    """
    if not study.settings.sampling.adaptive:
        return None
    limit = wanted(study, entry)
    drawn: Counter[str] = Counter()
    right: Counter[str] = Counter()
    most = {problem.id: limit(problem) for problem in problems}
    for name, index, correct in _verdicts(study, entry):
        if name in most and study.settings.sampling.adaptive <= index < most[name]:
            drawn[name] += 1
            right[name] += correct
    n_M, c_M = (np.array([count[problem.id] for problem in problems]) for count in (drawn, right))
    return passk.SecondStageCounts(study.n(problems[0]), n_M, c_M)


def _verdicts(study: Study, entry: Evaluated) -> Sequence[tuple[str, int, bool]]:
    by = {"arm": entry.name, "grader": study.task.version}
    table = records.read(study.root, "verdicts", ["problem_id", "index", "correct"], by)
    return list(zip(*(table[name].to_pylist() for name in ("problem_id", "index", "correct")), strict=True))
