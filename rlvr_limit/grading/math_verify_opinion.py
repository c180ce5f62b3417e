"""A further opinion on answers in mathematics: what `math_verify.verify` says, where that package is installed."""

from __future__ import annotations

import importlib.metadata
import logging

from math_verify import parse, verify

from rlvr_limit.types import Problem, Status, Verdict


def version() -> str:
    """The name under which its verdicts are stored."""
    return f"math_verify-{importlib.metadata.version('math-verify')}"


def grade(problem: Problem, text: str) -> Verdict:
    """Right or not by `verify`, of a list all references at once; NO_ANSWER where `parse` finds none."""
    # Without limits of theirs they warn: the grading pool has its own.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    reference = problem.answer if isinstance(problem.answer, str) else ", ".join(problem.answer)
    wanted, given = (parse(said, parsing_timeout=None) for said in (rf"\boxed{{{reference}}}", text))
    if not given:
        return Verdict(False, Status.NO_ANSWER)
    return Verdict(verify(wanted, given, timeout_seconds=None), Status.GRADED, str(given[-1]))
