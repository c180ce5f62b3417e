"""When two answers are one vote: by the value of numbers, else by string rules. Right or wrong is what grade.py says.

Neither does algebra, so that millions of answers can be told apart on one core, and none takes long.
"""

import re
from fractions import Fraction

from rlvr_limit.grading.math.expression import SYMPY_GAVE_UP, UnreadableMath, read
from rlvr_limit.grading.math.parse import parse
from rlvr_limit.grading.math.values import AnswerValue, ScalarValue, ValueGroup

_RULES = (
    (re.compile(r"\n|\\!|\\ |\\left(?![A-Za-z])|\\right(?![A-Za-z])|\\\$|\\?%|\^\{\\circ\}|\^\\circ(?![A-Za-z])"), ""),
    (re.compile(r"\\\\"), r"\\"),
    (re.compile(r"\\[td]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\text\{ .*$", re.DOTALL), ""),
    (re.compile(r"(^|[ {])\.(?=\d)"), r"\g<1>0."),
    (re.compile(r"^\s*\w{1,2}\s*=(?=[^=]*$)"), ""),
    (re.compile(r"\\sqrt\s*([^\s{\[])"), r"\\sqrt{\1}"),
    (re.compile(r"\s+"), ""),
    (re.compile(r"\\frac([^{\\])([^{\\])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac([^{\\])\{"), r"\\frac{\1}{"),
    (re.compile(r"(\\frac\{[^{}]*\})([^{\\])"), r"\1{\2}"),
    (re.compile(r"^0\.5$"), r"\\frac{1}{2}"),
    (re.compile(r"^(-?\d+)/(-?\d+)$"), r"\\frac{\1}{\2}"),
)


LONGEST = 200
# Numbers that are quick to evaluate: 10^3, 2\sqrt{2}, \frac{\pi}{4}.
_CONSTANT = re.compile(r"(?:[-+\d.()/*{} ]|\^\s*\{?\s*-?\d{1,2}(?!\d)|\\(?:frac|sqrt|pi|cdot|times)(?![A-Za-z])){1,60}")


def normal_form(text: str) -> str:
    """One form of layout, units, fractions and roots: the rules of the MATH authors (Hendrycks et al. 2021, arXiv
    2103.03874), in their order."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def vote_form(text: str) -> str:
    """One text for answers that mean the same: 1,000 and 1000.0, \\frac12 and 0.5, 2\\sqrt2 and \\sqrt8, {1, 2} and
    {2, 1}; units and names before = are left out. Expressions with letters are one where their normal forms are."""
    plain = normal_form(text)
    try:
        if not plain or len(text) > LONGEST or re.search(r"[=<>]|\\(?:[lg]e|ne)", plain):
            return plain
        return _form(parse(text.rpartition("=")[2]))
    except (UnreadableMath, *SYMPY_GAVE_UP):
        return plain


def _form(value: AnswerValue) -> str:
    if isinstance(value, ValueGroup):
        items = map(_form, value.items)
        return f"{value.kind} {', '.join(sorted(items) if value.kind in ('list', 'union') else items)}"
    text = getattr(value, "text", "")
    if isinstance(value, ScalarValue) and _CONSTANT.fullmatch(text):
        return _number(text)
    return normal_form(text) or repr(value)


def _number(text: str) -> str:
    """Exactly where it is rational, and small, else to 30 digits."""
    try:
        return str(Fraction(text))
    except (ValueError, ZeroDivisionError):
        number = read(text)
        return str(number if number.is_Rational and max(abs(number.p), number.q) < 10**30 else number.evalf(30))
