"""Countdown in words: an expression that uses every given number once, with +, - and *, and equals the target.

The reference is a text like "3 5 8 -> 64". Of an answer counts what stands before its first equals sign.
"""

import ast
import operator
import re

from rlvr_limit.types import Problem, Status, Verdict

_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul}
_EXPRESSION = re.compile(r"[0-9+\-*() ]{1,60}")  # a longer one is no answer to three numbers


def grade(problem: Problem, text: str) -> Verdict:
    """Verdict on an answer's text. NO_ANSWER where it does not begin with an expression; detail says what is wrong."""
    written = text.strip().partition("=")[0].strip()
    try:
        value = _value(ast.parse(written, mode="eval").body) if _EXPRESSION.fullmatch(written) else None
    except SyntaxError:
        value = None
    if value is None:
        return Verdict(False, Status.NO_ANSWER, detail="no expression of numbers, +, -, * and parentheses")
    given, _, target = problem.answer.partition("->")
    fault = "" if value == int(target) else f"{written} is {value}, not {target.strip()}"
    if sorted(re.findall(r"\d+", written), key=int) != sorted(given.split(), key=int):
        fault = "not every given number is used exactly once"
    return Verdict(not fault, Status.GRADED, written.replace(" ", ""), fault)


def _value(node: ast.expr) -> int | None:
    """None for anything but sums, differences and products of integers, such as a power, a call or a sign."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if not isinstance(node, ast.BinOp) or type(node.op) not in _OPERATORS:
        return None
    left, right = _value(node.left), _value(node.right)
    return None if left is None or right is None else _OPERATORS[type(node.op)](left, right)
