"""A second opinion on answers: what the grader published with Yue et al. 2025 takes for right, in code of our own.

It takes more for an answer than grade.py does (what follows "he answer is", or the last number anywhere) and more for
equal (numbers within 1e-4; x, x/100 and 100x; brackets, units, % and a name before = are left out). The published
numbers are by github.com/LeapLabTHU/limit-of-RLVR at fd2cf37. Algebra is read by expression.py, and not by the parsers
of sympy and latex2sympy: what these alone can read is not equal here.
"""

import functools
import math
import re

from rlvr_limit.grading.math import equality
from rlvr_limit.grading.math.expression import SYMPY_GAVE_UP, UnreadableMath, read
from rlvr_limit.grading.math.latex import normalise
from rlvr_limit.types import Problem, Status, Verdict

VERSION = "authors-2"
RELATIVE = 1e-4
WITH_UNITS = ("minerva_math",)
"""Benchmarks of which units stay in answers."""
FROM_SOLUTIONS = ("math500",)
"""Benchmarks whose references go through normal_form twice, as all answers do, since they are read out of solutions."""

_NUMBER = re.compile(r"-?\d*\.?\d+")
_CHOICE = re.compile(r"\b[A-E]\b")
_BRACKETED = re.compile(r"[(\[].+[)\]]")
_MATRIX = re.compile(r"\\begin\{[pb]matrix\}(.*)\\end\{[pb]matrix\}", re.DOTALL)
_UNIT = re.compile(
    r"(^|\W)(?:east|west|degree|deg|mph|kmph|kmh|ft|mile|sq|m|square|cubic|monkey|prime|ratio|rd|o|gm|lb|tile|per|dm|lt"
    r"|gain|ab|way|t|a|h|men|soldier|pie|bc|excess|st|inches|noon|percent|by|gal|c|acre|rise|th|mark|l|toy|coin|gallon"
    r"|profit|yr|women|feet|am|pm|hr|are|rupee|rounds|cc|mtr|s|ohm|number|day|hour|minute|min|second|man|sec|cube|mt|mp"
    r"|hectare|more|unit|rs|kg|g|month|km|cm|mm|apple|liter|loss|yard|pure|year|increase|decrease|d|less|litre|metre"
    r"|meter|inch)s?($|\W)"
)
_WORDS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
# In their order; units are left out between the first and the second part.
_LAYOUT = (
    (re.compile(r"\n|\\!"), ""),
    (re.compile(r"\.+$"), ""),
    (re.compile(r"\\begin\{array\}\{.*?\}"), r"\\begin{pmatrix}"),
    (re.compile(r"\\end\{array\}"), r"\\end{pmatrix}"),
    (re.compile(r"bmatrix"), "pmatrix"),
    (re.compile(r"[td]frac"), "frac"),
    (re.compile(r"\\(ne|le|ge)q"), r"\\\1"),
    (re.compile(r"\\left|\\right"), ""),
    (re.compile(r"\\([{}])"), r"\1"),
    (re.compile(r"(?<=.)\\text\{.*?\}$"), ""),
)
_SPELLING = (
    (re.compile(r"\^\{\\circ\}|\^\\circ|\\?\$|\\[()]"), ""),
    (re.compile(r"\\text\{(.*?)\}"), r"\1"),
    (re.compile(r"[xyz](?:=|\\in|\\to)"), ""),
    (re.compile(r"\\emptyset"), "{}"),
    (re.compile(r"\(-\\infty,\\infty\)"), r"\\mathbb{R}"),
    (re.compile(r"\\?%"), ""),
    (re.compile(r"([ {])\."), r"\g<1>0."),
    (re.compile(r"(?<!\\)inf(?:inity)?"), r"\\infty"),
    (re.compile(r"and|\\mathbf|\\mbox\{.*?\}"), ""),
    (re.compile(r"(?<=\d)\.0*(?=\D|$)"), ""),
    (re.compile(r"^\."), "0."),
    (re.compile(r"^[^=]{0,2}=(?=[^=]*$)"), ""),
    (re.compile(r"\\sqrt(\w+)"), r"\\sqrt{\1}"),
    (re.compile(r" "), ""),
    (re.compile(r"\\frac([^{])([^{])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac([^{])\{"), r"\\frac{\1}{"),
    (re.compile(r"^(-?\d+)/(-?\d+)$"), r"\\frac{\1}{\2}"),
)


def grade(problem: Problem, text: str) -> Verdict:
    """Right or not by their rules, of a list the first reference; NO_ANSWER where not even a number is there."""
    return _verdict(problem, extract(text))


def shorten(problem: Problem, text: str) -> Verdict | str:
    """The verdict where no algebra is needed, otherwise a short response that `grade` judges as it judges this one."""
    answer = extract(text)
    given, wanted = _both(problem, answer)
    if not given or given.lower() == wanted.lower() or None not in (_number(given), _number(wanted)):
        return _verdict(problem, answer)
    short = rf"\boxed{{{answer}}}"
    return short if extract(short) == answer else text


