"""Sums and products of matrices and numbers, written out as the texts of the entries."""

import re
from itertools import pairwise

from rlvr_limit.grading.math.expression import UnreadableMath
from rlvr_limit.grading.math.latex import enclosed, split, tokens

MATRIX = re.compile(r"\\begin\s*\{([bpB]?matrix|array|smallmatrix)\}(?:\s*\{[lcr| ]*\})?(.*?)\\end\s*\{\1\}", re.DOTALL)
DETERMINANT = re.compile(r"\\begin\s*\{[vV]matrix\}|\\(?:det|text\s*\{\s*(?:det|tr)\s*\})\W*\\begin")
MAX_ENTRIES = 64

Rows = tuple[tuple[str, ...], ...]

_ROW = re.compile(r"\\\\(?:\[[^\]]*\])?|\\cr(?![A-Za-z])")
_ARRAY = r"\s*(\\begin\s*\{array\}.*?\\end\s*\{array\})\s*"
_BRACKETED = re.compile(rf"\({_ARRAY}\)|\[{_ARRAY}\]", re.DOTALL)
_TRANSPOSED = re.compile(
    r"\s*\^\s*(?:\{\s*(?:\\text\s*\{\s*)?(?:T|\\top|\\intercal)\s*\}?\s*\}|T|\\top(?![A-Za-z])|\\intercal)"
)
_POINT = re.compile(r"^(?:\s|\\cdot|\\times|\*)+|(?:\s|\\cdot|\\times|\*)+$")


def alone(text: str) -> Rows | None:
    """The entries of a text that is one matrix; None for any other."""
    match = MATRIX.fullmatch(text)
    return rows_of(match[2]) if match and text.count(r"\begin") == 1 else None


def rows_of(body: str) -> Rows:
    """The entries between \\begin and \\end."""
    return tuple(tuple(entry.strip() for entry in row.split("&")) for row in _ROW.split(body) if row.strip())


def worked_out(text: str) -> Rows:
    """The matrix that a sum of products stands for. Raises UnreadableMath for powers and what does not fit."""
    text = _BRACKETED.sub(lambda match: match[1] or match[2], text)
    terms = [_term(sign, term) for sign, term in _signed_terms(text)]
    total = terms[0]
    for term in terms[1:]:
        if _shape(term) != _shape(total):
            raise UnreadableMath("a sum of matrices of unlike shapes")
        total = tuple(
            tuple(f"({x}) + ({y})" for x, y in zip(*rows, strict=True)) for rows in zip(total, term, strict=True)
        )
    return total


def _signed_terms(text: str) -> list[tuple[str, str]]:
    """(sign, term) of a sum: signs inside brackets and matrices belong to the terms."""
    places, place, environments = [], 0, 0
    for token, depth in tokens(text):
        environments += (token == r"\begin") - (token == r"\end")
        if token in ("+", "-") and depth == environments == 0 and text[:place].strip():
            places.append(place)
        place += len(token)
    parts = [text[start:stop].strip() for start, stop in pairwise([0, *places, len(text)])]
    return [("-" if part.startswith("-") else "", part.lstrip("+-").strip()) for part in parts if part]


def _term(sign: str, text: str) -> Rows:
    """A product of numbers and matrices, in order."""
    value: Rows | None = None
    factor, place = "1", 0
    for match in MATRIX.finditer(text):
        factor = _times(factor, text[place : match.start()])
        rows, place = rows_of(match[2]), match.end()
        if transposed := _TRANSPOSED.match(text, place):
            rows, place = tuple(zip(*rows, strict=True)), transposed.end()
        value = rows if value is None else _product(value, rows)
    factor = _times(factor, text[place:])
    if value is None:
        raise UnreadableMath(f"a number {text!r} beside matrices")
    if len({len(row) for row in value}) != 1 or sum(map(len, value)) > MAX_ENTRIES:
        raise UnreadableMath("a matrix of unlike rows, or a large one in a sum or product")
    return tuple(tuple(f"{sign}({factor}) * ({entry})" for entry in row) for row in value)


def _times(factor: str, between: str) -> str:
    number = _POINT.sub("", between.strip())
    if not number:
        return factor
    if number[0] in "^_/!'" or r"\begin" in number or len(split(number, (",", ";", "="))) > 1:
        raise UnreadableMath(f"{number!r} beside a matrix")
    brackets = enclosed(number)
    if number.endswith("(") or (brackets and brackets[0] == "["):
        raise UnreadableMath(f"{number!r} beside a matrix")
    return number if factor == "1" else f"({factor}) * ({number})"


def _product(a: Rows, b: Rows) -> Rows:
    if {len(row) for row in a} != {len(b)} or len({len(row) for row in b}) != 1 or len(b) > MAX_ENTRIES:
        raise UnreadableMath("a product of matrices that do not fit")
    columns = tuple(zip(*b, strict=True))
    return tuple(
        tuple(" + ".join(f"({x}) * ({y})" for x, y in zip(row, column, strict=True)) for column in columns) for row in a
    )


def _shape(rows: Rows) -> list[int]:
    return [len(row) for row in rows]
