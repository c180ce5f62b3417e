"""The structure of an answer, by the brackets, separators and relations of its text."""

import re
from collections.abc import Iterable, Sequence

import sympy

from rlvr_limit.grading.math import equality, expression, matrices, units, values
from rlvr_limit.grading.math.expression import UnreadableMath
from rlvr_limit.grading.math.latex import enclosed, normalise, split, tokens
from rlvr_limit.grading.math.values import AnswerValue, NamedValue, RelationValue, ScalarValue, TextValue, ValueGroup

_SEPARATORS = (",", ";")
_SIGNS = ("=", "<", ">", r"\le", r"\ge", r"\ne")
# 12,345 alone, or behind a name, words or a sign of money and before a unit: nothing else has a comma or brackets.
_THOUSANDS = re.compile(
    r"((?:[^,()\[\]{}]|\\text\s*\{[^{}]*\})*?)(?<![\d.])(\d{1,3}(?:,\d{3})+(?:\.\d+)?)((?:[^,\d.][^,]*)?)", re.DOTALL
)
_IN_BASE = re.compile(r"(-?)\(?([0-9A-Za-z]+)\)?\s*_\s*(?:\{\s*(\d+)\s*\}|(\d+))")
_MIXED = re.compile(r"(-?)\s*(\d+)\s+(\d+)\s*/\s*(\d+)")
_NAMED_OBJECT = re.compile(r"\\(?:angle|triangle|overline|text)\s*.*|[A-Z]{2,}|\([A-Za-z](?:\s*,\s*[A-Za-z])+\)")
_HALF_OPEN = re.compile(r"^([A-Za-z])\s*(\([^()\[\]]*\]|\[[^()\[\]]*\))$")
_CONNECTED = re.compile(
    r"\s*,?\s*(?:\\text\s*\{[\s,]*(?:and|or)[\s,]*\}|\\(?:lor|vee|land)(?![A-Za-z])|(?<![A-Za-z\\])(?:and|or)(?![A-Za-z]))\s*"
)
_SPACED = re.compile(r"(-?\d{1,3}(?: \d{3})+(?:\.\d+)?)")
_IN_A_FIELD = r"\\in\s*(?:\\mathbb\s*\{?\s*[ZNRQC]\s*\}?|\\?[ZNRQC](?![A-Za-z]))(?:\s*[\^_]\s*(?:\{[^{}]*\}|\S))?"
_WORDS = r"\\text\s*\{[^{}]*\}"
_KINDS = r"(?:an?y?|some|all|every|each|arbitrary|real|(?:non-?)?negative|positive|integers?|numbers?|constants?)"
# k \in Z, (k, m \in \mathbb{Z}), where k is an integer: what a name behind an expression stands for.
_MEMBER = re.compile(
    rf"(?:(?:^|(?:[,;\s(]|{_WORDS})+)|(?:[,;(]|{_WORDS})\s*(?:[A-Za-z]\s*,\s*)+)(?P<name>[A-Za-z])(?:_\w)?\s*"
    rf"(?:{_IN_A_FIELD}|\\text\s*\{{\s*(?:is|are|be)?\s*{_KINDS}(?:\s+{_KINDS})*\s*\}}|(?:is|are)?\s+{_KINDS}(?:\s+{_KINDS})*)\s*\)?\s*$"
)
_QUALIFIED = re.compile(
    r"\s*[,;]?\s*\(?\s*(?:\\text\s*\{[\s,(]*(?:for|where|with)\b[^{}]*\}|\\forall(?![A-Za-z])"
    r"|(?<![A-Za-z\\])(?:for (?:all|any|every|each|some)|where)\b).*$",
    re.DOTALL,
)
_RELATED = re.compile(r"[<>=]|\\(?:le|ge|ne)(?![A-Za-z])")
_SET_OF = re.compile(r"(.+?)\s*(?:\\(?:mid|vert|colon)(?![A-Za-z])|[:|])\s*(.+)", re.DOTALL)
_REAL_NAME = re.compile(
    r"\(?([A-Za-z](?:\s*,\s*[A-Za-z])*)\)?(?:\s*\\in\s*(?:\\mathbb\s*\{?\s*R\s*\}?|\\?R)(?:\s*\^\s*\{?\d\}?)?)?"
)
_OR = re.compile(r"\s*,?\s*(?:\\text\s*\{[\s,]*or[\s,]*\}|\\(?:lor|vee)(?![A-Za-z])|(?<![A-Za-z\\])or(?![A-Za-z]))\s*")
_REALS = (r"\mathbb{R}", r"\text{all real numbers}", "all real numbers", r"\R")
# ]0, 1[ and [0, 1[ as (0, 1) and [0, 1).
_OUTWARD = re.compile(r"(?P<from>[\[\]])([^\[\](),]+,[^\[\](),]+)(?P<to>[\[\]])")
_NOTHING = re.compile(r"(?:thereare|thereis)?no(?:real|integer)?solutions?|emptyset")
_NUMERALS = "zero one two three four five six seven eight nine ten eleven twelve".split()
_ALL_TEXT = re.compile(r"(?:\s*\\text\s*\{[^{}]*\}\s*)+")
_LABEL = re.compile(r"\\text\s*\{([^{}]*(?:\b(?:is|are|be)|:))\s*\}\s*(?=\S)")
_COMMAND_OR_BRACE = re.compile(r"\\[A-Za-z]+|\{|\}")