def extract(text: str) -> str:
    """What they take for the answer; empty where there is no number either."""
    if "final answer is $" in text and "$. I hope" in text:
        answer = text.split("final answer is $", 1)[1].split("$. I hope", 1)[0].strip()
    elif "boxed" in text:
        answer = _boxed(text.rpartition("boxed")[2])
    elif "he answer is" in text or "final answer is" in text:
        answer = text.rpartition("he answer is" if "he answer is" in text else "final answer is")[2].strip()
    else:
        answer = (_NUMBER.findall(text.replace(",", "")) or [""])[-1]
    answer = re.sub(r"\n\s*", "", answer).removeprefix(":")
    return answer.removesuffix(".").removesuffix("/")


def _boxed(rest: str) -> str:
    """The braces behind the last "boxed", all that is left where they never close, or what stands before a $."""
    if not rest.startswith("{"):
        return rest.split("$")[0].strip()
    depth = 0
    for place, sign in enumerate(rest):
        depth += (sign == "{") - (sign == "}")
        if not depth:
            return rest[1:place]
    return rest[1:]


def _both(problem: Problem, answer: str) -> tuple[str, str]:
    """The answer and the reference in their spelling."""
    reference = problem.answer if isinstance(problem.answer, str) else problem.answer[0]
    benchmark = problem.id.rpartition("/")[0]
    bare = benchmark not in WITH_UNITS
    wanted = normal_form(reference, bare)
    return normal_form(normal_form(answer, bare), bare), normal_form(wanted) if benchmark in FROM_SOLUTIONS else wanted


def _verdict(problem: Problem, answer: str) -> Verdict:
    given, wanted = _both(problem, answer)
    return Verdict(equal_answers(given, wanted), Status.GRADED if given else Status.NO_ANSWER, answer)


@functools.lru_cache(maxsize=1 << 16)
def normal_form(text: str, bare: bool = True) -> str:
    """One spelling of an answer; bare: without units."""
    text = _replaced(text.strip(), _LAYOUT).strip()
    for _ in range(2 if bare else 0):
        text = _UNIT.sub(r"\1\2", text) or text
    if (word := text.strip().lower()) in _WORDS:
        text = str(_WORDS.index(word))
    text = _replaced(text, _SPELLING)
    return text.replace("j", "i") if "j" in text and "i" not in text else text


def _replaced(text: str, rules: tuple[tuple[re.Pattern, str], ...]) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text


def equal_answers(given: str, wanted: str) -> bool:
    """Whether two answers in their spelling are equal by their rules; it is not symmetric."""
    if given.strip().lower() == wanted.strip().lower():
        return True
    if wanted in tuple("ABCDE") and _CHOICE.findall(given.upper())[-1:] == [wanted]:
        return True
    x, y = _number(given), _number(wanted)
    if x is not None and y is not None:
        return any(math.isclose(x, value, rel_tol=RELATIVE) for value in (y / 100, y, 100 * y))
    given, wanted = given.strip(), wanted.strip()
    if not given:
        return False
    if _is_alike_without_brackets(given, wanted):
        return True
    pieces = _pieces(given), _pieces(wanted)
    if None not in pieces and len(pieces[0]) == len(pieces[1]) and all(map(equal_answers, *pieces)):
        return True
    sides = given.split("="), wanted.split("=")
    match tuple(map(len, sides)):
        case 2, 2:
            (a, b), (c, d) = sides
            return any(_equal(f"{sign}({a}-({b}))", f"{c}-({d})") for sign in "+-")
        case 2, 1 if len(sides[0][0].strip()) <= 2:
            return equal_answers(sides[0][1], wanted)
        case 1, 2 if len(sides[1][0].strip()) <= 2:
            return equal_answers(given, sides[1][1])
    return _equal(given, wanted)


def _number(text: str) -> float | None:
    """What Python reads as a number, without thousands' commas; a percentage is a hundredth."""
    text = text.replace(",", "")
    for digits, unit in ((text, 1), (text.removesuffix("%").removesuffix("\\"), 100)):
        try:
            return float(digits) / unit
        except ValueError:
            if not text.endswith("%"):
                return None
    return None


def _is_alike_without_brackets(given: str, wanted: str) -> bool:
    ends = given[:1] + given[-1:]
    if ends in ("[]", "()") and not wanted.startswith("(" if ends == "[]" else "["):
        given, wanted = given.strip("[]()"), wanted.strip("[]()")
    return len({re.sub(r"[{}()]", "", text).lower() for text in (given, wanted)}) == 1


def _pieces(text: str) -> list[str] | None:
    """The items of a tuple, or the entries of a matrix; None of anything else."""
    if matrix := _MATRIX.fullmatch(text):
        rows = [row.split("&") for row in matrix[1].split(r"\\") if row.strip()]
        return [entry for row in rows for entry in (*row, "")]
    return text[1:-1].split(",") if _BRACKETED.match(text) else None


def _equal(a: str, b: str) -> bool:
    """Equal as expressions, or as numbers within 1e-4. What cannot be read or compared is not equal, as there."""
    try:
        x, y = read(normalise(a)), read(normalise(b))
        if equality.equal(x, y):
            return True
        numbers = not (x.free_symbols or y.free_symbols)
        return bool(numbers and math.isclose(float(x.evalf()), float(y.evalf()), rel_tol=RELATIVE))
    except (UnreadableMath, *SYMPY_GAVE_UP):
        return False
