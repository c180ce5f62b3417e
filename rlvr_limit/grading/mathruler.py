"""What EasyR1's reward takes for right: the rules of mathruler 0.1.0, PRM800K's grader, in code of our own.

The answer is in the last \\boxed{} or there is none. A whole number must be written as one and a fraction be reduced;
some units, % and degrees are left out; there is no tolerance. Algebra is read by expression.py, and not by pylatexenc
and sympy's parser, which has no clock: what these alone can read is not equal here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from rlvr_limit.grading.math import equality
from rlvr_limit.grading.math.expression import SYMPY_GAVE_UP, UnreadableMath, read
from rlvr_limit.grading.math.extract import last_box
from rlvr_limit.grading.math.latex import normalise
from rlvr_limit.grading.math.string_rules import normal_form
from rlvr_limit.types import Problem, Status, Verdict

VERSION = "mathruler-1"
LONGEST = 200
ACCURACY, FORMAT = 0.9, 0.1

_FORMAT = re.compile(r"<think>.*</think>.*\\boxed\{.*\}.*", re.DOTALL)
_TEXT = re.compile(r"\\text\{(.+?)\}")
_UNIT = re.compile(
    r"(?:degree|cm|centimeter|meter|mile|second|minute|hour|day|week|month|year|foot|feet|inch|yard)(?:es)?s?"
    r" *(?:\^[0-9]+)?|\^ *\{?\\circ\}?"
)
# In their order.
_RULES = (
    (re.compile(r"\\?[%$]"), ""),
    (re.compile(r" (?:or|and) "), " , "),
    (_UNIT, ""),
    (re.compile(r"^\{(.*)\}$"), r"\1"),
    (re.compile(r",\\! *"), ""),
    (re.compile(r"\\[dt]?frac\{(-?\d+)\}\{(-?\d+)\}"), r" \1/\2"),
    (re.compile(r"- *"), "-"),
    (re.compile(r"(?<=[0-9]) +(?=[0-9])"), "+"),  # mixed numbers
    (re.compile(r"\\left|\\right|\s"), ""),
    (re.compile(r"(?<=\d),(?=\d{3}(?:\D|$))"), ""),
)
_FRACTION = re.compile(r"-?\d+/0*[1-9]\d*")
_WHOLE = re.compile(r"(-?\d{1,18})(?:\.0*)?")
_GROUP = re.compile(r"[(\[]([^()\[\]]+)[)\]]")
_COMMAND = re.compile(r"\\?(?:sqrt|frac|pi)")
_NEVER_READ = re.compile(r"\^[{(]|\^[0-9]+\^|\^[0-9][0-9]+")


def grade(problem: Problem, text: str) -> Verdict:
    """Right or not by these rules, of a list of references the first; NO_ANSWER without a box."""
    answer = last_box(text)
    if not answer:
        return Verdict(False, Status.NO_ANSWER, detail="no \\boxed{}")
    reference = problem.answer if isinstance(problem.answer, str) else problem.answer[0]
    return Verdict(equal(answer, reference), Status.GRADED, answer[:LONGEST])


def shorten(problem: Problem, text: str) -> Verdict | str:
    """The verdict where there is no box, otherwise the last box alone."""
    answer = last_box(text)
    short = rf"\boxed{{{answer}}}"
    return short if answer and last_box(short) == answer else grade(problem, text)


def reward(problem: Problem, texts: Sequence[str]) -> list[float]:
    """EasyR1's: 0.9 for a right answer, 0.1 for a text that is a block of thoughts and then has a box."""
    right = [grade(problem, text).correct for text in texts]
    return [ACCURACY * r + FORMAT * bool(_FORMAT.fullmatch(text)) for r, text in zip(right, texts, strict=True)]


def equal(answer: str, reference: str) -> bool:
    """Whether two answers are equal by these rules."""
    if normal_form(answer.strip()) == normal_form(reference.strip()):
        return True
    given, wanted = _normalised(answer), _normalised(reference)
    if given == wanted or not given or len(given) > LONGEST:
        return given == wanted
    parts, asked = _parts(given), _parts(wanted)
    if len(parts) != len(asked) or (len(asked) > 1 and (given[0], given[-1]) != (wanted[0], wanted[-1])):
        return False
    return all(map(_equal_parts, parts, asked))


def _normalised(text: str) -> str:
    whole = _TEXT.fullmatch(text.strip())
    text = whole[1] if whole else text.strip()
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = text.lower()
    number = _WHOLE.fullmatch(text)
    return str(int(number[1])) if number else text


def _parts(text: str) -> list[str]:
    group = _GROUP.fullmatch(text)
    return [part.strip() for part in group[1].split(",")] if group else [text]


def _equal_parts(given: str, wanted: str) -> bool:
    if given == wanted:
        return True
    if _FRACTION.fullmatch(given) and _FRACTION.fullmatch(wanted):
        return False
    if bool(_WHOLE.fullmatch(given)) != bool(_WHOLE.fullmatch(wanted)):
        return False
    both = given + wanted
    if len({*re.findall("[a-z]", _COMMAND.sub("", both))}) > 2 or _NEVER_READ.search(both):
        return False
    try:
        return equality.equal(read(normalise(given)), read(normalise(wanted)))
    except (UnreadableMath, *SYMPY_GAVE_UP):
        return False
