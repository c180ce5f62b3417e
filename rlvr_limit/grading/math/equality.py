"""Whether two expressions are equal: exact for rationals, to 300 digits for other numbers, at test points otherwise.

Smooth expressions that are equal at a few points are equal. Those with kinks, jumps or branches (|x|, floor, min,
roots, logarithms) are also tried on both sides of every such place of either, at it, and far out. Names that count
something (in limits of sums, factorials, exponents of -1; n, m, k under a floor) are whole numbers.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import sympy

from rlvr_limit.grading.math.expression import UndefinedMath, UnreadableMath

DIGITS, PROOF_DIGITS, MOST_DIGITS, FEWEST_POINTS = 50, 300, 20_000, 3
MAX_PLACES, MAX_LINES, MAX_DEGREE, MAX_BRANCHES = 200, 12, 24, 16

Point = dict[sympy.Symbol, sympy.Expr]

_COUNTING = (sympy.factorial, sympy.binomial)
_STEPS = (sympy.floor, sympy.ceiling, sympy.Mod)
_BENDS = (sympy.Abs, sympy.sign, sympy.Max, sympy.Min, sympy.log, sympy.Piecewise)
_ANGLES = (sympy.asin, sympy.acos, sympy.atan, sympy.acot, sympy.asec, sympy.acsc)
_WHOLE_NAMES = frozenset("nmkjNMK")
_T = sympy.Dummy("t", real=True)
_STEPPED_TO = (-3, -2, -1, 0, 1, 2, 3, 10)
_BASE = tuple("0 1/3 1/2 1 17/10 2 5 29/4 12 101/3 1000 1000001/7".split())


def equal(a: sympy.Expr, b: sympy.Expr) -> bool:
    """Whether two expressions are the same function of their symbols. Raises UnreadableMath where it cannot tell.

    Where one of them has no real value it says nothing there, but for expressions that are real nowhere.
    """
    if a == b:
        return True
    names = _symbols(a, b)
    if not names:
        return _equal_numbers(a, b)
    agreed: dict[bool, int] = {True: 0, False: 0}
    complex_ones: list[bool] = []
    for point in _points(names, a, b):
        x, y = a.xreplace(point), b.xreplace(point)
        p, q = _value(x, DIGITS), _value(y, DIGITS)
        if not (p.is_finite and q.is_finite):
            continue
        is_proof = agreed[True] < FEWEST_POINTS
        same = _equal_numbers(x, y) if is_proof else _close(p, q, DIGITS)
        if p.is_real and q.is_real:
            if not same:
                return False
            agreed[True] += 1
        else:
            complex_ones.append(same)
    if a.has(sympy.I) or b.has(sympy.I) or not agreed[True]:
        if not all(complex_ones):
            return False
        agreed[True] += len(complex_ones)
    if agreed[True] < FEWEST_POINTS:
        raise UnreadableMath("both expressions have a value at too few points to compare them")
    return True


def proportional(a: sympy.Expr, b: sympy.Expr) -> bool:
    """Whether a = 0 and b = 0 are the same equation up to a constant factor, tested at the same points."""
    names = _symbols(a, b)
    if not names:
        return False
    pairs = [(a.xreplace(point), b.xreplace(point)) for point in itertools.islice(_points(names, a, b), MAX_PLACES)]
    finite = [(x, y) for x, y in pairs if _value(x, DIGITS).is_finite and _value(y, DIGITS).is_finite]
    known = next(((x, y) for x, y in finite if not _equal_numbers(y, sympy.S.Zero)), None)
    if known is None or len(finite) < FEWEST_POINTS:
        return False
    return all(_equal_numbers(x * known[1], y * known[0]) for x, y in finite)


def _symbols(a: sympy.Expr, b: sympy.Expr) -> list[sympy.Symbol]:
    return sorted(a.free_symbols | b.free_symbols, key=str)


def _points(names: list[sympy.Symbol], a: sympy.Expr, b: sympy.Expr) -> Iterator[Point]:
    """Where two expressions are compared, those first that tell most pairs apart."""
    nodes = [node for e in (a, b) for node in sympy.preorder_traversal(e)]
    is_rough = any(map(_is_rough, nodes))
    whole = {x for node in nodes for x in _counted(node)}
    if any(isinstance(node, _STEPS) for node in nodes):
        whole |= {x for x in names if x.name[:1] in _WHOLE_NAMES}
    yield from _first_points(names, whole)
    if not is_rough:
        return
    for line in _lines(names, whole, a, b):
        along = {name: start + slope * _T for name, (start, slope) in line.items()}
        is_whole = all(slope == 0 or name in whole for name, (_, slope) in line.items())
        for place in _places(a.xreplace(along), b.xreplace(along), is_whole):
            yield {name: start + slope * place for name, (start, slope) in line.items()}


def _first_points(names: list[sympy.Symbol], whole: set[sympy.Symbol]) -> Iterator[Point]:
    """Positive points, then negative ones. Of n and k in (n - k)! either may be meant to be the larger one."""
    counts = [n for n in names if n in whole]
    others = [x for x in names if x not in whole]
    for k in range(10 if counts else 5):
        point = {n: sympy.Integer(3 + k + (5 + 2 * k) * i) for i, n in enumerate(counts[:: 1 - 2 * (k % 2)])}
        prime = (13, 17, 19, 23, 29)[k % 5]
        yield point | {x: sympy.Rational(prime + 6 * i, 7 + 4 * ((i + k) % 3)) for i, x in enumerate(others)}
    for k, small in enumerate((5, 7, 11, 8)):
        point = {n: sympy.Integer(1 + i + k) for i, n in enumerate(counts)}
        # Within the circle of convergence of most series; the last two are negative.
        yield point | {x: sympy.Rational((1 - k // 2 * 2) * (2 + i), small + 2 * i) for i, x in enumerate(others)}
    if others:
        for k, prime in enumerate((13, 17)):
            point = {n: sympy.Integer(4 + k + 3 * i) for i, n in enumerate(counts)}
            yield point | {x: -sympy.Rational(prime + 6 * i, 7 + 4 * ((i + k) % 3)) for i, x in enumerate(others)}


def _is_rough(node: sympy.Basic) -> bool:
    """Whether it bends, jumps or branches: what is smooth on both sides of such a place may be equal on one only."""
    if not node.free_symbols:
        return False
    is_root = node.is_Pow and node.base.free_symbols and not node.exp.is_Integer
    return is_root or isinstance(node, (*_STEPS, *_BENDS, *_ANGLES))


def _counted(node: sympy.Basic) -> set[sympy.Symbol]:
    """Names that must be whole numbers for a node to have a value, or the value that is meant."""
    if isinstance(node, _COUNTING):
        return node.free_symbols
    if isinstance(node, sympy.Sum | sympy.Product):
        return {x for _, *ends in node.limits for end in ends for x in end.free_symbols}
    return node.exp.free_symbols if node.is_Pow and node.base.is_number and node.base.is_negative else set()


def _lines(
    names: list[sympy.Symbol], whole: set[sympy.Symbol], a: sympy.Expr, b: sympy.Expr
) -> Iterator[dict[sympy.Symbol, tuple[sympy.Expr, sympy.Expr]]]:
    """(start, slope) of each name on straight lines: along each axis, and aslant where there are several names.

    Lines along an axis pass through the places at which the expressions bend in the other names alone.
    """
    zero, one = sympy.S.Zero, sympy.S.One
    if len(names) == 1:
        yield {names[0]: (zero, one)}
        return
    starts = {x: sympy.Integer(2 + 3 * i) if x in whole else sympy.Rational(13 + 6 * i, 7) for i, x in enumerate(names)}
    bends = {x: [start] if x in whole else [start, -start] for x, start in starts.items()}
    for function in dict.fromkeys(c for e in (a, b) for c in _critical(e)):
        if len(function.free_symbols) == 1:
            (x,) = function.free_symbols
            bends[x] += [root for root in sorted(_roots(function.xreplace({x: _T}))) if root not in bends[x]]
    for axis in names:
        others = [x for x in names if x != axis]
        for values in itertools.islice(itertools.product(*(bends[x] for x in others)), MAX_LINES):
            yield {axis: (zero, one)} | {x: (value, zero) for x, value in zip(others, values, strict=True)}
    for turn in (1, 2) if not whole else ():
        slopes = [sympy.Rational((-1) ** (i * turn) * (2 + i), 3 - turn + i) for i in range(len(names))]
        yield {x: (starts[x] - 4, slope) for x, slope in zip(names, slopes, strict=True)}


def _places(a: sympy.Expr, b: sympy.Expr, is_whole: bool) -> list[sympy.Rational]:
    """Numbers on both sides of every kink, jump and root of two functions of _T, at them, and far out."""
    found: set[sympy.Rational] = set()
    for e in (a, b):
        for function in dict.fromkeys([e, *_critical(e)]):
            found |= _roots(function)
    marks = sorted(found)
    if len(marks) > MAX_PLACES:
        marks = marks[:: len(marks) // MAX_PLACES + 1]
    ends = [marks[0] - 1000, marks[0] - 1, marks[-1] + 1, marks[-1] + 1000] if marks else []
    middles = [(low + high) / 2 for low, high in itertools.pairwise(marks)]
    places = dict.fromkeys([*middles, *ends, *(s * sympy.Rational(x) for x in _BASE for s in (1, -1)), *marks])
    if is_whole:
        near = {sympy.floor(x) + d for x in places for d in (0, 1)} | {sympy.Integer(k) for k in range(1, 25)}
        return sorted(n for n in near if 1 <= n <= 10**4)
    return list(places)


def _critical(e: sympy.Expr) -> Iterator[sympy.Expr]:
    """Functions at whose roots an expression bends, jumps, branches or has no value."""
    for node in sympy.preorder_traversal(e):
        if not node.free_symbols:
            continue
        if isinstance(node, _STEPS):
            step = node.args[0] / node.args[1] if isinstance(node, sympy.Mod) else node.args[0]
            yield from (step - k for k in _STEPPED_TO)
        elif isinstance(node, sympy.Max | sympy.Min):
            yield from (x - y for x, y in itertools.combinations(node.args, 2))
        elif isinstance(node, sympy.Piecewise):
            yield from (c.lhs - c.rhs for _, cond in node.args for c in cond.atoms(sympy.core.relational.Relational))
        elif isinstance(node, _ANGLES):
            yield from (node.args[0] - k for k in (-1, 0, 1))
        elif isinstance(node, _BENDS):
            yield node.args[0]
        elif node.is_Pow and not (node.exp.is_Integer and node.exp.is_positive):
            yield node.base


def _roots(function: sympy.Expr) -> set[sympy.Rational]:
    """Real roots of a function of _T, rational ones exactly and others to nine digits; of what is no polynomial those
    that a fine grid shows."""
    roots: set[sympy.Rational] = set()
    for branch in _branches(function):
        try:
            polynomial = sympy.Poly(sympy.numer(sympy.together(branch)), _T)
            if polynomial.degree() > MAX_DEGREE or not polynomial.free_symbols_in_domain <= set():
                raise sympy.PolynomialError
            exact = set(polynomial.ground_roots()) if polynomial.domain in (sympy.ZZ, sympy.QQ) else set()
            if len(exact) < polynomial.degree():
                others = np.roots([float(c) for c in polynomial.all_coeffs()])
                # Of a double root rounding makes a pair beside the real line.
                reals = [_rational(z.real) for z in others if abs(z.imag) < 1e-5 * max(1, abs(z.real))]
                exact |= {x for x in reals if all(abs(x - y) > 1e-6 for y in exact)}
            roots |= exact
        except (sympy.PolynomialError, TypeError, ValueError, OverflowError, NotImplementedError):
            roots |= _grid_roots(branch)
    return roots


def _branches(function: sympy.Expr) -> list[sympy.Expr]:
    """A function with |u| as u or -u, max and min as either, floors without their steps: some hold at each root."""
    done, waiting = [], [function]
    while waiting and len(done) + len(waiting) < MAX_BRANCHES:
        e = waiting.pop()
        bent = next((n for n in sympy.postorder_traversal(e) if n.has(_T) and isinstance(n, _BRANCHING)), None)
        if bent is None:
            done.append(e)
        elif isinstance(bent, sympy.Abs):
            waiting += [e.xreplace({bent: s * bent.args[0]}) for s in (1, -1)]
        elif isinstance(bent, sympy.Max | sympy.Min):
            waiting += [e.xreplace({bent: part}) for part in bent.args]
        else:
            waiting.append(e.xreplace({bent: bent.args[0]}))
    return done + waiting


_BRANCHING = (sympy.Abs, sympy.Max, sympy.Min, sympy.floor, sympy.ceiling)


def _grid_roots(function: sympy.Expr) -> set[sympy.Rational]:
    """Where a function changes its sign, or comes near to 0, between points of a grid."""
    outer = np.geomspace(60.1, 1e6, 200)
    grid = np.concatenate([-outer[::-1], np.linspace(-60, 60, 961) + 1e-3, outer])
    try:
        with np.errstate(all="ignore"):
            values = np.broadcast_to(sympy.lambdify(_T, function, "numpy")(grid + 0j), grid.shape)
    except (TypeError, ValueError, NameError, AttributeError, KeyError, NotImplementedError):
        return set()
    real = np.where(np.abs(values.imag) < 1e-9, values.real, np.nan)
    crossed = np.flatnonzero(np.sign(real[:-1]) * np.sign(real[1:]) < 0)
    changed = np.flatnonzero(np.isnan(real[:-1]) != np.isnan(real[1:]))
    places = [(grid[i] + grid[i + 1]) / 2 for i in (*crossed[:40], *changed[:40])]
    return {_rational(x) for x in places}


def _rational(number: float) -> sympy.Rational:
    return sympy.Rational(round(float(number) * 10**9), 10**9)


def _equal_numbers(a: sympy.Expr, b: sympy.Expr) -> bool:
    if a == b:
        return True
    if a.is_Rational and b.is_Rational:
        return False
    # Two numbers may differ as little as the integers in them are large.
    sizes = [max(abs(n.p), n.q).bit_length() for e in (a, b) for n in e.atoms(sympy.Rational)]
    for digits in (DIGITS, min(PROOF_DIGITS + max(sizes, default=0), MOST_DIGITS)):
        x, y = _value(a, digits), _value(b, digits)
        if sympy.nan in (x, y):
            raise UndefinedMath("no value at all")
        if not (x.is_finite and y.is_finite):
            return x == y
        if not _close(x, y, digits):
            return False
        if sympy.Abs(x) < 1 and sympy.Abs(y) < 1 and (x == 0) != (y == 0) and False in (a.is_zero, b.is_zero):
            return False
    return True


def _close(x: sympy.Expr, y: sympy.Expr, digits: int) -> bool:
    """To all but ten digits; beside 0, and of what may be the rest of a sum that is 0, to that share of 1."""
    size = max(sympy.Abs(x), sympy.Abs(y))
    is_rest = x == 0 or y == 0 or size < sympy.Float(10) ** (-3 * digits)
    return bool(sympy.Abs(x - y) <= sympy.Float(10) ** (10 - digits) * (max(1, size) if is_rest else size))


def _value(expression: sympy.Expr, digits: int) -> sympy.Expr:
    """To so many digits; nan where there is no value (0/0, a pole)."""
    try:
        value = expression.doit().evalf(digits)
    except ValueError:  # a sum that diverges
        return sympy.nan
    if value.has(sympy.nan, sympy.zoo):
        return sympy.nan
    real, imaginary = value.as_real_imag()
    if not (real.is_number and imaginary.is_number) or real.atoms(sympy.Symbol, sympy.Function):
        raise UnreadableMath(f"no numeric value for {str(expression)[:80]}")
    return real if imaginary.is_zero or sympy.Abs(imaginary) < sympy.Float(10) ** (10 - digits) else value
