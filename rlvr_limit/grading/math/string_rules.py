"""When two answers count as one: the string rules of the MATH authors (Hendrycks et al. 2021, arXiv 2103.03874).

Two answers are the same if they are the same text once layout, units and spelling of fractions and roots are put in one
form. No algebra, so that millions of answers can be told apart; right or wrong is what grade.py says.
"""

import re

_RULES = (
    (re.compile(r"\n|\\!|\\ |\\left(?![A-Za-z])|\\right(?![A-Za-z])|\\\$|\\?%|\^\{\\circ\}|\^\\circ(?![A-Za-z])"), ""),
    (re.compile(r"\\\\"), r"\\"),
    (re.compile(r"\\[td]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\text\{ .*$", re.DOTALL), ""),
    (re.compile(r"(^|[ {])\.(?=\d)"), r"\g<1>0."),
    (re.compile(r"^\s*\w{1,2}\s*=(?=[^=]*$)"), ""),
    (re.compile(r"\\sqrt\s*([^\s{\[])"), r"\\sqrt{\1}"),
    (re.compile(r"\s+"), ""),
    (re.compile(r"\\frac([^{\\])([^{\\])"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac([^{\\])\{"), r"\\frac{\1}{"),
    (re.compile(r"(\\frac\{[^{}]*\})([^{\\])"), r"\1{\2}"),
    (re.compile(r"^0\.5$"), r"\\frac{1}{2}"),
    (re.compile(r"^(-?\d+)/(-?\d+)$"), r"\\frac{\1}{\2}"),
)


def normal_form(text: str) -> str:
    """The text under the rules above, in their order."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text
