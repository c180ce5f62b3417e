"""The mathematics verifier: the final answer of a response against the reference, exactly.

No numeric tolerance: a decimal is the rational that it writes. A percent sign and a unit may be left out, but they
never rescale: 50\\% is 50 and not 1/2, and two different units do not agree. What cannot be read is an ERROR.
"""

import functools
import re
from fractions import Fraction

from rlvr_limit.grading.math import equivalence, units
from rlvr_limit.grading.math.expression import SYMPY_GAVE_UP, UndefinedMath, UnreadableMath
from rlvr_limit.grading.math.extract import extract, last_box
from rlvr_limit.grading.math.latex import normalise
from rlvr_limit.grading.math.parse import parse, with_parameter_of
from rlvr_limit.grading.math.values import TEXT_COMMAND, AnswerValue, NamedValue, RelationValue, ScalarValue, ValueGroup
from rlvr_limit.types import Problem, Status, Verdict

VERSION = "math-6"
LONGEST_ANSWER = 4000

Reference = str | list[str] | tuple[str, ...]
"""What is asked for; of a list or tuple every entry."""

_RATIONAL = re.compile(
    r"(-?)(?:(\d{1,18})(?:\.(\d{1,18}))?|\.(\d{1,18})|\\frac\{(-?\d{1,18})\}\{(\d{1,18})\}|(\d{1,18})/(\d{1,18}))"
)
_IDLE_SPACE = re.compile(r"(?<![0-9A-Za-z.]) | (?![0-9A-Za-z.])")
_CHOICE = re.compile(r"\(([A-J])\)|([A-J])")
# A choice with what it stands for: (C) 12 and C: 12, but neither (B) or (C) nor (C) + 1.
_EXPLAINED = re.compile(r"(?:\(([A-J])\)|([A-J])[:.)])\s*(?![-+*/^_=!]|or |and |,)(?!.*\([A-J]\)).+", re.DOTALL)
# The least value of $a$ is 8, but not: Ann is 5 and Bob is 7.
_VERB = r"\b(?:is|are|equals|be)\b"
_STATED = re.compile(
    rf"[A-Z][a-z]*\s(?:(?!{_VERB}|\band\b|\bor\b)[^,])*{_VERB}\s+((?:(?!{_VERB}|\band\b|\bor\b).)+)", re.DOTALL
)
_ASKS_PERCENT = re.compile(r"percent|%", re.IGNORECASE)


def grade(problem: Problem, text: str) -> Verdict:
    """Verdict on a response; problem.answer is a Reference.

    NO_ANSWER where no final answer is found, ERROR where it (or the reference) cannot be read as mathematics.
    """
    short = shorten(problem, text)
    return _compared(problem, extract(short).text) if isinstance(short, str) else short


def shorten(problem: Problem, text: str) -> Verdict | str:
    """The verdict where no algebra is needed, otherwise a short response that `grade` judges as it judges this one."""
    answer = extract(text, problem.prompt)
    if not answer.text:
        return Verdict(False, Status.NO_ANSWER, detail=answer.why)
    if len(answer.text) > LONGEST_ANSWER:
        detail = f"an answer of {len(answer.text)} characters, more than {LONGEST_ANSWER}"
        return Verdict(False, Status.ERROR, answer.text[:LONGEST_ANSWER], detail)
    reference = problem.answer if isinstance(problem.answer, str) else ", ".join(problem.answer)
    given, wanted = _bare(answer.text), _bare(_unboxed(reference))
    if given in (wanted, _bare(reference)):
        return Verdict(True, Status.GRADED, answer.text)
    if isinstance(problem.answer, str):
        a, b = _rational(given), _rational(wanted)
        if a is not None and b is not None:
            return Verdict(a == b, Status.GRADED, answer.text)
    short = rf"\boxed{{{answer.text}}}"
    if last_box(short) != answer.text:
        return Verdict(False, Status.ERROR, answer.text, "braces that do not close each other")
    return short


