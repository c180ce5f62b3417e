"""LaTeX and plain text of short answers in one spelling, and cutting it where no bracket is open."""

import re

_UNICODE = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/", "∕": "/",
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "°": r"^\circ ",
    "∪": r"\cup ", "∈": r"\in ", "±": r"\pm ", "√": r"\sqrt ", "²": "^2", "³": "^3", "½": r"\frac{1}{2}",
    "θ": r"\theta ", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ",
    "γ": r"\gamma ", "Δ": r"\Delta ", "μ": r"\mu ", "σ": r"\sigma ", "τ": r"\tau ", "φ": r"\phi ", "Ω": r"\Omega ",
    "’": "'", "′": "'", "“": "", "”": "", '"': "", "\u200b": "", "\u00a0": " ", "\u2009": " ", "\u202f": " ",
    "，": ", ", "ω": r"\omega ",
}  # fmt: skip

_TEXT = r"\\(?:text(?:rm|bf|it|normal|sf|tt)?|mbox|mathrm|operatorname\*?|hbox)\s*"
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
    for sign, latex in _UNICODE.items():
        if sign in text:
            text = text.replace(sign, latex)
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    text = text.strip()
    while text.endswith((".", ",", ";", ":", "\\")) and not text.endswith("..."):
        text = text[:-1].rstrip()
    return text


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
