"""Whether two answers say the same.

Lists and sets have no order and equal each other; tuples have one; (1, 2) is not {1, 2}; (a, b) is not [a, b]. Ranges
are what they describe: 3 < x <= 4 is (3, 4], x != 5 is (-oo, 5) with (5, oo), and x = 2, y = 3 is (2, 3).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import sympy

from rlvr_limit.grading.math import equality, expression, units
from rlvr_limit.grading.math.answers import (
    FUNCTION,
    NAME,
    AnswerValue,
    BaseNumeral,
    NamedValue,
    RelationValue,
    ScalarValue,
    TextValue,
    ValueGroup,
    words,
)
from rlvr_limit.grading.math.latex import tokens

_UNORDERED = ("list", "union", "=")
_FLIPPED = {"=": "=", "<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}


def equivalent(a: AnswerValue, b: AnswerValue) -> bool:
    """Whether two answers say the same. Symmetric. Raises UnreadableMath where it depends on what cannot be read."""
    if a == b:
        return True
    if isinstance(a, NamedValue) or isinstance(b, NamedValue):
        return _same_equations(a, b)
    if isinstance(a, RelationValue) or isinstance(b, RelationValue):
        return _same_relations(a, b)
    if isinstance(a, ValueGroup) or isinstance(b, ValueGroup):
        return _same_groups(a, b)
    if isinstance(a, BaseNumeral) or isinstance(b, BaseNumeral):
        return _digits(a) == _digits(b) if not (isinstance(a, BaseNumeral) and isinstance(b, BaseNumeral)) else False
    if isinstance(a, TextValue) or isinstance(b, TextValue):
        return words(a.text) == words(b.text)
    return _same_scalars(a, b)


def merged(group: ValueGroup) -> AnswerValue:
    """The one item of a list that says the same several times, as in `1\\frac{1}{2} or 1.5`; other groups unchanged."""
    alike = group.kind == "list" and group.items and all(equivalent(group.items[0], item) for item in group.items[1:])
    return group.items[0] if alike else group


def _digits(value: AnswerValue) -> str:
    return value.digits if isinstance(value, BaseNumeral) else value.text.upper()


def _same_scalars(a: ScalarValue, b: ScalarValue) -> bool:
    if not units.agree(a.unit, b.unit):
        return a.unit in ("deg", "rad") and b.unit in ("deg", "rad") and equality.equal(_radians(a), _radians(b))
    left, right = expression.read(a.text), expression.read(b.text)
    if equality.equal(left, right):
        return True
    if {a.unit, b.unit} == {units.DEGREE, ""}:
        return equality.equal(_radians(a), _radians(b))
    return False


def _radians(value: ScalarValue) -> sympy.Expr:
    number = expression.read(value.text)
    return number * sympy.pi / 180 if value.unit == units.DEGREE else number


def _same_equations(a: AnswerValue, b: AnswerValue) -> bool:
    if isinstance(a, NamedValue) and isinstance(b, NamedValue):
        if a.name != b.name or bool(a.argument) != bool(b.argument):
            return False
        return equivalent(a.value, _renamed(b.value, b.argument, a.argument) if a.argument != b.argument else b.value)
    equation, other = (a, b) if isinstance(a, NamedValue) else (b, a)
    if isinstance(other, RelationValue) and isinstance(equation.value, ValueGroup):
        return _same_relations(equation.value, other)
    if isinstance(other, RelationValue):
        return isinstance(equation.value, ScalarValue) and _same_relations(
            RelationValue((equation.name, equation.value.text), ("=",)), other
        )
    return equivalent(equation.value, other)


def _renamed(value: AnswerValue, old: str, new: str) -> AnswerValue:
    if not isinstance(value, ScalarValue):
        return value
    letters = (new if token == old else token for token, _ in tokens(value.text))
    return ScalarValue("".join(letters), value.unit)


def _same_relations(a: AnswerValue, b: AnswerValue) -> bool:
    if isinstance(a, RelationValue) and isinstance(b, RelationValue):
        if a.signs == b.signs == ("=",):
            (a1, a2), (b1, b2) = map(_read_all, (a.sides, b.sides))
            return equality.proportional(a1 - a2, b1 - b2)
        flipped = RelationValue(b.sides[::-1], tuple(_FLIPPED[sign] for sign in b.signs[::-1]))
        return any(
            a.signs == c.signs and all(map(equality.equal, _read_all(a.sides), _read_all(c.sides)))
            for c in (b, flipped)
        )
    relation, other = (a, b) if isinstance(a, RelationValue) else (b, a)
    interval = _interval(relation)
    return interval is not None and isinstance(other, ValueGroup) and _same_groups(interval, other)


def _read_all(sides: Sequence[str]) -> list[sympy.Expr]:
    return [expression.read(side) for side in sides]


def _interval(relation: RelationValue) -> ValueGroup | None:
    """x > 2 as (2, oo), -2 <= x < 7 as [-2, 7), x != 5 as a union of two; None for anything else."""
    sides, signs = relation.sides, relation.signs
    if set(signs) == {r"\ne"}:
        return _all_but(sides[1:]) if NAME.fullmatch(sides[0]) else None
    if signs[0] in (">", r"\ge"):
        sides, signs = sides[::-1], tuple(_FLIPPED[sign] for sign in signs[::-1])
    if not all(sign in ("<", r"\le") for sign in signs):
        return None
    if len(sides) == 2:
        if NAME.fullmatch(sides[0]):
            sides, signs = (r"-\infty", *sides), ("<", *signs)
        else:
            sides, signs = (*sides, r"\infty"), (*signs, "<")
    if len(sides) != 3 or not (NAME.fullmatch(sides[1]) or FUNCTION.fullmatch(sides[1])):
        return None
    kind = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
    return ValueGroup(kind, (ScalarValue(sides[0]), ScalarValue(sides[2])))


def _all_but(points: Sequence[str]) -> ValueGroup | None:
    """The real numbers without some points, as a union of open intervals."""
    values = {point: expression.read(point) for point in points}
    if not all(value.is_number and value.is_real for value in values.values()):
        return None
    ends = [r"-\infty", *sorted(points, key=lambda point: values[point].evalf(30)), r"\infty"]
    return ValueGroup(
        "union", tuple(ValueGroup("()", (ScalarValue(a), ScalarValue(b))) for a, b in itertools.pairwise(ends))
    )


def _described(group: ValueGroup, kind: str) -> ValueGroup:
    """A list of ranges of one name as a union, a list of equations of different names in order as a tuple."""
    if group.kind != "list" or not group.items:
        return group
    if kind == "union" and all(isinstance(item, RelationValue) for item in group.items):
        names = {side for item in group.items for side in item.sides if NAME.fullmatch(side)}
        intervals = [_interval(item) for item in group.items]
        return ValueGroup("union", tuple(intervals)) if len(names) == 1 and None not in intervals else group
    names = [item.name for item in group.items if isinstance(item, NamedValue) and not item.argument]
    if kind == "()" and len({*names}) == len(group.items) and names == sorted(names):
        return ValueGroup("()", tuple(item.value for item in group.items))
    return group


def _same_groups(a: AnswerValue, b: AnswerValue) -> bool:
    if not isinstance(a, ValueGroup) or not isinstance(b, ValueGroup):
        group, other = (a, b) if isinstance(a, ValueGroup) else (b, a)
        return group.kind == "list" and len(group.items) == 1 and equivalent(group.items[0], other)
    a, b = _described(a, b.kind), _described(b, a.kind)
    if a.kind == b.kind and len(a.items) == len(b.items):
        return _match(a.items, b.items) if a.kind in _UNORDERED else all(map(equivalent, a.items, b.items))
    return False


def _match(a: Sequence[AnswerValue], b: Sequence[AnswerValue]) -> bool:
    """Whether the items pair off. Sameness is an equivalence, so the first partner that fits is as good as any."""
    left = list(b)
    for item in a:
        place = next((i for i, other in enumerate(left) if equivalent(item, other)), None)
        if place is None:
            return False
        del left[place]
    return True
