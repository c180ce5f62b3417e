"""Which verdicts count: those given against present references, by the present grader under its present limit."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence

import pyarrow as pa

from rlvr_limit import records
from rlvr_limit.grading.named import NamedGrader
from rlvr_limit.settings import schema
from rlvr_limit.study.prepared import Study, Task


def references(study: Study, grader: Task | NamedGrader) -> dict[str, str]:
    """By problem, the digest of what a verdict is given against: question, reference, grader version and its limit."""
    judge = [grader.version, study.settings.grading.seconds]
    return {p.id: schema.digest([p.question, _digest(p.answer), *judge]) for p in study.problems}


@functools.cache
def _digest(answer: Hashable) -> str:
    """Of a reference, or of all tests of a program: gigabytes in some benchmarks, so each is read once."""
    return schema.digest(repr(answer))


def counted(study: Study, arm: str, columns: Sequence[str], grader: Task | NamedGrader | None = None) -> pa.Table:
    """The verdicts on an arm's samples that count, sorted by (problem, index), each sample once."""
    grader = grader or study.task
    present = references(study, grader)
    where = {"arm": arm, "grader": grader.version, "against": sorted({*present.values()})}
    rows = records.read(study.root, "verdicts", [*{*columns, "problem_id", "against"}], where)
    pairs = zip(rows["problem_id"].to_pylist(), rows["against"].to_pylist(), strict=True)
    return rows.filter(pa.array([present.get(name) == digest for name, digest in pairs], pa.bool_())).select(columns)
