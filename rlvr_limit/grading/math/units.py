"""Units and counted things behind a number: cutting them off, and whether two of them contradict each other."""

import re

from rlvr_limit.grading.math.latex import split

DEGREE, PERCENT = "deg", "%"

_SYNONYMS = {
    DEGREE: "° degree degrees deg", PERCENT: "% percent percentage pct", "$": "$ dollar dollars usd us$ bucks",
    "cent": "cent cents ¢", "eur": "€ euro euros eur", "gbp": "£ gbp pound-sterling", "rad": "rad radian radians",
    "in": "in inch inches", "ft": "ft foot feet", "yd": "yd yard yards", "mi": "mi mile miles",
    "mm": "mm millimeter millimeters millimetre millimetres", "cm": "cm centimeter centimeters centimetre centimetres",
    "m": "m meter meters metre metres", "km": "km kilometer kilometers kilometre kilometres",
    "nm": "nm nanometer nanometers",
    "dm": "dm decimeter decimeters", "pm": "pm picometer picometers", "um": "um micron microns micrometer micrometers",
    "angstrom": "å angstrom angstroms", "au": "au", "pc": "pc parsec parsecs", "ly": "ly lightyear lightyears",
    "s": "s sec secs second seconds", "min": "min mins minute minutes", "h": "h hr hrs hour hours", "day": "day days",
    "week": "week weeks", "month": "month months", "yr": "yr yrs year years", "gyr": "gyr", "myr": "myr", "ms": "ms",
    "mg": "mg milligram milligrams", "g": "g gram grams", "kg": "kg kilogram kilograms", "lb": "lb lbs pound pounds",
    "oz": "oz ounce ounces", "ton": "ton tons tonne tonnes", "l": "l liter liters litre litres",
    "ml": "ml milliliter milliliters",
    "gal": "gal gallon gallons", "acre": "acre acres", "mph": "mph mi/h", "km/h": "km/h kmh kph kmph",
    "mol": "mol mole moles",
    "j": "j joule joules", "kj": "kj kilojoule kilojoules", "erg": "erg ergs", "ev": "ev", "kev": "kev", "mev": "mev",
    "n": "n newton newtons", "w": "w watt watts", "kw": "kw", "v": "v volt volts", "hz": "hz hertz", "khz": "khz",
    "k": "k kelvin", "arcsec": "arcsec arcsecs arcsecond arcseconds", "a.m.": "a.m. a.m am", "p.m.": "p.m. p.m",
    "c": "celsius", "f": "fahrenheit", "ohm": "ω ohm ohms",
}  # fmt: skip
_CANONICAL = {spelling: name for name, spellings in _SYNONYMS.items() for spelling in spellings.split()}
_MULTIPLES = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_PIECE = (
    r"(?:\\text\{[^{}]*\}(?:\s*\^\s*(?:\{\s*-?\d\s*\}|\d))?"
    r"|\\percent|\\dollar|\^\\circ(?:\s*[CF](?![A-Za-z]))?|\\Omega(?![A-Za-z])|\\AA(?![A-Za-z])|\\mu(?=\s*\\text))"
)
_TAIL = re.compile(rf"^(.*?[^\s/*])\s*((?:{_PIECE}(?:\s|/|\\cdot|\\times(?=\s*\\text))*)+)$", re.DOTALL)
_HEAD = re.compile(r"^\s*(\\dollar)\s*(.*)$", re.DOTALL)
_WORDS = re.compile(
    r"^(.*(?:[\d})]|\\pi(?=\s)))(\s*)([A-Za-z%°][A-Za-z.,'% ]*(?:(?:/| per )\s*[A-Za-z]+)?(?:\^\{?-?\d\}?)?)$",
    re.DOTALL,
)
_LETTER = re.compile(
    r"(.*[\d})])\s*((?:[mshgLlJNWVKCFATH]|[kcmd]m|kg)(?:\s*\^\s*\{?\s*-?\d\s*\}?)?"
    r"(?:\s*(?:/|\\cdot|\s)\s*(?:[mshgJNWVKCA]|kg|mol|min)(?:\s*\^\s*\{?\s*-?\d\s*\}?)?)?)\s*"
)
_ANGLE_OF = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)(?![A-Za-z])")
_NO_UNIT = re.compile(
    r"\b(?:or|and|more|less|fewer|greater|least|most|not|no|than|mod|modulo|if|when|where|for|is|are|was|were|wrong|incorrect)\b"
)
_EXPONENT = re.compile(r"^(.*?)\s*\^\s*\{?\s*(-?\d)\s*\}?$")


