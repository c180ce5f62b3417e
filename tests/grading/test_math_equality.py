"""M9 and M10: expressions that differ on a small region are never equal; sums and products are tested at integers."""

import random

import pytest

from rlvr_limit.grading import mathruler
from rlvr_limit.grading.math import authors, equality, equivalence, grade, string_rules
from rlvr_limit.grading.math.equality import equal, proportional
from rlvr_limit.grading.math.expression import SYMPY_GAVE_UP, UnreadableMath, read
from rlvr_limit.types import Problem, Status

SAME = [
    (r"|x-2|", r"|2-x|"), (r"\sqrt{x^2}", "|x|"), (r"\lfloor -x\rfloor", r"-\lceil x\rceil"),
    (r"\max(x,y)", r"\frac{x+y+|x-y|}{2}"), (r"|x-1|+|x-3|", r"\max(2,|2x-4|)"), (r"(x^2)^{3/2}", "|x|^3"),
    (r"\lfloor\frac{n^2}{4}\rfloor", r"\lfloor\frac n2\rfloor\lceil\frac n2\rceil"), (r"\ln(x^2)", r"2\ln x"),
    (r"\sqrt{x-50}", r"\frac{x-50}{\sqrt{x-50}}"), (r"x\sqrt{x}", "x^{3/2}"),
]  # fmt: skip
DIFFERENT = [
    (r"\lfloor x\rfloor", "x"), (r"\lceil x\rceil", r"\lfloor x\rfloor"), ("|x+10|", "x+10"), (r"\min(x,50)", "x"),
    (r"\sqrt{(x+10)^2}", "x+10"), (r"\lfloor 2x\rfloor", r"2\lfloor x\rfloor"), (r"\max(x,-123456)", "x"),
    ("0", r"\lfloor x\rfloor+\lfloor -x\rfloor"), (r"|\sin x|", r"\sin x"), (r"|e^x-5|", "e^x-5"), ("|xy|", "xy"),
    (r"|\sqrt{x+100}-5|", r"\sqrt{x+100}-5"), (r"\arcsin(\sin x)", "x"), (r"\frac{|x|}{x}", "1"),
    (r"\lfloor\frac{1}{1+(x-77)^2}\rfloor", "0"), (r"\lfloor\frac{x}{1000}\rfloor", "0"), ("|x+y+30|", "x+y+30"),
    (r"\max(0,\frac1{50}-|x-31|-|y+8|)", "0"), (r"\lfloor n\rfloor", "n+1"), (r"\lfloor\frac n7\rfloor", r"\frac n7"),
]  # fmt: skip
SERIES = [
    (r"\sum_{k=1}^n k", r"\frac{n(n+1)}{2}", True), (r"\sum_{k=0}^{n-1} 2^k", "2^n-1", True),
    (r"\prod_{k=1}^n k", "n!", True), (r"\sum_{k=1}^n (-1)^k", r"\frac{(-1)^n-1}{2}", True),
    (r"\sum_{k=1}^n x^k", r"\frac{x(x^n-1)}{x-1}", True), (r"\sum_{k=0}^{\infty} x^k", r"\frac{1}{1-x}", True),
    (r"\sum_{k=1}^n k^2", r"\frac{n(n+1)}{2}", False), (r"\sum_{k=1}^n k", r"\frac{n(n-1)}{2}", False),
    (r"\prod_{k=1}^{n} 2", "n!", False),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), SAME)
def test_m9_equal_on_both_sides_of_every_kink_is_equal(a, b):
    assert equal(read(a), read(b)) and equal(read(b), read(a))


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_m9_equal_on_one_side_of_a_kink_is_not_equal(a, b):
    assert not equal(read(a), read(b)) and not equal(read(b), read(a))


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        (r"\frac{\sqrt{4009}}{2^{2004}}", r"-\frac{\sqrt{4009}}{2^{2004}}", False),
        (r"\frac{\sqrt{4009}}{2^{2004}}", "0", False),
        (r"\frac{\sqrt{4009}}{2^{2004}}", r"\sqrt{4009} \cdot 2^{-2004}", True),
        (r"\sqrt{\frac{2^{2009}-1}{2^{2008}-1}}", r"\sqrt{\frac{2^{2009}+1}{2^{2008}-1}}", False),
        ("0", r"\sqrt{5+2\sqrt6}-\sqrt2-\sqrt3", True),
    ],
)
def test_numbers_far_below_1_are_compared_to_their_own_digits(a, b, same):
    assert equal(read(a), read(b)) is same


