"""LaTeX and plain text of short answers in one spelling, and cutting it where no bracket is open."""

import re
import unicodedata

_UNICODE = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ",
    "÷": "/", "∕": "/", "⁄": "/", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≦": r"\le ", "≧": r"\ge ",
    "⩽": r"\le ", "⩾": r"\ge ",
    "≠": r"\ne ", "≈": r"\approx ", "°": r"^\circ ", "º": r"^\circ ", "˚": r"^\circ ",
    "℃": r"^\circ C", "℉": r"^\circ F",
    "∪": r"\cup ", "∈": r"\in ", "±": r"\pm ", "∓": r"\mp ",
    "√": r"\sqrt ", "∛": r"\sqrt[3] ", "′": "'", "’": "'", "“": "", "”": "", '"': "", "∅": r"\emptyset ",
    "∣": r"\mid ", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "⟨": "(", "⟩": ")",
    "∖": r"\setminus ", "∀": r"\forall ", "∧": r"\land ", "∨": r"\lor ", "∠": r"\angle ", "△": r"\triangle ",
    "∑": r"\sum ", "∏": r"\prod ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
    "ℂ": r"\mathbb{C}", "。": ".", "．": ".", "、": ", ", "，": ", ", "；": "; ", "或者": r" \text{or} ",
    "或": r" \text{or} ", "または": r" \text{or} ", "또는": r" \text{or} ", "以及": r" \text{and} ",
    "和": r" \text{and} ", "무한대": r"\infty ", "无穷大": r"\infty ", "…": "...", "⋯": "...",
}  # fmt: skip
_LETTERS = "αβγδεζηθικλμνξπρστφχψωΓΔΘΛΞΠΣΦΨΩµϕ"
_NAMES = tuple(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi chi psi omega "
    "Gamma Delta Theta Lambda Xi Pi Sigma Phi Psi Omega mu phi".split()
)
_SUPERSCRIPTS, _SUBSCRIPTS, _RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿ", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₙ", "0123456789+-=()n"
_PLAIN = str.maketrans(_SUPERSCRIPTS + _SUBSCRIPTS, 2 * _RAISED)
_CJK = r"\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
# 12元, 12 个, $12$人: what is counted, behind the number.
_COUNTER = re.compile(rf"(?<=[\d)}}$%])\s*([{_CJK}]{{1,6}})(?=\s*[.,;$\\]*\s*$)")
_CJK_LEAD = re.compile(
    r"^\s*(?:最终|正确|所以|因此)?(?:答案|答え|解|結果|结果|정답|답)\s*(?:是|为|為|は|은|는|[:：])\s*[:：]?\s*"
)

_TEXT = r"\\(?:text(?:rm|bf|it|normal|sf|tt)?|mbox|mathrm|operatorname\*?|hbox)\s*"
_UPRIGHT = r"\\(?:mathrm|operatorname\*?|rm)\s*"
_WRAPPER = r"\\(?:mathbf|mathit|mathsf|mathcal|boldsymbol|bm|underline|displaystyle|ensuremath)(?![A-Za-z])\s*"
_NAMED = "sqrt|pi|sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|sinh|cosh|tanh|ln|log|exp|infty|infinity|cup|theta"

