"""Whether two answers say the same.

Lists and sets have no order and equal each other; tuples have one; (1, 2) is not {1, 2}; (a, b) is not [a, b]. Ranges
are what they describe: 3 < x <= 4 is (3, 4], x != 5 is (-oo, 5) with (5, oo), and x = 2, y = 3 is (2, 3).
"""

import itertools
import re
from collections.abc import Sequence

import sympy

from rlvr_limit.grading.math import equality, units, values
from rlvr_limit.grading.math.expression import UndefinedMath, UnreadableMath, read
from rlvr_limit.grading.math.latex import tokens
from rlvr_limit.grading.math.values import AnswerValue, NamedValue, RelationValue, ScalarValue, ValueGroup

_FORMULA = re.compile(r"\d|\\(?!text)[A-Za-z]+|[=^_+*/<>]")
_PLAIN_NAME = re.compile(r"\(?[A-Za-z]+\s*[-_ ]?\{?\d*\}?\)?")
# f(3), f^{-1}(2), P(A \cap B), E[X], \sin A; x(x+1) is a product.
_CALLED = re.compile(
    r"(?:[a-zA-Z]'*(?:\s*\^\s*\{?\s*-1\s*\}?)?(?:_(?:\w|\{\w+\}))?|\\(?:mathbb\s*\{[A-Z]\}|[A-Z][a-z]+|gcd|max|min|operatorname\{\w+\}))"
    r"\s*(?:\(\s*(?:-?\d[\d./]*(?:\s*,\s*-?\d+)*|[A-Z][^()]*|-?\\frac[^()]*|[a-zA-Z]\(-?\d+\))\s*\)|\[[^\[\]]*\])"
    r"|\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])\s*\(?\s*(?:\\?[A-Za-z]+(?:\s+[A-Z]+)?)\s*\)?"
)
_BAR = r"(?:\\?\||\\[lr]?[vV]ert(?![A-Za-z]))"
_MEASURED = re.compile(rf"{_BAR}\s*(?:[A-Z]\w*|[zwv]|\\vec.*)\s*{_BAR}|\[[A-Z]{{2,}}\]")
_ABSOLUTE = re.compile(r"\|\s*([A-Za-z])\s*\|")
_WORDS = re.compile(r"[A-Za-z]{2,}|[^\x00-\x7f]")
# 6 or more is no 6, whatever it is.
_COMPARING = re.compile(r"more|less|fewer|greater|least|most|not")
_UNORDERED = ("list", "union", "=")
_FLIPPED = {"=": "=", "<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}
_PRECEDENCE = (NamedValue, RelationValue, ValueGroup, values.BaseNumeral, values.TextValue, ScalarValue)


def equivalent(a: AnswerValue, b: AnswerValue) -> bool:
    """Whether two answers say the same. Symmetric. Raises UnreadableMath where it depends on what cannot be read."""
    if a == b:
        return True
    a, b = _met(a), _met(b)
    a, b = sorted((a, b), key=lambda value: _PRECEDENCE.index(type(value)))
    match a:
        case NamedValue():
            return _named_equivalent(a, b)
        case RelationValue():
            return _relation_equivalent(a, b)
        case ValueGroup():
            return _group_equivalent(a, b)
        case values.BaseNumeral():
            return not isinstance(b, values.BaseNumeral) and a.digits == b.text.upper()
        case values.TextValue():
            return _words_equivalent(a.text, b.text)
    return _scalars_equivalent(a, b)


def _words_equivalent(a: str, b: str) -> bool:
    """Words with numbers or formulas among them are unreadable, unless they are the same ones."""
    said, other = values.words(a), values.words(b)
    if said == other:
        return True
    for text in (a, b):
        is_mixed = _WORDS.search(text) and _FORMULA.search(text)
        if is_mixed and not _PLAIN_NAME.fullmatch(text) and not _COMPARING.search(text):
            raise UnreadableMath(f"words and mathematics in {text!r}")
    return False


def _met(value: AnswerValue) -> AnswerValue:
    """x > 1, x < 2 as (1, 2): both hold, as either one would say nothing."""
    if not (isinstance(value, ValueGroup) and value.kind == "list" and len(value.items) == 2):
        return value
    if not all(isinstance(item, RelationValue) and len(item.signs) == 1 for item in value.items):
        return value
    intervals = [_interval(item) for item in value.items]
    names = {side for item in value.items for side in item.sides if values.NAME.fullmatch(side)}
    if None in intervals or len(names) != 1:
        return value
    low = [i for i in intervals if i.items[1].text == r"\infty"]
    high = [i for i in intervals if i.items[0].text == r"-\infty"]
    if len(low) != 1 or len(high) != 1:
        return value
    start, end = read(low[0].items[0].text), read(high[0].items[1].text)
    if not (start.is_number and end.is_number and start.is_real and end.is_real) or (start >= end) == True:  # noqa: E712
        return value
    return ValueGroup(low[0].kind[0] + high[0].kind[1], (low[0].items[0], high[0].items[1]))


def without_left_sides(value: AnswerValue) -> AnswerValue:
    """m + n = 293, f(3) = 12 and |AB| = 12 as their values; an equation in one name, as 2x = 10, stays one."""
    if isinstance(value, ValueGroup) and value.kind == "list":
        return ValueGroup("list", tuple(map(without_left_sides, value.items)))
    if not isinstance(value, RelationValue) or {*value.signs} != {"="}:
        return value
    for asked, given in ((value.sides[0], value.sides[-1]), (value.sides[-1], value.sides[0])):
        number, unit = units.split_unit(given)
        if _is_asked_for(asked) and not _names(number):
            return ScalarValue(number, unit)
    return value


def _is_asked_for(side: str) -> bool:
    """Several names, words, a value of a function, |AB|, [ABC]: no unknown that is still to be found."""
    if _CALLED.fullmatch(side) or _MEASURED.fullmatch(side) or r"\text" in side:
        return True
    return len(_names(side)) > 1


def _names(text: str) -> set[str]:
    plain = re.sub(r"\\(?:pi|frac|sqrt|cdot|times|infty|left|right|text\s*\{[^{}]*\})(?![A-Za-z])", " ", text)
    return {*re.findall(r"\\[A-Za-z]+|[A-Za-z](?:_(?:\w|\{\w+\}))?", plain)} - {"e", "i"}


def merged(group: ValueGroup) -> AnswerValue:
    """The one item of a list that says the same several times, as in `1\\frac{1}{2} or 1.5`; other groups unchanged."""
    alike = group.kind == "list" and group.items and all(equivalent(group.items[0], item) for item in group.items[1:])
    return group.items[0] if alike else group


def _scalars_equivalent(a: ScalarValue, b: ScalarValue) -> bool:
    if not units.compatible(a.unit, b.unit):
        return {a.unit, b.unit} <= {"deg", "rad"} and equality.equal(_radians(a), _radians(b))
    if equality.equal(*_both_read(a.text, b.text)):
        return True
    return {a.unit, b.unit} == {units.DEGREE, ""} and equality.equal(_radians(a), _radians(b))


def _both_read(a: str, b: str) -> tuple[sympy.Expr, sympy.Expr]:
    """Raises UnreadableMath where either cannot be read, and only otherwise UndefinedMath: whichever comes first."""
    try:
        first = read(a)
    except UndefinedMath:
        read(b)
        raise
    return first, read(b)


def _radians(value: ScalarValue) -> sympy.Expr:
    number = read(value.text)
    return number * sympy.pi / 180 if value.unit == units.DEGREE else number


def _named_equivalent(a: NamedValue, b: AnswerValue) -> bool:
    if isinstance(b, NamedValue):
        if a.name != b.name or bool(a.argument) != bool(b.argument):
            return False
        return equivalent(a.value, _renamed(b.value, b.argument, a.argument) if a.argument != b.argument else b.value)
    if not isinstance(b, RelationValue):
        return equivalent(a.value, b)
    if isinstance(a.value, ValueGroup):
        return _relation_equivalent(b, a.value)
    return isinstance(a.value, ScalarValue) and _relation_equivalent(RelationValue((a.name, a.value.text), ("=",)), b)


def _renamed(value: AnswerValue, old: str, new: str) -> AnswerValue:
    if not isinstance(value, ScalarValue):
        return value
    return ScalarValue("".join(new if token == old else token for token, _ in tokens(value.text)), value.unit)


def _relation_equivalent(a: RelationValue, b: AnswerValue) -> bool:
    if not isinstance(b, RelationValue):
        interval = _interval(a)
        return interval is not None and isinstance(b, ValueGroup) and _group_equivalent(interval, b)
    if a.signs == b.signs == ("=",):
        (a1, a2), (b1, b2) = map(read, a.sides), map(read, b.sides)
        return equality.proportional(a1 - a2, b1 - b2)
    measured, other = (a, b) if _ABSOLUTE.fullmatch(a.sides[0]) else (b, a)
    if (size := _ABSOLUTE.fullmatch(measured.sides[0])) and not _ABSOLUTE.fullmatch(other.sides[0]):
        named = {side for side in other.sides if values.NAME.fullmatch(side)} == {size[1]}
        interval = _interval(other) if named else None
        return interval is not None and _relation_equivalent(measured, interval)
    flipped = RelationValue(b.sides[::-1], tuple(_FLIPPED[sign] for sign in b.signs[::-1]))
    return any(
        a.signs == c.signs and all(map(equality.equal, [*map(read, a.sides)], [*map(read, c.sides)]))
        for c in (b, flipped)
    )


def _interval(relation: RelationValue) -> ValueGroup | None:
    """x > 2 as (2, oo), -2 <= x < 7 as [-2, 7), x != 5 as a union of two; None for anything else."""
    sides, signs = relation.sides, relation.signs
    if len(sides) == 2 and signs[0] in ("<", r"\le") and (inside := _ABSOLUTE.fullmatch(sides[0])):
        sides, signs = (f"-({sides[1]})", inside[1], sides[1]), signs * 2
    if set(signs) == {r"\ne"}:
        return _all_but(sides[1:]) if values.NAME.fullmatch(sides[0]) else None
    if signs[0] in (">", r"\ge"):
        sides, signs = sides[::-1], tuple(_FLIPPED[sign] for sign in signs[::-1])
    if not all(sign in ("<", r"\le") for sign in signs):
        return None
    if len(sides) == 2:
        if values.NAME.fullmatch(sides[0]):
            sides, signs = (r"-\infty", *sides), ("<", *signs)
        else:
            sides, signs = (*sides, r"\infty"), (*signs, "<")
    if len(sides) != 3 or not (values.NAME.fullmatch(sides[1]) or values.FUNCTION.fullmatch(sides[1])):
        return None
    kind = ("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]")
    return ValueGroup(kind, (ScalarValue(sides[0]), ScalarValue(sides[2])))


def _all_but(points: Sequence[str]) -> ValueGroup | None:
    """The real numbers without some points, as a union of open intervals."""
    numbers = {point: read(point) for point in points}
    if not all(number.is_number and number.is_real for number in numbers.values()):
        return None
    ends = [r"-\infty", *sorted(points, key=lambda point: numbers[point].evalf(30)), r"\infty"]
    pairs = itertools.pairwise(map(ScalarValue, ends))
    return ValueGroup("union", tuple(ValueGroup("()", pair) for pair in pairs))


def _described(group: ValueGroup, kind: str) -> ValueGroup:
    """A list of ranges of one name as a union, a list of equations of different names in order as a tuple."""
    if group.kind != "list" or not group.items:
        return group
    if kind == "union" and all(isinstance(item, RelationValue) for item in group.items):
        names = {side for item in group.items for side in item.sides if values.NAME.fullmatch(side)}
        intervals = [_interval(item) for item in group.items]
        return ValueGroup("union", tuple(intervals)) if len(names) == 1 and None not in intervals else group
    names = [item.name for item in group.items if isinstance(item, NamedValue) and not item.argument]
    if kind == "()" and len({*names}) == len(group.items) and names == sorted(names):
        return ValueGroup("()", tuple(item.value for item in group.items))
    return group


def _in_rows(group: ValueGroup) -> ValueGroup:
    """[[1, 2], [3, 4]] as a matrix."""
    rows = group.items
    if group.kind not in ("[]", "()") or not all(
        isinstance(row, ValueGroup) and row.kind == group.kind for row in rows
    ):
        return group
    return ValueGroup("matrix", tuple(ValueGroup("row", row.items) for row in rows))


def _group_equivalent(a: ValueGroup, b: AnswerValue) -> bool:
    if not isinstance(b, ValueGroup):
        if a.kind == "matrix" and isinstance(b, ScalarValue) and re.search("[A-Z]", b.text):
            raise UnreadableMath(f"{b.text!r} beside a matrix")
        return a.kind == "list" and len(a.items) == 1 and equivalent(a.items[0], b)
    if {a.kind, b.kind} == {"list", "()"} and (
        single := next((c for c in (a, b) if c.kind == "list" and len(c.items) == 1), None)
    ):
        return equivalent(single.items[0], b if single is a else a)
    a, b = _described(a, b.kind), _described(b, a.kind)
    a, b = (_in_rows(group) if "matrix" in (a.kind, b.kind) else group for group in (a, b))
    if a.kind != b.kind or len(a.items) != len(b.items):
        return False
    return _pair_off(a.items, b.items) if a.kind in _UNORDERED else all(map(equivalent, a.items, b.items))


def _pair_off(a: Sequence[AnswerValue], b: Sequence[AnswerValue]) -> bool:
    """Equivalence is transitive, so the first partner that fits an item is as good as any."""
    left = list(b)
    for item in a:
        place = next((i for i, other in enumerate(left) if equivalent(item, other)), None)
        if place is None:
            return False
        del left[place]
    return True