def test_m9_equations_are_compared_at_the_same_points():
    assert proportional(read("|x|-y"), read("2|x|-2y")) and not proportional(read("|x|-y"), read("x-y"))


@pytest.mark.parametrize(("a", "b", "same"), SERIES)
def test_m10_symbolic_sums_and_products_are_tested_at_integers(a, b, same):
    assert equal(read(a), read(b)) is same


def test_m10_a_greatest_divisor_of_names_is_unreadable():
    with pytest.raises(UnreadableMath, match="divisor"):
        read(r"\gcd(a, b)")


def differing_pair(rng: random.Random) -> tuple[str, str]:
    """Two expressions that differ within `width` of a place, or on one side of it, and nowhere else."""
    place = rng.choice([rng.randint(-60, 60), rng.randint(-5000, 5000), f"\\frac{{{rng.randint(-99, 99)}}}{{7}}"])
    width = f"\\frac{{1}}{{{rng.choice([2, 10, 50, 400])}}}"
    name, other = rng.choice([("x", "y"), ("a", "b"), ("t", "u")])
    away = f"{name}-({place})"
    bump = rng.choice([
        f"\\max(0,{width}-|{away}|)", f"|{away}|-({away})", f"\\lfloor {name}+{width}\\rfloor-\\lfloor {name}\\rfloor",
        f"\\max({name},{place})-{name}", f"\\sqrt{{({away})^2}}-({away})", f"\\max(0,({away})({place}+{width}-{name}))",
        f"{width}-\\min({width},|{away}|)", f"\\lfloor\\frac{{1}}{{1+({away})^2}}\\rfloor",
        f"\\lceil {name}\\rceil-\\lfloor {name}\\rfloor-1", f"|{width}-|{away}||-|{away}|+{width}",
        f"\\max(0,{width}-|{away}|-|{other}-{rng.randint(-9, 9)}|)",
    ])  # fmt: skip
    base = rng.choice([f"{name}^2-3{name}", f"|{name}-2|", f"\\frac{{{name}}}{{3}}", f"\\lfloor {name}\\rfloor", "7",
                       f"{name}{other}", f"\\sqrt{{{name}^2+1}}"])  # fmt: skip
    scale = rng.choice(["", "2", f"({name}^2+1)", "\\frac{1}{9}"])
    return base, f"{base} + {scale}({bump})"


@pytest.mark.parametrize("seed", range(60))
def test_m9_random_pairs_that_differ_on_a_small_region_are_never_equal(seed):
    a, b = differing_pair(random.Random(f"region/{seed}"))
    assert not equal(read(a), read(b)), (a, b)


@pytest.mark.parametrize("gave_up", SYMPY_GAVE_UP)
def test_what_sympy_gives_up_on_is_not_equal_by_any_rules_and_ends_no_grading(monkeypatch, gave_up):
    def fails(x, y):
        raise gave_up

    monkeypatch.setattr(equality, "equal", fails)
    assert not authors.equal_answers("x+x", "2x") and not mathruler.equal("x+x", "2x")
    monkeypatch.setattr(string_rules, "_form", lambda value: fails(value, value))
    assert string_rules.vote_form("x+1") == "x+1"
    monkeypatch.setattr(equivalence, "equivalent", fails)
    verdict = grade.grade(Problem("p", "Simplify.", "", (), "2x"), r"\boxed{x+x}")
    assert (verdict.correct, verdict.status, verdict.detail) == (
        False, Status.ERROR, f"not evaluated: {gave_up.__name__}"
    )  # fmt: skip