# In order: what an answer looks like is taken away, what it says stays.
_RULES = (
    (re.compile(r"\\(?:left|right)\s*\.(?!\d)"), ""),
    (re.compile(r"\\(?:left|right|middle|[bB]igg?[lrm]?)(?![A-Za-z])\s*"), ""),
    (re.compile(r"\\(?:phantom|hphantom|vphantom|label|tag)\s*\{[^{}]*\}|\\phantom\s*."), ""),
    # Thousands: 10,\!080 and 10{,}080 and 10{,}\!080.
    (re.compile(r"(?<=\d)(?:\{,\}|,)\s*\\!\s*(?=\d{3}(?!\d))|(?<=\d)\{,\}\s*(?=\d{3}(?!\d))"), ""),
    (re.compile(r"(?<!\\)\\!"), ""),
    (re.compile(r"(?<!\\)\\[,;:> ]|\\q?quad(?![A-Za-z])|\\(?:hspace|vspace)\*?\{[^{}]*\}|(?<!\\)~"), " "),
    (re.compile(r"\\\$|\\dollar(?![A-Za-z])|\\textdollar(?![A-Za-z])"), r" \\dollar "),
    (re.compile(r"\\\(|\\\)|(?<!\\)\\\[|(?<!\\)\\\]|\$"), ""),
    (re.compile(r"\\%|%"), r" \\percent "),
    (re.compile(r"\\imath(?![A-Za-z])"), "i "),
    # Upright names are no words; some write the tangent as tg.
    (re.compile(r"(?<![A-Za-z])\\?(arc)?tg(?![A-Za-z])"), r"\\\1tan "),
    (re.compile(r"(?<![A-Za-z])\\?(arc)?co?tg(?![A-Za-z])"), r"\\\1cot "),
    (re.compile(r"\\up(alpha|beta|gamma|delta|theta|lambda|mu|pi|rho|sigma|tau|phi|omega)(?![A-Za-z])"), r"\\\1"),
    (re.compile(_UPRIGHT + r"\{\s*d\s*\}(?=\s*(?:[A-Za-z\\^]|\{))"), "d "),
    (re.compile(_UPRIGHT + r"\{\s*(e|i|\\[A-Za-z]+)\s*\}"), r"\1 "),
    (re.compile(_UPRIGHT + rf"\{{\s*({_NAMED}|lcm|gcd|max|min)\s*\}}"), r"\\\1 "),
    (re.compile(_UPRIGHT + r"\{\s*(-?\d+)\s*([ei])\s*\}"), r"\1\2 "),
    (re.compile(_TEXT + r"(?=\{)"), r"\\text"),
    (re.compile(_WRAPPER + r"\{([^{}]*)\}"), r"\1"),
    (re.compile(r"\\(?:displaystyle|textstyle|limits|nolimits|rm|bf|it)(?![A-Za-z])"), ""),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\[dt]binom(?![A-Za-z])"), r"\\binom"),
    (re.compile(r"\\lbrace(?![A-Za-z])"), r"\\{"),
    (re.compile(r"\\rbrace(?![A-Za-z])"), r"\\}"),
    (re.compile(r"\\lbrack(?![A-Za-z])"), "["),
    (re.compile(r"\\rbrack(?![A-Za-z])"), "]"),
    (re.compile(r"\\(?:leqslant|leqq|leq|le)(?![A-Za-z])|<="), r"\\le "),
    (re.compile(r"\\(?:geqslant|geqq|geq|ge)(?![A-Za-z])|>="), r"\\ge "),
    (re.compile(r"\\lt(?![A-Za-z])"), "<"),
    (re.compile(r"\\gt(?![A-Za-z])"), ">"),
    (re.compile(r"\\(?:neq|ne)(?![A-Za-z])|!="), r"\\ne "),
    (re.compile(r"\\(?:approx|simeq|cong|sim)(?![A-Za-z])|~="), r"\\approx "),
    (re.compile(r"\\colon(?![A-Za-z])"), ":"),
    (re.compile(r"\\langle(?![A-Za-z])"), "("),
    (re.compile(r"\\rangle(?![A-Za-z])"), ")"),
    (re.compile(r"\\varnothing(?![A-Za-z])"), r"\\emptyset"),
    (re.compile(r"\{([^{}]*)\\choose(?![A-Za-z])([^{}]*)\}"), r"\\binom{\1}{\2}"),
    (re.compile(r"\\(?:[lcd]dots)(?![A-Za-z])"), "..."),
    (re.compile(r"\^\s*\{\s*\\(?:circ|degree)\s*\}|\^\s*\\circ(?![a-z])|(?:\^\s*)?\\degree(?![a-z])"), r"^\\circ "),
    (re.compile(r"\^\s*\{\s*(?:\\prime\s*){2}\}"), "''"),
    (re.compile(r"\^\s*\{\s*\\prime\s*\}|\^\s*\\prime(?![A-Za-z])"), "'"),
    (re.compile(r"\bnp\.(?=[a-z])"), ""),
    (re.compile(rf"(?<![\\A-Za-z])({_NAMED})(?![A-Za-z])"), r"\\\1"),
    (re.compile(r"\\infinity"), r"\\infty"),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\{\s*\}"), ""),
    (re.compile(r"\s+"), " "),
)  # fmt: skip

