"""Which problem a row of others' samples belongs to, whatever each file calls it, and what its reference is."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlvr_limit.grading.math.extract import as_response, is_bare
from rlvr_limit.grading.named import NamedGrader
from rlvr_limit.study.prepared import benchmark_of
from rlvr_limit.tasks.files import FileRow
from rlvr_limit.tasks.imported.fields import ImportedRow
from rlvr_limit.tasks.questions import Question, Reference, written
from rlvr_limit.types import Problem, UserError

SEVERAL = 8
"""Different names and references of one problem that are kept; a field that differs in every row is neither."""


@dataclass
class MetProblem:
    """A problem as the rows so far tell it."""

    id: str
    place: str  # of its first row
    question: str
    of_benchmark: Question | None = None
    names: set[str] = field(default_factory=set)  # the first of them
    references: dict[str, tuple[Any, str]] = field(default_factory=dict)  # by their text: as it stands there, place


class MetProblems:
    """All problems of all files: by their question where rows have one, else by their name.

    Questions of a benchmark are known before; a row belongs to one that it has the question of, or that its prompt
    holds, or that it names.
    """

    def __init__(self, known: Iterable[Question]) -> None:
        self.by_id: dict[str, MetProblem] = {}
        self._by_text: dict[str, MetProblem] = {}
        self._by_plain: dict[str, MetProblem] = {}
        self._by_name: dict[str, list[MetProblem]] = {}
        self._known = list(known)
        self._known_text = {_plain(q.question): q for q in self._known}
        self._known_name = {name: q for q in self._known for name in _full_names(q)}
        if len({benchmark_of(q.id) for q in self._known}) == 1:
            self._known_name |= {q.id.rpartition("/")[2]: q for q in self._known}

    def meet(self, row: ImportedRow, task: str, place: str) -> MetProblem:
        """The problem of a row, a new one where it is none of those before. UserError where that cannot be told."""
        problem = self._by_text.get(row.question) if row.question else self._named(row.name)
        if not problem:
            problem = self._found(row) or self._new(row, task, place)
            if row.question:
                self._by_text[row.question] = self._by_plain[_plain(row.question)] = problem
                problem.question = problem.question or row.question
        if row.name and len(problem.names) < SEVERAL and row.name not in problem.names:
            problem.names.add(row.name)
            self._by_name.setdefault(row.name, []).append(problem)
        if row.reference not in (None, "", []) and len(problem.references) < SEVERAL:
            problem.references.setdefault(_text(row.reference), (row.reference, place))
        return problem

    def _named(self, name: str) -> MetProblem | None:
        found = self._by_name.get(name, [])
        if len(found) > 1:
            raise UserError(f"{name!r} names several problems of other rows; give the question, as problem")
        return found[0] if found else None

    def _found(self, row: ImportedRow) -> MetProblem | None:
        """One of those before, or of the benchmark."""
        if row.question and (problem := self._by_plain.get(_plain(row.question))):
            return problem
        if row.question and (named := self._by_name.get(row.name, [])) and not named[0].question and len(named) == 1:
            return named[0]
        q = self._of_benchmark(row)
        return self.by_id.get(q.id) if q else None

    def _of_benchmark(self, row: ImportedRow) -> Question | None:
        if not row.question:
            return self._known_name.get(row.name)
        text = _plain(row.question)
        if q := self._known_text.get(text):
            return q
        holding = [q for known, q in self._known_text.items() if known in text]
        if len(holding) == 1:
            return holding[0]
        q = self._known_name.get(row.name)
        return q if q and row.name in _full_names(q) else None

    def _new(self, row: ImportedRow, task: str, place: str) -> MetProblem:
        q = self._of_benchmark(row)
        if q:
            problem = MetProblem(q.id, place, q.question, q)
        else:
            name = row.name.replace("/", "_") or str(len(self.by_id))
            name = f"{task.replace('/', '_')}/{name}" if task else name
            again = 1
            while (again_name := name if again == 1 else f"{name}~{again}") in self.by_id:
                again += 1
            problem = MetProblem(again_name, place, row.question)
        self.by_id[problem.id] = problem
        return problem


def reference_of(problem: MetProblem, grader: NamedGrader, is_math: bool) -> Reference | None:
    """The reference that the rows give, None where it is the benchmark's, as for programs it always is.

    UserError, naming the places, where there is none at all, where it is a solution without a mark of where it ends,
    and where two rows give references that the grader takes for different.
    """
    if problem.of_benchmark and (problem.of_benchmark.is_code or not problem.references):
        return None
    if not problem.references:
        raise UserError(
            f"{problem.place}: problem {problem.id!r} has no reference in any row; name a benchmark that has it, as "
            "--config.benchmarks=\"('math500',)\", or give the rows an answer"
        )
    (first, where), *others = [
        (written(FileRow(0, place, {"reference": value}), "reference"), place)
        for value, place in problem.references.values()
    ]
    for answer in [first] if isinstance(first, str) else first:
        if is_math and not is_bare(answer):
            marks = r"give the value alone, or end in '#### value' or \boxed{value}"
            raise UserError(f"{where}: the reference {answer!r:.60} is a whole solution; {marks}")
    asked = Problem(problem.id, problem.question, "", (), first)
    for other, place in others:
        said = other if isinstance(other, str) else ", ".join(other)
        if other != first and not grader.grade(asked, as_response(said)).correct:
            raise UserError(
                f"problem {problem.id!r} has two references: {first!r:.60} ({where}) and {other!r:.60} ({place})"
            )
    return first


def _plain(text: str) -> str:
    return " ".join(text.split())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, sort_keys=isinstance(value, Mapping))


def _full_names(q: Question) -> list[str]:
    """What others may call a question of a benchmark, such that no other benchmark's is called so."""
    own = [getattr(q.answer, name) for name in ("task_id", "question_id") if hasattr(q.answer, name)]
    return [q.id, q.id.replace("/", "-"), q.id.replace("/", "_"), *own]