def split_unit(text: str) -> tuple[str, str]:
    """(number, its unit in one spelling or "") of a normalised text. `3 million` becomes its number."""
    if head := _HEAD.match(text):
        number, unit = split_unit(head[2])
        return (number, unit if unit in ("cent", "eur") else "$") if number else (text, "")
    if text.startswith(("-\\dollar", "- \\dollar")):
        number, _ = split_unit(text[text.index("\\dollar") :])
        return f"-{number}", "$"
    tail = _TAIL.match(text)
    if tail and not _NO_UNIT.search(tail[2]) and not (tail[2].strip() == r"^\circ" and _ANGLE_OF.search(tail[1])):
        return _multiplied(tail[1].strip(), _unit_text(tail[2]))
    words = _WORDS.match(text)
    if words and _is_number(words[1]) and _is_unit(words[3], words[2]):
        return _multiplied(words[1].strip(), words[3].strip())
    return text, ""


def split_letter(text: str) -> tuple[str, str] | None:
    """(number, unit) of 30 m, 30J or 9.8 m/s^2: a unit of one letter, where no name of that letter can be meant."""
    match = _LETTER.fullmatch(text)
    return (match[1].strip(), _canonical(match[2].replace(r"\cdot", " "))) if match and _is_number(match[1]) else None


def compatible(a: str, b: str) -> bool:
    """Whether two units of split_unit can stand for the same thing. Where one is missing, the question names it."""
    return not a or not b or a == b or not (_is_known(a) and _is_known(b))


def _multiplied(number: str, unit: str) -> tuple[str, str]:
    first, _, rest = unit.strip().partition(" ")
    if first.lower() in _MULTIPLES:
        return f"({number}) * {_MULTIPLES[first.lower()]}", _canonical(rest)
    return number, _canonical(unit)


def _is_number(text: str) -> bool:
    """Signs, digits, roots, fractions and pi, but no letter that could be a variable."""
    return not re.search(r"[A-Za-z]", re.sub(r"\\(?:frac|sqrt|pi|cdot|times)(?![A-Za-z])", "", text))


def _is_unit(word: str, space: str) -> bool:
    """Known units of two letters and more, and after a space any word that is no product of one or two variables."""
    if space and re.match(r"[A-Za-z]{3}", word) and not _NO_UNIT.search(word):
        return True
    if not re.match(r"[A-Za-z]{2}|[°%]|[ap]\.m", word):
        return False
    unit = _canonical(word)
    return unit == "" or _is_known(unit)


def _unit_text(tail: str) -> str:
    text = re.sub(r"\\text\{([^{}]*)\}", r" \1 ", tail).replace(r"^\circ", " ° ").replace(r"\percent", " % ")
    text = (
        text.replace(r"\dollar", " $ ")
        .replace(r"\AA", " å ")
        .replace(r"\Omega", " ω ")
        .replace(r"\mu", " u")
        .replace(r"\cdot", " ")
    )
    return " ".join(text.replace(r"\times", " ").split())


def _is_known(unit: str) -> bool:
    return all(part.partition("^")[0] in _SYNONYMS for part in unit.split("/"))


def _canonical(unit: str) -> str:
    text = " ".join(unit.lower().replace("{", "").replace("}", "").replace("~", " ").split())
    power = ""
    if match := _EXPONENT.match(text):
        text, power = match[1], f"^{match[2]}"
    for word, exponent in (("square ", "^2"), ("sq. ", "^2"), ("sq ", "^2"), ("cubic ", "^3")):
        if text.startswith(word):
            text, power = text.removeprefix(word), exponent
    text = text if text in ("a.m.", "p.m.") else text.strip(" .,")
    text = re.sub(r"\s*(?:/| per )\s*", "/", text)
    # km/h as a whole is a unit as well.
    name = _canonical_name("/".join(_canonical_name(part) for part in split(text, ("/",))))
    return "" if name in ("unit", "units") else name + power


def _canonical_name(word: str) -> str:
    word = word.replace("° c", "celsius").replace("° f", "fahrenheit")
    return _CANONICAL.get(word, word)
