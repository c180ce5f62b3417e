"""Whether two expressions are equal: exact for rationals, to 300 digits for other numbers, at points otherwise."""

from __future__ import annotations

import sympy

from rlvr_limit.grading.math.expression import UndefinedMath, UnreadableMath

DIGITS, PROOF_DIGITS, FEWEST_POINTS = 50, 300, 3


def equal(a: sympy.Expr, b: sympy.Expr) -> bool:
    """Whether two expressions are the same function of their symbols. Raises UnreadableMath where it cannot tell.

    Rationals are compared exactly, other numbers to 300 digits, functions at fixed rational points: positive ones, and
    negative ones where both are real there; at natural numbers if floors, factorials or binomials stand in them.
    """
    if a == b:
        return True
    names = _symbols(a, b)
    if not names:
        return _equal_numbers(a, b)
    verdicts = [_equal_at(point, a, b) for point in _points(names, a, b)]
    if False in verdicts:
        return False
    if verdicts.count(True) < FEWEST_POINTS:
        raise UnreadableMath("both expressions have a value at too few points to compare them")
    return all(_equal_where_real(a.xreplace(point), b.xreplace(point)) for point in _negative_points(names, a, b))


def proportional(a: sympy.Expr, b: sympy.Expr) -> bool:
    """Whether a = 0 and b = 0 are the same equation up to a constant factor, tested at fixed rational points."""
    names = _symbols(a, b)
    if not names:
        return False
    values = [(a.xreplace(point), b.xreplace(point)) for point in _points(names, a, b)]
    (a0, b0), rest = values[0], values[1:]
    return not _equal_numbers(b0, sympy.S.Zero) and all(_equal_numbers(x * b0, y * a0) for x, y in rest)


def _symbols(*expressions: sympy.Expr) -> list[sympy.Symbol]:
    return sorted({symbol for expression in expressions for symbol in expression.free_symbols}, key=str)


def _points(names: list[sympy.Symbol], *expressions: sympy.Expr) -> list[dict[sympy.Symbol, sympy.Expr]]:
    if _discrete(*expressions):
        # In both orders: of n and k in (n - k)! either may be meant to be the larger one.
        orders = (names, names[::-1])
        return [{x: sympy.Integer(3 + k + (5 + 2 * k) * i) for i, x in enumerate(orders[k % 2])} for k in range(10)]
    return [
        {x: sympy.Rational(prime + 6 * i, 7 + 4 * ((i + k) % 3)) for i, x in enumerate(names)}
        for k, prime in enumerate((13, 17, 19, 23, 29))
    ]


def _negative_points(names: list[sympy.Symbol], *expressions: sympy.Expr) -> list[dict[sympy.Symbol, sympy.Expr]]:
    return [] if _discrete(*expressions) else [{x: -v for x, v in p.items()} for p in _points(names)[:2]]


def _discrete(*expressions: sympy.Expr) -> bool:
    return any(e.has(sympy.floor, sympy.ceiling, sympy.factorial, sympy.binomial, sympy.Mod) for e in expressions)


def _equal_numbers(a: sympy.Expr, b: sympy.Expr) -> bool:
    if a == b:
        return True
    if a.is_Rational and b.is_Rational:
        return False
    for digits in (DIGITS, PROOF_DIGITS):
        x, y = _value(a, digits), _value(b, digits)
        if sympy.nan in (x, y):
            raise UndefinedMath("no value at all")
        if not (x.is_finite and y.is_finite):
            return x == y
        if sympy.Abs(x - y) > sympy.Float(10) ** (10 - digits) * max(1, sympy.Abs(x), sympy.Abs(y)):
            return False
    return True


def _equal_at(point: dict[sympy.Symbol, sympy.Expr], a: sympy.Expr, b: sympy.Expr) -> bool | None:
    """None where one of them has no value: outside its domain an expression says nothing."""
    x, y = a.xreplace(point), b.xreplace(point)
    if not (_value(x, DIGITS).is_finite and _value(y, DIGITS).is_finite):
        return None
    return _equal_numbers(x, y)


def _equal_where_real(a: sympy.Expr, b: sympy.Expr) -> bool:
    x, y = _value(a, DIGITS), _value(b, DIGITS)
    return not (x.is_real and y.is_real and x.is_finite and y.is_finite) or _equal_numbers(a, b)


def _value(expression: sympy.Expr, digits: int) -> sympy.Expr:
    """To so many digits; nan where there is no value (0/0, a pole)."""
    value = expression.doit().evalf(digits)
    if value.has(sympy.nan, sympy.zoo):
        return sympy.nan
    real, imaginary = value.as_real_imag()
    if not (real.is_number and imaginary.is_number) or real.atoms(sympy.Symbol, sympy.Function):
        raise UnreadableMath(f"no numeric value for {str(expression)[:80]}")
    return real if imaginary.is_zero or sympy.Abs(imaginary) < sympy.Float(10) ** (10 - digits) else value
