"""What an answer says: a number with its unit, words, a list, a tuple or interval, a matrix, an equation, a range.

parse.py reads an answer into one of these kinds; equivalence.py compares two of them.
"""

import re
from dataclasses import dataclass

from rlvr_limit.grading.math.latex import normalise

NAME = re.compile(r"(?:[A-Za-z]+'*|\\[A-Za-z]+)(?:_(?:\{[^{}]*\}+|\w))?")
FUNCTION = re.compile(r"([A-Za-z]'*|\\[A-Za-z]+)\s*\(\s*([A-Za-z])\s*\)")
TEXT_COMMAND = re.compile(r"\\text\s*\{([^{}]*)\}")


@dataclass(frozen=True)
class TextValue:
    """An answer in words, a choice or a name; without case, spaces, articles and signs."""

    text: str


@dataclass(frozen=True)
class ScalarValue:
    """One expression, as text that is read when it is compared, and its unit."""

    text: str
    unit: str = ""


@dataclass(frozen=True)
class BaseNumeral:
    """A numeral in a stated base: digits and base as written."""

    digits: str
    base: int


@dataclass(frozen=True)
class ValueGroup:
    """Several values."""

    kind: str  # "list" (also a set) or "union", both without order; "matrix", "row", ":", "=", or brackets as in "(]"
    items: tuple["AnswerValue", ...]


@dataclass(frozen=True)
class NamedValue:
    """name = value where the left side is a name, or f(x); argument is x of f(x), otherwise empty."""

    name: str
    argument: str
    value: "AnswerValue"


@dataclass(frozen=True)
class RelationValue:
    """a = b, a < b or a < b < c, not of the form name = value: sides as text, signs in between."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]


AnswerValue = TextValue | ScalarValue | BaseNumeral | ValueGroup | NamedValue | RelationValue


def words(text: str) -> str:
    """Letters, digits and arithmetic signs, small, without a leading article; the text itself where none is left."""
    plain = TEXT_COMMAND.sub(r" \1 ", normalise(text)).lower()
    plain = re.sub(r"^\s*(?:the|an|a)\s+(?=\S)", "", plain)
    return re.sub(r"[^\w+\-*/=<>^]", "", plain) or text
