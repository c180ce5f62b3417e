"""What an answer says: a number with its unit, words, a list, a tuple or interval, a matrix, an equation, a range.

`parse` gives the structure by the brackets, separators and relations of the text; `same` compares two structures. Lists
and sets have no order and equal each other; tuples have one; (1, 2) is not {1, 2}; (a, b) is not [a, b].
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import sympy

from rlvr_limit.grading import equality, expression, units
from rlvr_limit.grading.expression import Unreadable
from rlvr_limit.grading.latex import enclosed, normalise, split, tokens


@dataclass(frozen=True)
class Words:
    """An answer in words, a choice or a name; without case, spaces, articles and signs."""

    text: str


@dataclass(frozen=True)
class Scalar:
    """One expression as text (read when it is compared) and its unit."""

    text: str
    unit: str = ""


@dataclass(frozen=True)
class Based:
    """A numeral in a stated base: digits and base as written."""

    digits: str
    base: int


@dataclass(frozen=True)
class Group:
    """Items: kind is "list" (also a set; no order), "union" (no order), "matrix", "row", ":" or brackets as in "(]"."""

    kind: str
    items: tuple[Value, ...]


@dataclass(frozen=True)
class Equation:
    """name = value where the left side is a name or f(x); argument is x of f(x), otherwise empty."""

    name: str
    argument: str
    value: Value


@dataclass(frozen=True)
class Relation:
    """a = b, a < b or a < b < c, not of the form name = value: sides as text, signs in between."""

    sides: tuple[str, ...]
    signs: tuple[str, ...]


Value = Words | Scalar | Based | Group | Equation | Relation

_UNORDERED = ("list", "union", "=")
_SIGNS = ("=", "<", ">", r"\le", r"\ge", r"\ne")
_FLIPPED = {"=": "=", "<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}
_THOUSANDS = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_BASED = re.compile(r"(-?)\(?([0-9A-Za-z]+)\)?\s*_\s*(?:\{\s*(\d+)\s*\}|(\d+))")
_MIXED = re.compile(r"(-?)\s*(\d+)\s+(\d+)\s*/\s*(\d+)")
_NAME = re.compile(r"(?:[A-Za-z]+'*|\\[A-Za-z]+)(?:_(?:\{[^{}]*\}+|\w))?")
_FUNCTION = re.compile(r"([A-Za-z]'*|\\[A-Za-z]+)\s*\(\s*([A-Za-z])\s*\)")
_HALF_OPEN = re.compile(r"^([A-Za-z])\s*(\([^()\[\]]*\]|\[[^()\[\]]*\))$")
_MATRIX = re.compile(
    r"\\begin\s*\{([bpvBV]?matrix|array|smallmatrix)\}(?:\s*\{[lcr| ]*\})?(.*)\\end\s*\{\1\}", re.DOTALL
)
_CONNECTED = re.compile(
    r"\s*,?\s*(?:\\text\s*\{[\s,]*(?:and|or)[\s,]*\}|\\(?:lor|vee|land)(?![A-Za-z])|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*"
)
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_ALL_TEXT = re.compile(r"(?:\s*\\text\s*\{[^{}]*\}\s*)+")
_LABEL = re.compile(r"\\text\s*\{([^{}]*(?:is|are|be|:))\s*\}\s*(?=\S)")
_COMMAND_WORDS = re.compile(r"\\[A-Za-z]+|\{|\}")


def parse(text: str, thousands: bool = True) -> Value:
    """The structure of one answer; thousands=False takes 100,200 as two numbers. Raises Unreadable on no content."""
    text = normalise(text)
    if _ALL_TEXT.fullmatch(text):
        text = normalise(_TEXT.sub(r"\1", text))
    text = _CONNECTED.sub(", ", text).strip(", ")
    if not text:
        raise Unreadable("nothing is left of the answer")
    if max(depth for _, depth in tokens(text)) > expression.MAX_DEPTH:
        raise Unreadable(f"brackets more than {expression.MAX_DEPTH} deep")
    return _parse(text, thousands)


def _parse(text: str, thousands: bool) -> Value:
    if thousands and _THOUSANDS.fullmatch(units.cut(text)[0]):
        number, unit = units.cut(text)
        return Scalar(number.replace(",", ""), unit)
    inside = text.removeprefix(r"\quad").strip()
    union = split(inside, (r"\cup",))
    if len(union) > 1:
        return Group("union", tuple(_parse(part, False) for part in union))
    brackets = enclosed(inside)
    if brackets:
        return _bracketed(*brackets, thousands)
    items = split(inside, (",", ";"))
    if len(items) > 1:
        return Group("list", tuple(found for item in items if item for found in _item(item, thousands)))
    found = _item(inside, thousands)
    return found[0] if len(found) == 1 else Group("list", tuple(found))


def _bracketed(opening: str, inside: str, closing: str, thousands: bool) -> Value:
    items = [item for item in split(inside, (",", ";")) if item]
    if opening == r"\{" and closing == r"\}":
        return Group("list", tuple(found for item in items for found in _item(item, False)))
    if len(items) > 1 and opening != "{":
        return Group(opening + closing, tuple(_parse(item, False) for item in items))
    if not items:
        raise Unreadable("empty brackets")
    matrix = _MATRIX.fullmatch(inside)
    return _matrix(matrix[2]) if matrix else _parse(inside, thousands)


def _item(text: str, thousands: bool) -> list[Value]:
    """One item without separators outside brackets; two where it holds a plus-minus sign."""
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        return [_matrix(matrix[2])]
    if _signs(text, (r"\pm", r"\mp")):
        upper = text.replace(r"\pm", "+").replace(r"\mp", "-")
        lower = text.replace(r"\pm", "-").replace(r"\mp", "+")
        return [_single(upper.strip().removeprefix("+"), thousands), _single(lower, thousands)]
    return [_single(text, thousands)]


def _matrix(body: str) -> Group:
    rows = [row.strip() for row in re.split(r"\\\\(?:\[[^\]]*\])?|\\cr(?![A-Za-z])", body) if row.strip()]
    return Group("matrix", tuple(Group("row", tuple(_parse(e.strip(), True) for e in row.split("&"))) for row in rows))


def _signs(text: str, wanted: Sequence[str]) -> list[str]:
    return [token for token, depth in tokens(text) if token in wanted and depth == 0]


def _single(text: str, thousands: bool) -> Value:
    text = next(filter(None, split(_LABEL.sub("", text), (r"\approx",))), text)
    if enclosed(text) and not (_signs(text, _SIGNS)):
        return _parse(text, thousands)
    member = split(_HALF_OPEN.sub(r"\1 \\in \2", text), (r"\in",))
    if len(member) == 2:
        return _named(member[0], member[1], thousands)
    signs = _signs(text, _SIGNS)
    if signs:
        return _related(split(text, _SIGNS), signs, thousands)
    if len(ratio := split(text, (":",))) > 1:
        return Group(":", tuple(_single(part, thousands) for part in ratio))
    return _plain(text)


def _related(sides: list[str], signs: list[str], thousands: bool) -> Value:
    if set(signs) == {"="}:
        left, right = sides[0], sides[-1]
        if all(re.fullmatch(r"[A-Z]{2,}", side) for side in sides):
            return Group("=", tuple(Words(words(side)) for side in sides))
        if _NAME.fullmatch(left) or _FUNCTION.fullmatch(left) or _is_label(left) or _same_amount(left, right):
            return _named(left, right, thousands)
        if len(sides) == 2 and _NAME.fullmatch(right) and not _NAME.fullmatch(left):
            return _named(right, left, thousands)
    return Relation(tuple(sides), tuple(signs))


def _is_label(text: str) -> bool:
    """\\angle BEA_1, AB, (x, y) or words: what is named is no expression."""
    return bool(
        re.fullmatch(r"\\(?:angle|triangle|overline|text)\s*.*|[A-Z]{2,}|\([A-Za-z](?:\s*,\s*[A-Za-z])+\)", text)
    )


def _same_amount(left: str, right: str) -> bool:
    """Whether left is a sum worked out on the right, as in 2 + 3 = 5 or 0.56 = 56\\%."""
    try:
        a, b = (_amount(side) for side in (left, right))
        return not a.free_symbols and not b.free_symbols and equality.equal(a, b)
    except Unreadable:
        return False


def _amount(text: str) -> sympy.Expr:
    number, unit = units.cut(text)
    return expression.read(number) / (100 if unit == units.PERCENT else 1)


def _named(left: str, right: str, thousands: bool) -> Value:
    value = _parse(right, thousands)
    if function := _FUNCTION.fullmatch(left):
        return Equation(function[1], function[2], value)
    if _NAME.fullmatch(left) or _is_label(left):
        return Equation(re.sub(r"[\s{}]", "", left), "", value)
    return value


def _plain(text: str) -> Value:
    if based := _BASED.fullmatch(_TEXT.sub(r"\1", text)):
        sign, digits, base = based[1], based[2].upper(), int(based[3] or based[4])
        if digits[0].isdigit() or (len(digits) > 1 and base > 10):
            return Based(sign + (digits.lstrip("0") or "0"), base)
    number, unit = units.cut(text)
    if mixed := _MIXED.fullmatch(number):
        number = rf"{mixed[1]}({mixed[2]} + \frac{{{mixed[3]}}}{{{mixed[4]}}})"
    if r"\text" in number or _wordy(number):
        return Words(words(text))
    return Scalar(number, unit)


def _wordy(text: str) -> bool:
    """Three letters in a row outside commands, or foreign ones: no product of variables is written so."""
    return bool(re.search(r"[A-Za-z]{3,}|[A-Za-z]{2,}\s+[A-Za-z]{2,}|[^\x00-\x7f]", _COMMAND_WORDS.sub(" ", text)))


def words(text: str) -> str:
    """Letters, digits and arithmetic signs, small, without a leading article; the text itself where none is left."""
    plain = _TEXT.sub(r" \1 ", normalise(text)).lower()
    plain = re.sub(r"^\s*(?:the|an|a)\s+(?=\S)", "", plain)
    return re.sub(r"[^\w+\-*/=<>^]", "", plain) or text


def same(a: Value, b: Value) -> bool:
    """Whether two answers say the same. Symmetric. Raises Unreadable where an expression that decides is not read."""
    if a == b:
        return True
    if isinstance(a, Equation) or isinstance(b, Equation):
        return _same_equations(a, b)
    if isinstance(a, Relation) or isinstance(b, Relation):
        return _same_relations(a, b)
    if isinstance(a, Group) or isinstance(b, Group):
        return _same_groups(a, b)
    if isinstance(a, Based) or isinstance(b, Based):
        return _digits(a) == _digits(b) if not (isinstance(a, Based) and isinstance(b, Based)) else False
    if isinstance(a, Words) or isinstance(b, Words):
        return words(a.text) == words(b.text)
    return _same_scalars(a, b)


def merged(group: Group) -> Value:
    """The one item of a list that says the same several times, as in `1\\frac{1}{2} or 1.5`; other groups unchanged."""
    alike = group.kind == "list" and all(same(group.items[0], item) for item in group.items[1:])
    return group.items[0] if alike else group


def _digits(value: Value) -> str:
    return value.digits if isinstance(value, Based) else value.text.upper()


def _same_scalars(a: Scalar, b: Scalar) -> bool:
    if not units.agree(a.unit, b.unit):
        return a.unit in ("deg", "rad") and b.unit in ("deg", "rad") and equality.equal(_radians(a), _radians(b))
    left, right = expression.read(a.text), expression.read(b.text)
    if equality.equal(left, right):
        return True
    if {a.unit, b.unit} == {units.DEGREE, ""}:
        return equality.equal(_radians(a), _radians(b))
    return False


def _radians(value: Scalar) -> sympy.Expr:
    number = expression.read(value.text)
    return number * sympy.pi / 180 if value.unit == units.DEGREE else number


def _same_equations(a: Value, b: Value) -> bool:
    if isinstance(a, Equation) and isinstance(b, Equation):
        if a.name != b.name or bool(a.argument) != bool(b.argument):
            return False
        return same(a.value, _renamed(b.value, b.argument, a.argument) if a.argument != b.argument else b.value)
    equation, other = (a, b) if isinstance(a, Equation) else (b, a)
    if isinstance(other, Relation) and isinstance(equation.value, Group):
        return _same_relations(equation.value, other)
    if isinstance(other, Relation):
        return isinstance(equation.value, Scalar) and _same_relations(
            Relation((equation.name, equation.value.text), ("=",)), other
        )
    return same(equation.value, other)


def _renamed(value: Value, old: str, new: str) -> Value:
    if not isinstance(value, Scalar):
        return value
    letters = (new if token == old else token for token, _ in tokens(value.text))
    return Scalar("".join(letters), value.unit)


def _same_relations(a: Value, b: Value) -> bool:
    if isinstance(a, Relation) and isinstance(b, Relation):
        if a.signs == b.signs == ("=",):
            (a1, a2), (b1, b2) = map(_read_all, (a.sides, b.sides))
            return equality.proportional(a1 - a2, b1 - b2)
        flipped = Relation(b.sides[::-1], tuple(_FLIPPED[sign] for sign in b.signs[::-1]))
        return any(
            a.signs == c.signs and all(map(equality.equal, _read_all(a.sides), _read_all(c.sides)))
            for c in (b, flipped)
        )
    relation, other = (a, b) if isinstance(a, Relation) else (b, a)
    interval = _interval(relation)
    return interval is not None and isinstance(other, Group) and _same_groups(interval, other)


def _read_all(sides: Sequence[str]) -> list[sympy.Expr]:
    return [expression.read(side) for side in sides]


def _interval(relation: Relation) -> Group | None:
    """x > 2 as (2, oo) and -2 <= x < 7 as [-2, 7); None for anything else."""
    sides, signs = relation.sides, relation.signs
    if signs[0] in (">", r"\ge"):
        sides, signs = sides[::-1], tuple(_FLIPPED[sign] for sign in signs[::-1])
    if not all(sign in ("<", r"\le") for sign in signs):
        return None
    if len(sides) == 2:
        if _NAME.fullmatch(sides[0]):
            sides, signs = (r"-\infty", *sides), ("<", *signs)
        else:
            sides, signs = (*sides, r"\infty"), (*signs, "<")
    if len(sides) != 3 or not (_NAME.fullmatch(sides[1]) or _FUNCTION.fullmatch(sides[1])):
        return None
    kind = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
    return Group(kind, (Scalar(sides[0]), Scalar(sides[2])))


def _same_groups(a: Value, b: Value) -> bool:
    if not isinstance(a, Group) or not isinstance(b, Group):
        group, other = (a, b) if isinstance(a, Group) else (b, a)
        return group.kind == "list" and len(group.items) == 1 and same(group.items[0], other)
    if a.kind == b.kind and len(a.items) == len(b.items):
        return _match(a.items, b.items) if a.kind in _UNORDERED else all(map(same, a.items, b.items))
    return False


def _match(a: Sequence[Value], b: Sequence[Value]) -> bool:
    """Whether the items pair off. Sameness is an equivalence, so the first partner that fits is as good as any."""
    left = list(b)
    for item in a:
        place = next((i for i, other in enumerate(left) if same(item, other)), None)
        if place is None:
            return False
        del left[place]
    return True
