"""Adaptive sampling in two stages: every problem first gets few samples, and more where none of them is right.

Which problems those are is read from the records, so a run that was stopped between the stages goes on where it was.
The estimate that this leaves unbiased is passk.two_stage_curves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rlvr_limit import passk
from rlvr_limit.study import verdicts
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.prepared import Study
from rlvr_limit.types import Problem


def samples_wanted(study: Study, entry: EvaluatedArm) -> Callable[[Problem], int]:
    """How many samples of an arm each problem is to have, as far as its verdicts tell by now.

    n for all without sampling.adaptive; with it n only for problems whose first stage is graded and has no right one.
    Of others' samples as many as there are.
    """
    if study.imported:
        counts = study.imported.arms[entry.name].counts
        return lambda problem: counts[problem.id]
    first = study.settings.sampling.adaptive
    if not first:
        return study.n
    graded: Counter[str] = Counter()
    solved: set[str] = set()
    for name, index, correct in _verdicts(study, entry.name):
        if index < first:
            graded[name] += 1
            if correct:
                solved.add(name)
    return lambda problem: study.n(problem) if graded[problem.id] == first and problem.id not in solved else first


def second_stage(study: Study, entry: EvaluatedArm, problems: Sequence[Problem]) -> passk.SecondStageCounts | None:
    """What the second stage of an arm drew for problems of one benchmark; None without sampling.adaptive.

    0 of 0 where the first stage has a right sample, whatever an earlier run may have drawn there.
    """
    first = study.settings.sampling.adaptive
    if not first:
        return None
    wanted = samples_wanted(study, entry)
    n = {problem.id: wanted(problem) for problem in problems}
    drawn: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for name, index, correct in _verdicts(study, entry.name):
        if name in n and first <= index < n[name]:
            drawn[name] += 1
            right[name] += correct
    n_M, c_M = (np.array([count[problem.id] for problem in problems]) for count in (drawn, right))
    return passk.SecondStageCounts(study.n(problems[0]), n_M, c_M)


def _verdicts(study: Study, arm: str) -> Iterator[tuple[str, int, bool]]:
    columns = ["problem_id", "index", "correct"]
    table = verdicts.counted(study, arm, columns)
    return zip(*(table[name].to_pylist() for name in columns), strict=True)
