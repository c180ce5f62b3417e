"""The verifier of composed functions: whether the last value is right, and besides whether every step before it is."""

import re
from dataclasses import dataclass

from rlvr_limit.types import Problem, Status, Verdict

VERSION = "composition-1"
_STEP = re.compile(r"[a-z]((?: [0-9]+)+)")


@dataclass(frozen=True)
class CompositionAnswer:
    """The reference of one problem: its steps, each a function's name and the string that it gives."""

    steps: tuple[str, ...]

    def __str__(self) -> str:
        return self.steps[-1][2:]


def grade(problem: Problem, text: str) -> Verdict:
    """Verdict on an answer's text, steps with commas between them; problem.answer is a CompositionAnswer.

    Right is who ends in the right string, as any verifier of final answers would have it. detail names the first wrong
    step, also of a right answer: "" is a right chain. As strings and functions are given, a step that follows from
    the one before it is equal to the reference's.
    """
    steps = [step.strip() for step in text.split(",")]
    last = _STEP.fullmatch(steps[-1])
    if not last:
        return Verdict(False, Status.NO_ANSWER, detail="the last step is no function with its string")
    return Verdict(
        last[1].strip() == str(problem.answer), Status.GRADED, last[1].strip(), _fault(steps, problem.answer.steps)
    )


def _fault(steps: list[str], right: tuple[str, ...]) -> str:
    for number, (step, expected) in enumerate(zip(steps, right, strict=False), start=1):
        if step != expected:
            return f"step {number} is {step!r}, not {expected!r}"
    return "" if len(steps) == len(right) else f"{len(steps)} steps, not {len(right)}"
