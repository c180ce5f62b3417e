"""Whether two expressions are equal: exact for rationals, to 300 digits for other numbers, at points otherwise."""

import sympy

from rlvr_limit.grading.math.expression import UndefinedMath, UnreadableMath

DIGITS, PROOF_DIGITS, FEWEST_POINTS = 50, 300, 3

Point = dict[sympy.Symbol, sympy.Expr]


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
    discrete = _is_discrete(a) or _is_discrete(b)
    points = _natural_points(names) if discrete else _rational_points(names)
    verdicts = [_equal_at(point, a, b) for point in points]
    if False in verdicts:
        return False
    if verdicts.count(True) < FEWEST_POINTS:
        raise UnreadableMath("both expressions have a value at too few points to compare them")
    negative = [] if discrete else [{x: -value for x, value in point.items()} for point in points[:2]]
    return all(_equal_where_real(a.xreplace(point), b.xreplace(point)) for point in negative)


def proportional(a: sympy.Expr, b: sympy.Expr) -> bool:
    """Whether a = 0 and b = 0 are the same equation up to a constant factor, tested at fixed rational points."""
    names = _symbols(a, b)
    if not names:
        return False
    points = _natural_points(names) if _is_discrete(a) or _is_discrete(b) else _rational_points(names)
    (a0, b0), *others = [(a.xreplace(point), b.xreplace(point)) for point in points]
    return not _equal_numbers(b0, sympy.S.Zero) and all(_equal_numbers(x * b0, y * a0) for x, y in others)


def _symbols(a: sympy.Expr, b: sympy.Expr) -> list[sympy.Symbol]:
    return sorted(a.free_symbols | b.free_symbols, key=str)


def _is_discrete(expression: sympy.Expr) -> bool:
    return expression.has(sympy.floor, sympy.ceiling, sympy.factorial, sympy.binomial, sympy.Mod)


def _natural_points(names: list[sympy.Symbol]) -> list[Point]:
    """In both orders of the names: of n and k in (n - k)! either may be meant to be the larger one."""
    orders = (names, names[::-1])
    return [{x: sympy.Integer(3 + k + (5 + 2 * k) * i) for i, x in enumerate(orders[k % 2])} for k in range(10)]


def _rational_points(names: list[sympy.Symbol]) -> list[Point]:
    return [
        {x: sympy.Rational(prime + 6 * i, 7 + 4 * ((i + k) % 3)) for i, x in enumerate(names)}
        for k, prime in enumerate((13, 17, 19, 23, 29))
    ]


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


def _equal_at(point: Point, a: sympy.Expr, b: sympy.Expr) -> bool | None:
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
