"""Rewritings of a reference answer: kinds that keep its value, kinds that change it. Independent of the grader.

Each is a function (reference, rng) -> another text, or None where the kind does not apply.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction
from random import Random

Rewriting = Callable[[str, Random], str | None]

NUMBER = re.compile(r"-?(?:\d+(?:\.\d+)?|\.\d+)")
INTEGERS_OVER = re.compile(r"(-?)\\[dt]?frac\s*\{(-?\d+)\}\s*\{(\d+)\}")
TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\d+(?:\.\d+)?|\.\d+|.", re.DOTALL)
WORDY = re.compile(r"\\(?:text|mbox|mathrm|begin|mathbf)|[A-Za-z]{3,}")
UNIT = re.compile(r"^(.*\d.*?)\s*\\(?:text|mbox)\s*\{\s*([^{}]*?)\s*\}(\^\{?\d\}?)?\.?$")
GROUPED = re.compile(r"(?:\\\$)?\d{1,3}(?:(?:,|,\\!\s*|\{,\}(?:\\!)?)\d{3})+(?:\.\d+)?")
OTHER_SIZE = {
    "cm": "m", "m": "cm", "meters": "kilometers", "km": "m", "inches": "feet", "feet": "inches", "ft": "in",
    "miles": "feet", "hours": "minutes", "minutes": "hours", "seconds": "hours", "days": "weeks", "dollars": "cents",
    "cents": "dollars", "pounds": "ounces", "gallons": "liters", "degrees": "radians", "mph": "km/h", "acres": "miles",
}  # fmt: skip
WORD = re.compile(r"\\(?:text|mathrm|textbf|mbox)\s*\{\s*\(?\s*([A-Za-z][A-Za-z ]*)\s*\)?\s*\}|([A-Z])")


def bare(text: str) -> str:
    """Without math signs around and full stop behind."""
    return text.strip().rstrip(".").strip().replace("$", "" if r"\$" not in text else "$").strip()


def is_plain(text: str) -> bool:
    """No words, layout or environments: mathematics that may be written with other spaces."""
    return not WORDY.search(re.sub(r"\\[A-Za-z]+", lambda m: m[0] if WORDY.match(m[0]) else "", text)) and not any(
        sign in text for sign in (r"\!", "{,}", "'", r"\$", "%", r"\mho", r"\text")
    )


def split(text: str) -> list[str]:
    """Parts between commas outside all brackets."""
    parts, depth, current = [], 0, ""
    for token in TOKEN.findall(text):
        depth += (token in ("(", "[", "{", r"\{")) - (token in (")", "]", "}", r"\}"))
        if token == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += token
    return [*parts, current.strip()]


def pair(text: str) -> tuple[str, list[str], str] | None:
    """(opening bracket, members, closing bracket) of one tuple or interval; \\left and \\right are dropped."""
    inside = re.sub(r"\\(?:left|right)(?![A-Za-z])\s*", "", bare(text))
    if not re.fullmatch(r"[(\[].*[)\]]", inside, re.DOTALL) or len(split(inside)) != 1:
        return None
    middle, depth = inside[1:-1], 0
    for token in TOKEN.findall(middle):
        depth += (token in "([") - (token in ")]")
        if depth < 0:
            return None
    members = split(middle)
    return (inside[0], members, inside[-1]) if len(members) > 1 else None


def members(text: str) -> list[str]:
    """The members of a list or set of two and more; empty otherwise."""
    inside = bare(text)
    if re.search(r"\d,(?:\\!)?\s*\d{3}(?!\d)", inside) or r"\text" in inside or "where" in inside or "=" in inside:
        return []
    if inside.startswith(r"\{") and inside.endswith(r"\}"):
        inside = inside[2:-2]
    parts = split(inside)
    return parts if len(parts) > 1 and all(parts) else []


def is_scalar(text: str) -> bool:
    """One expression: no list, tuple, relation, words, unit or plus-minus."""
    inside = bare(text)
    banned = ("=", "<", ">", ",", r"\pm", r"\in ", r"\cup", r"\le", r"\ge", r"\circ", "_", ":", r"\infty", r"\approx")
    return is_plain(inside) and not any(sign in inside for sign in banned) and inside[:1] not in "([" and inside != ""


def number(text: str) -> Fraction | None:
    plain = bare(text)
    if match := INTEGERS_OVER.fullmatch(plain):
        return Fraction(int(match[1] + "1") * int(match[2]), int(match[3])) if int(match[3]) else None
    return Fraction(plain) if NUMBER.fullmatch(plain) else None


def write(value: Fraction) -> str:
    """An integer, a decimal of at most four places, or a fraction."""
    if 10**4 % value.denominator == 0:
        return f"{float(value):.4f}".rstrip("0").rstrip(".") if value.denominator > 1 else str(value.numerator)
    return rf"{'-' * (value < 0)}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def negated(text: str) -> str | None:
    value = number(text)
    if value is not None:
        return write(-value) if value else None
    return f"-({bare(text)})" if is_scalar(text) and "|" not in text else None


# What keeps the value.


def spaces(text: str, rng: Random) -> str | None:
    found = [token for token in TOKEN.findall(bare(text)) if token.strip()]
    return " ".join(found) if is_plain(text) and len(found) > 1 and not re.search(r"\de|\d\.(?!\d)", text) else None


def other_frac(text: str, rng: Random) -> str | None:
    if r"\frac" in text:
        return text.replace(r"\frac", rng.choice((r"\dfrac", r"\tfrac")))
    return re.sub(r"\\[dt]frac", r"\\frac", text) if re.search(r"\\[dt]frac", text) else None


def left_right(text: str, rng: Random) -> str | None:
    if re.search(r"\\left(?![A-Za-z])", text):
        return re.sub(r"\\(?:left|right)(?![A-Za-z])", "", text)
    if not re.search(r"(?<!\\)[(\[]", text) or r"\text" in text or "sqrt[" in text or r"\$" in text:
        return None
    return re.sub(r"(?<!\\)([)\]])", r"\\right\1", re.sub(r"(?<!\\)([(\[])", r"\\left\1", text))


def in_text(text: str, rng: Random) -> str | None:
    if match := re.fullmatch(r"\\text\s*\{([^{}]*)\}", bare(text)):
        return match[1]
    return rf"\text{{{bare(text)}}}" if NUMBER.fullmatch(bare(text)) or re.fullmatch("[A-Z]", bare(text)) else None


def degrees(text: str, rng: Random) -> str | None:
    found = re.findall(r"\^\s*\{?\\circ\}?", text)
    if not found or re.search(r"\\(?:sin|cos|tan)", text):
        return None
    spellings = (r"^{\circ}", "°") if len(found) > 1 else (r"^{\circ}", "°", "", " degrees", r"\text{ degrees}")
    spelling = rng.choice(spellings)
    return re.sub(r"\^\s*\{?\\circ\}?", lambda _: spelling, text)


def units(text: str, rng: Random) -> str | None:
    if match := UNIT.match(text):
        power = match[3] or ""
        if match[1].endswith("\\"):
            return None
        named_unit = rf"{match[2]}}}{power}"
        return rng.choice((match[1], rf"{match[1]} \mathrm{{{named_unit}", rf"{match[1]}\,\text{{{named_unit}"))
    if text.startswith(r"\$"):
        return rng.choice((text.replace(r"\$", ""), text.replace(r"\$", "") + r"\text{ dollars}"))
    return rf"{text} \text{{ units}}" if re.fullmatch(r"\d+", text) else None


def thousands(text: str, rng: Random) -> str | None:
    plain = bare(text)
    if GROUPED.fullmatch(plain):
        return re.sub(r"\\!|\{,\}|,|\s", "", plain)
    if not re.fullmatch(r"-?\d{4,}", plain):
        return None
    return f"{int(plain):,}".replace(",", rng.choice((",", "{,}", r"\,", r",\!")))


def set_order(text: str, rng: Random) -> str | None:
    items = members(text)
    if len(set(items)) < 2:
        return None
    order = items[1:] + items[:1] if len(items) == 2 else rng.sample(items, len(items))
    return ", ".join(order if order != items else items[::-1])


def decimal(text: str, rng: Random) -> str | None:
    value = number(text)
    if value is None or value.denominator == 1 or 10**4 % value.denominator:
        return None
    return write(value) if "frac" in text else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def named(text: str, rng: Random) -> str | None:
    if re.search(r"=|<|>|\\[lg]e|\\in(?![A-Za-z])", text):
        return None
    return f"{'y' if 'x' in bare(text) else 'x'} = {bare(text)}"


def math_signs(text: str, rng: Random) -> str | None:
    return rng.choice((f"${bare(text)}$", rf"\({bare(text)}\)", f"{text}.", f" {text} ")) if r"\$" not in text else None


def slash(text: str, rng: Random) -> str | None:
    return INTEGERS_OVER.sub(r"\1\2/\3", text) if INTEGERS_OVER.fullmatch(bare(text)) else None


def braces(text: str, rng: Random) -> str | None:
    return re.sub(r"\^(\d)(?!\d)", r"^{\1}", text) if re.search(r"\^\d(?!\d)", text) else None


def unicode_signs(text: str, rng: Random) -> str | None:
    signs = {"-": "−", r"\pi": "π", r"\infty": "∞", r"\cup": "∪", r"\pm": "±"}
    found = [sign for sign in signs if re.search(re.escape(sign) + ("(?![A-Za-z])" if sign[0] == "\\" else ""), text)]
    if not found or WORDY.search(text):
        return None
    for sign in found:
        text = text.replace(sign, signs[sign])
    return text


KEEP: dict[str, Rewriting] = {
    "spaces": spaces, "frac": other_frac, "left_right": left_right, "text": in_text, "degrees": degrees,
    "units": units, "thousands": thousands, "set_order": set_order, "decimal": decimal, "named": named,
    "math_signs": math_signs, "slash": slash, "braces": braces, "unicode": unicode_signs,
}  # fmt: skip


# What changes the value.


def sign(text: str, rng: Random) -> str | None:
    if items := members(text):
        place = rng.randrange(len(items))
        other = negated(items[place])
        return other and ", ".join([*items[:place], other, *items[place + 1 :]])
    if found := pair(text):
        opening, items, closing = found
        place = rng.randrange(len(items))
        other = negated(items[place])
        return other and f"{opening}{', '.join([*items[:place], other, *items[place + 1 :]])}{closing}"
    return negated(text)


def digit(text: str, rng: Random) -> str | None:
    known = text.partition(r"\approx")[0]
    places = [m.start() for m in re.finditer(r"\d", known) if not text[: m.start()].endswith(("sqrt[", "_{1", "_{"))]
    if not places:
        return None
    place = rng.choice(places)
    other = rng.choice([d for d in "123456789" if d != text[place]])
    return text[:place] + other + text[place + 1 :]


def numerator(text: str, rng: Random) -> str | None:
    found = INTEGERS_OVER.search(text)
    return found and rf"{text[: found.start(2)]}{int(found[2]) + rng.choice((1, 2, 10))}{text[found.end(2) :]}"


def denominator(text: str, rng: Random) -> str | None:
    found = INTEGERS_OVER.search(text)
    if not found or not int(found[2]):
        return None
    return rf"{text[: found.start(3)]}{int(found[3]) + rng.choice((1, 2, 10))}{text[found.end(3) :]}"


def member_changed(text: str, rng: Random) -> str | None:
    found, items = pair(text), members(text)
    opening, items, closing = found or ("", items, "")
    if not items:
        return None
    place = rng.randrange(len(items))
    value = number(items[place])
    if value is None and not is_scalar(items[place]):
        return None
    other = write(value + 1) if value is not None else f"{items[place]} + 1"
    return f"{opening}{', '.join([*items[:place], other, *items[place + 1 :]])}{closing}"


def member_dropped(text: str, rng: Random) -> str | None:
    found, items = pair(text), members(text)
    opening, items, closing = found or ("", items, "")
    if not items or len(set(items)) < len(items) or (found and len(items) == 2):
        return None
    del items[rng.randrange(len(items))]
    return f"{opening}{', '.join(items)}{closing}"


def member_added(text: str, rng: Random) -> str | None:
    found, items = pair(text), members(text)
    opening, items, closing = found or ("", items or ([bare(text)] if is_scalar(text) else []), "")
    return f"{opening}{', '.join([*items, '1000003'])}{closing}" if items else None


def interval_end(text: str, rng: Random) -> str | None:
    if r"\cup" in text:
        first, cup, rest = text.partition(r"\cup")
        other = interval_end(first, rng)
        return other and f"{other} {cup} {rest}"
    found = pair(text)
    if not found or len(found[1]) != 2:
        return None
    (opening, (low, high), closing), flip = found, {"(": "[", "[": "(", ")": "]", "]": ")"}
    ends = [end for end, value in (("low", low), ("high", high)) if r"\infty" not in value]
    if not ends:
        return None
    low_end = rng.choice(ends) == "low"
    return f"{flip[opening] if low_end else opening}{low}, {high}{closing if low_end else flip[closing]}"


def other_unit(text: str, rng: Random) -> str | None:
    if match := UNIT.match(text):
        other = OTHER_SIZE.get(match[2])
        return rf"{match[1]} \text{{ {other}}}{match[3] or ''}" if other else None
    if re.search(r"\^\s*\{?\\circ\}?$", bare(text)) and not re.search(r"\\(?:sin|cos|tan)", text):
        return re.sub(r"\^\s*\{?\\circ\}?$", r"\\text{ radians}", bare(text))
    return rf"{text.replace('$', '')[1:]}\text{{ cents}}" if re.fullmatch(r"\\\$\d+(\.\d+)?", text) else None


def percent(text: str, rng: Random) -> str | None:
    value = number(re.sub(r"\s*\\?%$", "", bare(text)))
    if not value:
        return None
    return write(value / 100) if "%" in text else rf"{write(value * 100)}\%"


def factor_ten(text: str, rng: Random) -> str | None:
    factor = rng.choice((10, 100, Fraction(1, 10), Fraction(1, 100)))
    value = number(text)
    if value is not None:
        return write(value * factor) if value else None
    return rf"{write(factor)} \cdot ({bare(text)})" if is_scalar(text) else None


def set_or_tuple(text: str, rng: Random) -> str | None:
    if found := pair(text):
        return rf"\{{{', '.join(found[1])}\}}"
    return f"({', '.join(members(text))})" if members(text) else None


def tuple_order(text: str, rng: Random) -> str | None:
    found = pair(text)
    if not found or len({number(item) or item.replace(" ", "") for item in found[1]}) < len(found[1]):
        return None
    return f"{found[0]}{', '.join(found[1][::-1])}{found[2]}"


def word(text: str, rng: Random) -> str | None:
    match = WORD.fullmatch(bare(text))
    if not match:
        return None
    found = (match[1] or match[2]).strip()
    if re.fullmatch("[A-Z]", found):
        return rf"\text{{{chr(ord('A') + (ord(found) - ord('A') + 1) % 26)}}}"
    return rf"\text{{{found[1:]}{found[0]}q}}"


def root_dropped(text: str, rng: Random) -> str | None:
    if not (re.search(r"\\sqrt\s*\{?[2-9]", text) and is_scalar(text)):
        return None
    return re.sub(r"\\sqrt\s*(\d|\{\d+\})", r"(\1)", bare(text), count=1)


def exponent(text: str, rng: Random) -> str | None:
    found = re.search(r"(?<=[A-Za-z)2-9])\^\s*\{?\s*(\d+)(?=\D|$)", text)
    return found and text[: found.start(1)] + str(int(found[1]) + 1) + text[found.end(1) :]


def plus_minus(text: str, rng: Random) -> str | None:
    inside = bare(text)
    found = re.search(r"(?<=[\w})])\s*([-+])\s*(?=[\d\\A-Za-z(])", inside)
    if not found or not (is_scalar(inside) or inside.startswith("y =")):
        return None
    return inside[: found.start(1)] + ("-" if found[1] == "+" else "+") + inside[found.end(1) :]


def one_of_two(text: str, rng: Random) -> str | None:
    return text.replace(r"\pm", rng.choice("+-")) if r"\pm" in text else None


def variable(text: str, rng: Random) -> str | None:
    inside = bare(text)
    names = [token for token in TOKEN.findall(inside) if re.fullmatch("[a-zA-Z]", token) and token not in "eid"]
    if not names or not is_scalar(text):
        return None
    name = rng.choice(names)
    other = next(letter for letter in "qwzuhgk" if letter not in inside)
    return "".join(other if token == name else token for token in TOKEN.findall(inside))


def almost(text: str, rng: Random) -> str | None:
    value = number(text)
    if value is not None:
        rounded = f"{float(value):.4f}"
        return rounded if Fraction(rounded) != value else write(value + Fraction(1, 10_000))
    return f"{bare(text)} + 0.00001" if is_scalar(text) else None


def relation(text: str, rng: Random) -> str | None:
    flips = {"<": ">", ">": "<", r"\le ": r"\ge ", r"\ge ": r"\le ", r"\leq": r"\geq", r"\geqslant": r"\leqslant"}
    found = re.search(r"<|>|\\leq|\\geqslant|\\le |\\ge ", text)
    return text.replace(found[0], flips[found[0]]) if found else None


CHANGE: dict[str, Rewriting] = {
    "sign": sign, "digit": digit, "numerator": numerator, "denominator": denominator,
    "member_changed": member_changed, "member_dropped": member_dropped, "member_added": member_added,
    "interval_end": interval_end, "other_unit": other_unit, "percent": percent, "factor_ten": factor_ten,
    "set_or_tuple": set_or_tuple, "tuple_order": tuple_order, "word": word, "root_dropped": root_dropped,
    "exponent": exponent, "plus_minus": plus_minus, "one_of_two": one_of_two,
    "variable": variable, "almost": almost, "relation": relation,
}  # fmt: skip