def parse(text: str, thousands: bool = True) -> AnswerValue:
    """The structure of one answer; thousands=False takes 100,200 as two numbers. Raises UnreadableMath if empty."""
    name, equals, text = _LABEL.sub("", normalise(text)).rpartition("=")
    if _ALL_TEXT.fullmatch(text):
        text = normalise(values.TEXT_COMMAND.sub(r"\1", text))
    text = f"{name}{equals}{text}"
    qualified = _QUALIFIED.search(text)
    if qualified and text[: qualified.start()].strip(" ,"):
        if _RELATED.search(qualified[0]):  # f(x) = 2x for x > 0 is more than f(x) = 2x
            return TextValue(text)
        text = text[: qualified.start()]
    text = _without_member(text)
    if len(parts := _OR.split(text)) > 1 and all(re.search(r"[<>]|\\(?:le|ge)(?![A-Za-z])", part) for part in parts):
        text = r" \cup ".join(parts)
    text = _CONNECTED.sub(", ", text).strip(", ")
    if not text:
        raise UnreadableMath("nothing is left of the answer")
    if max(depth for _, depth in tokens(text)) > expression.MAX_DEPTH:
        raise UnreadableMath(f"brackets more than {expression.MAX_DEPTH} deep")
    return _parse(text, thousands)


def _without_member(text: str) -> str:
    """Without `k \\in Z` behind an expression."""
    member = _MEMBER.search(text)
    rest = text[: member.start()].strip() if member else ""
    return rest if rest and not values.NAME.fullmatch(rest) else text


def with_parameter_of(reference: str, answer: str) -> str:
    """n \\pi, n \\in Z with the letter that the reference has for n, where there is but one: 2k\\pi is 2n\\pi."""
    text = normalise(answer)
    member, theirs = _MEMBER.search(text), _letters(_without_member(normalise(reference)))
    if not member or member["name"] in theirs:
        return answer
    rest = text[: member.start()]
    others = "".join(theirs - _letters(rest))
    if len(others) != 1 or others in "xyz" or member["name"] not in _letters(rest):
        return answer
    return "".join(others if token == member["name"] else token for token, _ in tokens(rest))


def _letters(text: str) -> set[str]:
    return {token for token, _ in tokens(re.sub(_WORDS, " ", text)) if token.isalpha()} - {"e", "i"}


