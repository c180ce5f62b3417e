"""Where a second grader and the one that counts differ (metrics.md 22)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from rlvr_limit import records, report
from rlvr_limit.study.prepared import Study, benchmark_of
from rlvr_limit.types import Problem

Row = dict[str, Any]
KEY = ("problem_id", "index")


def second_opinion(study: Study, arm: str, verdicts: pa.Table) -> report.SecondOpinion | None:
    """What a second grader says of the samples whose verdicts these are; None while one of them has none by it."""
    second = study.task.second
    if not second:
        return None
    where = {"arm": arm, "grader": second.version}
    said = _by_sample(records.read(study.root, "verdicts", [*KEY, "correct"], where))
    ours = _by_sample(verdicts)
    if not ours.keys() <= said.keys():
        return None
    counts = Counter((right, said[key]) for key, right in ours.items())
    _, problem_S = np.unique([name for name, _ in ours], return_inverse=True)
    theirs_M = np.bincount(problem_S, weights=[said[key] for key in ours]) / np.bincount(problem_S)
    return report.SecondOpinion(
        grader=second.version,
        both=counts[True, True],
        only_first=counts[True, False],
        only_second=counts[False, True],
        neither=counts[False, False],
        pass_1=float(theirs_M.mean()),
    )


def _by_sample(verdicts: pa.Table) -> dict[tuple[str, int], bool]:
    names, indices, right = (verdicts[column].to_pylist() for column in (*KEY, "correct"))
    return dict(zip(zip(names, indices, strict=True), right, strict=True))


def disagreements(
    rows: Iterable[Row], second: Iterable[Row], problems: Mapping[str, Problem]
) -> tuple[Counter[tuple[str, bool, bool]], list[Row]]:
    """Samples of an arm by (benchmark, right by the grader, right by the second), and the distinct answers on which
    they differ: those that the second alone takes for right first, then by how many samples they decide.

    rows and second are verdicts; samples that have but one of them are left out.
    """
    counts: Counter[tuple[str, bool, bool]] = Counter()
    answers: Counter = Counter()
    other = {(row["problem_id"], row["index"]): row for row in second}
    for row in rows:
        name, by_second = row["problem_id"], other.get((row["problem_id"], row["index"]))
        if by_second:
            counts[benchmark_of(name), row["correct"], by_second["correct"]] += 1
            if row["correct"] != by_second["correct"]:
                answers[row["correct"], name, row["extracted"], by_second["extracted"], row["status"]] += 1
    order = sorted(answers.items(), key=lambda item: (item[0][0], -item[1], item[0]))
    return counts, [
        {"problem_id": name, "reference": str(problems[name].answer), "extracted": extracted, "status": status}
        | {"extracted_by_second": by_second, "right_by": "grader" if right else "second", "samples": count}
        for (right, name, extracted, by_second, status), count in order
    ]
