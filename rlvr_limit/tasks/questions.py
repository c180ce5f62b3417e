"""A row of a benchmark's file -> a question with what its grader compares with."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from rlvr_limit.grading.code import evalplus as evalplus_grading
from rlvr_limit.grading.code import livecodebench
from rlvr_limit.grading.code.evalplus import EvalPlusTests
from rlvr_limit.grading.code.livecodebench import LiveCodeTests
from rlvr_limit.grading.math.extract import extract, is_bare, last_box
from rlvr_limit.grading.math.latex import normalise, split
from rlvr_limit.images import Image
from rlvr_limit.tasks.files import FileRow
from rlvr_limit.types import UserError

Reference = str | tuple[str, ...]
"""The right answer, or several that are all asked for."""


@dataclass(frozen=True)
class Question:
    """One problem before it has a prompt: id is "<benchmark>/<row>", answer its reference or its tests."""

    id: str
    question: str
    answer: Reference | EvalPlusTests | LiveCodeTests
    starter_code: str = ""
    images: tuple[Image, ...] = ()
    guess_rate: float | None = None  # as of types.Problem

    @property
    def is_code(self) -> bool:
        """Whether the answer is a program."""
        return isinstance(self.answer, EvalPlusTests | LiveCodeTests)


@dataclass(frozen=True)
class MathRows:
    """How a row of mathematics becomes a question: by the first of these fields that it has.

    Each field of an answer comes with the function that finds the reference in it. identity is the field that names a
    row, "" its index.
    """

    question: tuple[str, ...]
    answer: dict[str, Callable[[FileRow, str], Reference]]
    identity: str = ""

    def __call__(self, row: FileRow) -> Question:
        """The question, with the row's own name as its id. Raises UserError for what is missing or empty."""
        text = row.text(row.first(self.question))
        if row.fields.get("context") not in (None, ""):
            text = f"{row.text('context')}\n{text}"
        name = row.fields[row.first((self.identity,))] if self.identity else row.index
        field = row.first(tuple(self.answer))
        return Question(str(name), text, self.answer[field](row, field), guess_rate=row.share("guess_rate"))

    def lacks_reference(self, row: FileRow) -> bool:
        """Whether the answer's field is there and empty; one that is not there is an error like any other."""
        field = next((name for name in self.answer if name in row.fields), "")
        value = row.fields.get(field)
        if not isinstance(value, str):
            return field != "" and value is None
        return not (last_box(value) if self.answer[field] is boxed else value.strip())


def beginning(question: str, share: float) -> str:
    """The first `share` of a question's characters, cut back to whole words, of which it is one at least; 0: all."""
    if not share:
        return question
    cut = question[: int(share * len(question)) + 1]
    return (re.match(r".*\S(?=\s)", cut, re.DOTALL) or re.match(r"\s*\S*", question))[0]


def completes(question: str, share: float, text: str) -> bool:
    """Whether a text behind the question's beginning starts with all its other words (Wu et al. 2025, 2507.10532)."""
    rest = question[len(beginning(question, share)) :].split()
    return bool(rest) and text.split()[: len(rest)] == rest


def number(row: FileRow, field: str) -> str:
    """A text or a number, without a needless .0."""
    value = row.fields[field]
    return row.text(field, str(int(value) if isinstance(value, float) and value.is_integer() else value))


def after_hashes(row: FileRow, field: str) -> str:
    """What stands behind ####."""
    _, marks, reference = row.text(field).rpartition("####")
    if not marks or not reference.strip():
        raise UserError(f"{row.place}: field {field!r} does not end in '#### answer'")
    return reference.strip()


def boxed(row: FileRow, field: str) -> str:
    """The last box of a solution."""
    reference = last_box(row.text(field))
    if not reference:
        raise UserError(f"{row.place}: field {field!r} has no \\boxed{{...}} with an answer in it")
    return reference


def listed(row: FileRow, field: str) -> Reference:
    """The entries of a list, taken apart at their commas where is_multiple_answer says so."""
    value = row.fields[field]
    if not isinstance(value, list) or not value:
        raise row.refuse(field, value, "a list of answers")
    answers = [row.text(field, entry) for entry in value]
    if row.fields.get("is_multiple_answer"):
        answers = [part for entry in answers for part in split(normalise(entry), (",", ";")) if part]
    return answers[0] if len(answers) == 1 else tuple(answers)


def written(row: FileRow, field: str) -> Reference:
    """What people write: a text, a number, or a list of these that are all asked for. Of a solution its final value."""
    value = row.fields[field]
    parts = value if isinstance(value, list) else [value]
    if not parts:
        raise row.refuse(field, value, "at least one answer: it is an empty list")
    texts = [str(part) if isinstance(part, int | float) and not isinstance(part, bool) else part for part in parts]
    answers = tuple(_final_value(row, field, row.text(field, part)) for part in texts)
    return answers if len(answers) > 1 else answers[0]


def _final_value(row: FileRow, field: str, text: str) -> str:
    """What a solution ends in, behind #### or in a box; a text that has neither as it is."""
    _, marks, value = text.rpartition("####")
    if marks and not value.strip():
        raise row.refuse(field, text, "an answer, or a solution that ends in '#### answer'")
    if marks:
        return value.strip().partition("\n")[0]
    return text if is_bare(text) else extract(text).text or text


def evalplus(row: FileRow) -> Question:
    """A row of HumanEval+ or MBPP+."""
    text, tests = evalplus_grading.from_row(row.fields, row.place)
    return Question(tests.task_id.rpartition("/")[2], text, tests)


@dataclass(frozen=True)
class LiveCodeRows:
    """LiveCodeBench's problems that were released on one of the days from first to last."""

    first: str
    last: str

    def __call__(self, row: FileRow) -> Question | None:
        """The question, None for another day."""
        problem = livecodebench.from_row(row.fields, row.place)
        if not self.first <= problem.day.isoformat() <= self.last:
            return None
        name = problem.tests.question_id.replace("/", "_")
        return Question(name, problem.question, problem.tests, problem.starter_code)