def _parse(text: str, thousands: bool) -> AnswerValue:
    if thousands and (grouped := _THOUSANDS.fullmatch(text)):
        text = f"{grouped[1]}{grouped[2].replace(',', '')}{grouped[3]}"
    inside = text.removeprefix(r"\quad").strip()
    if len(union := split(inside, (r"\cup",))) > 1:
        return ValueGroup("union", tuple(_parse(part, False) for part in union))
    outward = _OUTWARD.fullmatch(inside)
    if outward and (outward["from"], outward["to"]) != ("[", "]"):
        return _bracketed("[("[outward["from"] == "]"], outward[2], "])"[outward["to"] == "["], thousands)
    if brackets := enclosed(inside):
        return _bracketed(*brackets, thousands)
    without = split(inside, (r"\setminus", r"\backslash"))
    if len(without) == 2 and without[0] in _REALS and (points := enclosed(without[1])):
        left_out = split(points[1], _SEPARATORS)
        return RelationValue(("x", *left_out), (r"\ne",) * len(left_out))
    items = split(inside, _SEPARATORS)
    if len(items) > 1:
        return _listed(filter(None, items), thousands)
    one_or_two = _item(inside, thousands)
    return one_or_two[0] if len(one_or_two) == 1 else ValueGroup("list", tuple(one_or_two))


def _listed(items: Iterable[str], thousands: bool) -> ValueGroup:
    return ValueGroup("list", tuple(value for item in items for value in _item(item, thousands)))


def _bracketed(opening: str, inside: str, closing: str, thousands: bool) -> AnswerValue:
    if opening == r"\{" and closing == r"\}" and (described := _SET_OF.fullmatch(inside)):
        return _set_of(described[1].strip(), described[2].strip(), thousands)
    items = [item for item in split(inside, _SEPARATORS) if item]
    if opening == r"\{" and (closing == r"\}" or not items):
        return _listed(items, False)
    if not items:
        raise UnreadableMath("empty brackets")
    if len(items) > 1 and opening != "{":
        return ValueGroup(opening + closing, tuple(_parse(item, False) for item in items))
    rows = matrices.alone(inside)
    return _matrix(rows) if rows else _parse(inside, thousands)


def _set_of(member: str, condition: str, thousands: bool) -> AnswerValue:
    """{x | x > 2} as x > 2, {2k | k in Z} as 2k. UnreadableMath for members of another set."""
    if _REAL_NAME.fullmatch(member) and _RELATED.search(condition):
        return _parse(_without_member(_CONNECTED.sub(", ", condition)), thousands)
    if _MEMBER.fullmatch(condition) and r"\in" not in member:
        return _parse(member, thousands)
    raise UnreadableMath(f"a set of {member!r} with {condition!r}")


def _item(text: str, thousands: bool) -> list[AnswerValue]:
    """One item without separators outside brackets; two where it holds a plus-minus sign."""
    if rows := matrices.alone(text):
        return [_matrix(rows)]
    if matrices.DETERMINANT.search(text):
        raise UnreadableMath(f"a determinant in {text!r}")
    if r"\begin" in text and not _signs(text, _SIGNS) and matrices.MATRIX.search(text):
        return [_matrix(matrices.worked_out(text))]
    if _signs(text, (r"\pm", r"\mp")):
        upper = text.replace(r"\pm", "+").replace(r"\mp", "-")
        lower = text.replace(r"\pm", "-").replace(r"\mp", "+")
        return [_single(upper.strip().removeprefix("+"), thousands), _single(lower, thousands)]
    return [_single(text, thousands)]


def _matrix(rows: matrices.Rows) -> ValueGroup:
    entries = (tuple(_parse(entry, True) for entry in row) for row in rows)
    return ValueGroup("matrix", tuple(ValueGroup("row", row) for row in entries))


def _signs(text: str, wanted: Sequence[str]) -> list[str]:
    return [token for token, depth in tokens(text) if token in wanted and depth == 0]


