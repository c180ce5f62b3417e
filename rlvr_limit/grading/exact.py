"""Verdicts on answers that are words: the final answer is the reference, case and spaces aside."""

from __future__ import annotations

from rlvr_limit.grading.math.extract import extract
from rlvr_limit.types import Problem, Status, Verdict

VERSION = "exact-1"


def grade(problem: Problem, text: str) -> Verdict:
    """Verdict on a response; problem.answer is a text, or a list of texts of which any is right."""
    answer = extract(text, problem.prompt)
    if not answer.text:
        return Verdict(False, Status.NO_ANSWER, detail=answer.why)
    accepted = [problem.answer] if isinstance(problem.answer, str) else problem.answer
    return Verdict(_plain(answer.text) in map(_plain, accepted), Status.GRADED, answer.text)


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