_OPENING, _CLOSING = ("(", "[", "{", r"\{"), (")", "]", "}", r"\}")
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|.", re.DOTALL)


def normalise(text: str) -> str:
    """One spelling of an answer: no layout, no math signs, units and words kept as \\text{...}, \\percent, \\dollar."""
    if not text.isascii():
        text = _to_ascii(text)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = text.strip()
    while text.endswith((".", ",", ";", ":", "\\")) and not text.endswith("..."):
        text = text[:-1].rstrip()
    return text


def _to_ascii(text: str) -> str:
    """Unicode's own signs of mathematics, full-width forms and words around an answer as LaTeX says them."""
    # What has no width says nothing.
    text = "".join(sign for sign in text if unicodedata.category(sign) != "Cf")
    text = re.sub("([⁰¹²³⁴-⁹]+)⁄([₀-₉]+)", lambda match: rf"\frac{{{match[1]}}}{{{match[2]}}}".translate(_PLAIN), text)
    text = _raised(_raised(text, _SUPERSCRIPTS, "^"), _SUBSCRIPTS, "_")
    text = re.sub("[¼½¾⅐-⅞]", lambda match: rf"\frac{{{_fraction(match[0])[0]}}}{{{_fraction(match[0])[1]}}}", text)
    text = _COUNTER.sub(r"\\text{ \1}", _CJK_LEAD.sub("", text))
    for sign, latex in _UNICODE.items():
        if sign in text:
            text = text.replace(sign, latex)
    text = re.sub(f"[{_LETTERS}]", lambda match: rf"\{_NAMES[_LETTERS.index(match[0])]} ", text)
    return unicodedata.normalize("NFKC", text)


def _raised(text: str, signs: str, mark: str) -> str:
    def plain(run: re.Match[str]) -> str:
        return f"{mark}{{{''.join(_RAISED[signs.index(sign)] for sign in run[0])}}}"

    return re.sub(f"[{signs}]+", plain, text)


def _fraction(sign: str) -> tuple[str, str]:
    above, _, below = unicodedata.normalize("NFKC", sign).partition("⁄")
    return above, below


def tokens(text: str) -> list[tuple[str, int]]:
    """(token, depth of brackets around it): commands are one token, anything else one sign. A closing one is outside.

    Half-open intervals close ( with ]: any bracket closes any other but a brace, which closes a brace.
    """
    depth, pairs = 0, []
    for token in _TOKEN.findall(text):
        depth -= token in _CLOSING
        pairs.append((token, depth))
        depth += token in _OPENING
    return pairs


def split(text: str, separators: tuple[str, ...]) -> list[str]:
    """The parts between separators that stand outside all brackets and \\begin...\\end; the parts are stripped."""
    parts, current, environments = [], [], 0
    for token, depth in tokens(text):
        environments += (token == r"\begin") - (token == r"\end")
        if token in separators and depth == 0 and environments == 0:
            parts.append("".join(current).strip())
            current = []
        else:
            current.append(token)
    return [*parts, "".join(current).strip()]


def enclosed(text: str) -> tuple[str, str, str] | None:
    """(opening, inside, closing) where one pair of brackets spans the whole text; None otherwise."""
    if len(parts := tokens(text)) < 2:
        return None
    (opening, _), *middle, (closing, depth) = parts
    if opening not in _OPENING or closing not in _CLOSING or depth != 0 or any(depth < 1 for _, depth in middle):
        return None
    return opening, "".join(token for token, _ in middle).strip(), closing