def _single(text: str, thousands: bool) -> AnswerValue:
    text = next(filter(None, split(text, (r"\approx",))), text)
    signs = _signs(text, _SIGNS)
    if enclosed(text) and not signs:
        return _parse(text, thousands)
    member = split(_HALF_OPEN.sub(r"\1 \\in \2", text), (r"\in",))
    if len(member) == 2:
        return _named(member[0], member[1], thousands)
    if signs:
        return _related(split(text, _SIGNS), signs, thousands)
    if len(ratio := split(text, (":",))) > 1:
        return ValueGroup(":", tuple(_single(part, thousands) for part in ratio))
    return _plain(text)


def _related(sides: list[str], signs: list[str], thousands: bool) -> AnswerValue:
    if set(signs) == {"="}:
        left, right = sides[0], sides[-1]
        if all(re.fullmatch(r"[A-Z]{2,}", side) for side in sides):
            return ValueGroup("=", tuple(TextValue(values.words(side)) for side in sides))
        if _is_name(left) or values.FUNCTION.fullmatch(left) or _same_amount(left, right):
            return _named(left, right, thousands)
        if len(sides) == 2 and values.NAME.fullmatch(right) and not values.NAME.fullmatch(left):
            return _named(right, left, thousands)
    return RelationValue(tuple(sides), tuple(signs))


def _is_name(text: str) -> bool:
    """x_1, \\angle BEA_1, AB, (x, y) or words: what is named is no expression."""
    return bool(values.NAME.fullmatch(text) or _NAMED_OBJECT.fullmatch(text))


def _same_amount(left: str, right: str) -> bool:
    """Whether left is a sum worked out on the right, as in 2 + 3 = 5 or 0.56 = 56\\%."""
    try:
        a, b = (_amount(side) for side in (left, right))
        return not a.free_symbols and not b.free_symbols and equality.equal(a, b)
    except UnreadableMath:
        return False


def _amount(text: str) -> sympy.Expr:
    number, unit = units.split_unit(text)
    return expression.read(number) / (100 if unit == units.PERCENT else 1)


def _named(left: str, right: str, thousands: bool) -> AnswerValue:
    value = _parse(right, thousands)
    if function := values.FUNCTION.fullmatch(left):
        return NamedValue(function[1], function[2], value)
    if _is_name(left):
        return NamedValue(re.sub(r"[\s{}]", "", left), "", value)
    return value


def _plain(text: str) -> AnswerValue:
    if text in _REALS:
        return ValueGroup("()", (ScalarValue(r"-\infty"), ScalarValue(r"\infty")))
    if text == r"\emptyset":
        return ValueGroup("list", ())
    if numeral := _IN_BASE.fullmatch(values.TEXT_COMMAND.sub(r"\1", text)):
        sign, digits, base = numeral[1], numeral[2].upper(), int(numeral[3] or numeral[4])
        if digits[0].isdigit() or (len(digits) > 1 and base > 10):
            return values.BaseNumeral(sign + (digits.lstrip("0") or "0"), base)
    number, unit = units.split_unit(text)
    if _SPACED.fullmatch(number):
        number = number.replace(" ", "")
    if mixed := _MIXED.fullmatch(number):
        number = rf"{mixed[1]}({mixed[2]} + \frac{{{mixed[3]}}}{{{mixed[4]}}})"
    if r"\text" in number or _wordy(number):
        plain = values.words(text)
        if _NOTHING.fullmatch(plain):
            return ValueGroup("list", ())
        return ScalarValue(str(_NUMERALS.index(plain))) if plain in _NUMERALS else TextValue(plain)
    return ScalarValue(number, unit)


def _wordy(text: str) -> bool:
    """Three letters in a row outside commands, or foreign ones: no product of variables is written so."""
    return bool(re.search(r"[A-Za-z]{3,}|[A-Za-z]{2,}\s+[A-Za-z]{2,}|[^\x00-\x7f]", _COMMAND_OR_BRACE.sub(" ", text)))
