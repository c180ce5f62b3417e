"""The Countdown verifier: every number used once, every step's arithmetic right, the last result is the target.

An answer is a list of steps `a op b = c` separated by commas. Each step takes two numbers that are still there (given
ones or earlier results) and puts c in their place; after the last step only the target is left.
"""

import operator
import re
from collections import Counter
from dataclasses import dataclass

from rlvr_limit.types import Problem, Status, Verdict

VERSION = "countdown-1"
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul}
# Python refuses to read integers of thousands of digits; no number of a sensible answer has more than 18.
_STEP = re.compile(r"([0-9]{1,18}) ?([-+*]) ?([0-9]{1,18}) ?= ?([0-9]{1,18})")


@dataclass(frozen=True)
class CountdownAnswer:
    """The reference of one problem: the numbers to use and the target to reach."""

    numbers: tuple[int, ...]
    target: int

    def __str__(self) -> str:
        return str(self.target)


def grade(problem: Problem, text: str) -> Verdict:
    """Verdict on an answer's text; problem.answer is a CountdownAnswer. NO_ANSWER where there is no single step.

    extracted holds the steps in a normal form, so that equal chains compare equal; detail says what is wrong.
    """
    steps = _steps(text)
    if not any(steps):
        return Verdict(False, Status.NO_ANSWER, detail="no step of the form a op b = c")
    extracted = ", ".join("{} {} {} = {}".format(*s.groups()) if s else "?" for s in steps)
    fault = _first_fault(problem.answer, steps)
    return Verdict(not fault, Status.GRADED, extracted, fault)


def uses_given(problem: Problem, text: str) -> bool:
    """Whether the steps use every given number once and else only results of earlier ones, right or wrong."""
    left = Counter(problem.answer.numbers)
    for step in _steps(text):
        needed = Counter((int(step[1]), int(step[3]))) if step else None
        if needed is None or needed - left:
            return False
        left = left - needed + Counter((int(step[4]),))
    return left.total() == 1


def _steps(text: str) -> list[re.Match[str] | None]:
    return [_STEP.fullmatch(part.strip()) for part in text.split(",")]


def _first_fault(answer: CountdownAnswer, steps: list[re.Match[str] | None]) -> str:
    left = Counter(answer.numbers)
    result = None
    for number, step in enumerate(steps, start=1):
        if step is None:
            return f"step {number} is not of the form a op b = c"
        a, op, b, result = int(step[1]), step[2], int(step[3]), int(step[4])
        needed = Counter((a, b))
        if needed - left:
            return f"step {number} uses a number that is not there"
        if OPERATORS[op](a, b) != result:
            return f"step {number}: {a} {op} {b} is not {result}"
        left = left - needed + Counter((result,))
    if left.total() != 1:
        return f"{left.total() - 1} number(s) left unused"
    return "" if result == answer.target else f"the result {result} is not the target {answer.target}"
