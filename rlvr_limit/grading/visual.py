"""Answers to MathVista by its own rule, to other questions by the mathematics verifier.

MathVista's code (Lu et al. 2024, arXiv 2310.02255) has a language model read the answer out of a response; here it is
what grading/math/extract.py finds, without its unit. Then its rule, with the reference's kind told by how it is
written: whole numbers are cut, str(int(float(x))), decimals rounded to its places, lists compared as they are written.
"""

from __future__ import annotations

import re
from fractions import Fraction

from rlvr_limit.grading.math import grade as mathematics
from rlvr_limit.grading.math.extract import extract
from rlvr_limit.grading.math.latex import normalise
from rlvr_limit.grading.math.units import split_unit
from rlvr_limit.types import Problem, Status, Verdict

VERSION = f"visual-1-{mathematics.VERSION}"
BY_ITS_OWN_RULE = "mathvista"
LONGEST = 200

_NUMBER = re.compile(r"-?(?:\d{1,18}\.?\d{0,18}|\.\d{1,18})(?:/0*[1-9]\d{0,17})?")
_FRACTION = re.compile(r"(-?)\\frac\{(-?\d+)\}\{(\d+)\}")


def grade(problem: Problem, text: str) -> Verdict:
    """Verdict on a response; NO_ANSWER where no final answer is found."""
    short = shorten(problem, text)
    return mathematics.grade(problem, short) if isinstance(short, str) else short


def shorten(problem: Problem, text: str) -> Verdict | str:
    """The verdict where no algebra is needed, otherwise a short response that `grade` judges as it judges this one."""
    if problem.id.rpartition("/")[0] != BY_ITS_OWN_RULE:
        return mathematics.shorten(problem, text)
    answer = extract(text, problem.prompt)
    if not answer.text:
        return Verdict(False, Status.NO_ANSWER, detail=answer.why)
    short = answer.text[:LONGEST]
    return Verdict(equal(short, problem.answer), Status.GRADED, short)


def equal(answer: str, reference: str) -> bool:
    """Whether the answer, brought to the reference's kind, is written as the reference is."""
    if reference.startswith("["):
        return _written(answer) == _written(reference)
    number = _number(answer)
    if number is None:
        return False
    places = len(reference.partition(".")[2])
    return str(round(number, places) if places else int(number)) == reference


def _written(text: str) -> str:
    return re.sub(r"\s|\\left|\\right|\$", "", text)


def _number(answer: str) -> float | None:
    """A number without its unit, thousands' commas and a name before =; None of anything else."""
    text = split_unit(normalise(answer).rpartition("=")[2].strip())[0].replace(" ", "")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    fraction = _FRACTION.fullmatch(text)
    text = f"{fraction[1]}{fraction[2]}/{fraction[3]}".replace("--", "") if fraction else text
    return float(Fraction(text)) if _NUMBER.fullmatch(text) else None