def _compared(problem: Problem, answer: str) -> Verdict:
    try:
        reference = _parsed_reference(problem.answer)
        given = parse(_read_as(problem.answer, answer))
        if isinstance(reference, ValueGroup) and isinstance(given, ScalarValue | NamedValue):
            given = parse(answer, thousands=False)
        if not isinstance(reference, ValueGroup) and isinstance(given, ValueGroup):
            given = equivalence.merged(given)
        if not _has_left_side(reference):
            given = equivalence.without_left_sides(given)
        given = _with_letter_unit(reference, given)
        reference = _with_same_unit(reference, given)
        if _percent_out_of_place(reference, given, problem.question):
            return Verdict(False, Status.GRADED, answer, "a percentage where none is asked for")
        return Verdict(equivalence.equivalent(reference, given), Status.GRADED, answer)
    except UndefinedMath as error:
        return Verdict(False, Status.GRADED, answer, f"no value: {error}")
    except UnreadableMath as error:
        return Verdict(False, Status.ERROR, answer, str(error))
    except SYMPY_GAVE_UP as error:
        return Verdict(False, Status.ERROR, answer, f"not evaluated: {type(error).__name__}")


def _has_left_side(reference: AnswerValue) -> bool:
    if isinstance(reference, ValueGroup):
        return any(map(_has_left_side, reference.items))
    return isinstance(reference, NamedValue | RelationValue)


def _with_letter_unit(reference: AnswerValue, given: AnswerValue) -> AnswerValue:
    """30 m as a length, where the reference has no letter that could be meant."""
    if not (isinstance(reference, ScalarValue) and isinstance(given, ScalarValue)) or given.unit:
        return given
    found = units.split_letter(given.text)
    without_commands = re.sub(r"\\[A-Za-z]+", "", reference.text)
    return ScalarValue(*found) if found and not re.search(r"[A-Za-z]", without_commands) else given


def _with_same_unit(reference: AnswerValue, given: AnswerValue) -> AnswerValue:
    """30s as seconds where the answer says so."""
    if not (isinstance(reference, ScalarValue) and isinstance(given, ScalarValue)) or reference.unit or not given.unit:
        return reference
    found = units.split_letter(reference.text)
    return ScalarValue(*found) if found and found[1] == given.unit else reference


def _parsed_reference(reference: Reference) -> AnswerValue:
    if isinstance(reference, str):
        return parse(_unboxed(reference))
    return ValueGroup("list", tuple(parse(_unboxed(entry)) for entry in reference))


def _unboxed(reference: str) -> str:
    """Some files have the box around the reference, or the sentence that it stands in."""
    stated = _STATED.fullmatch(reference)
    return (last_box(reference) if "box" in reference else "") or (stated[1] if stated else reference)


def _read_as(reference: Reference, answer: str) -> str:
    """The letter alone where a choice is asked for, and the reference's own letter where the answer has another."""
    if not isinstance(reference, str):
        return answer
    return _choice(reference, answer) or with_parameter_of(_unboxed(reference), _unboxed(answer))


def _choice(reference: str, answer: str) -> str:
    """The letter of an answer that names a choice and says what it stands for; empty where no choice is asked for."""
    if not _CHOICE.fullmatch(_without_text_command(reference)):
        return ""
    match = _EXPLAINED.fullmatch(_without_text_command(answer))
    return (match[1] or match[2]) if match else ""


def _without_text_command(text: str) -> str:
    return TEXT_COMMAND.sub(r"\1", normalise(text)).strip()


def _percent_out_of_place(reference: AnswerValue, given: AnswerValue, question: str) -> bool:
    if not (isinstance(reference, ScalarValue) and isinstance(given, ScalarValue)):
        return False
    return given.unit == units.PERCENT != reference.unit and not _ASKS_PERCENT.search(question)


@functools.lru_cache(maxsize=4096)
def _bare(text: str) -> str:
    """Without spaces, but for those that keep two numbers or words apart: 4 2/3 is not 42/3."""
    return _IDLE_SPACE.sub("", normalise(text))


def _rational(text: str) -> Fraction | None:
    match = _RATIONAL.fullmatch(text)
    if not match:
        return None
    sign, whole, places, only_places, above, below, top, bottom = match.groups()
    if below or bottom:
        if not int(below or bottom):
            return None
        value = Fraction(int(above or top), int(below or bottom))
    else:
        value = Fraction(f"{whole or 0}.{places or only_places or 0}")
    return -value if sign else value
