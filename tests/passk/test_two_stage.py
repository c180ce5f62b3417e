"""Two-stage sampling: no bias, shown by enumerating every outcome, where counting both stages together has one."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest

from rlvr_limit import passk
from rlvr_limit.types import UserError

FIRST, SECOND = 4, 5
OUTCOMES = [(c, None) for c in range(1, FIRST + 1)] + [(0, c) for c in range(SECOND + 1)]


def chances(p: Fraction) -> list[Fraction]:
    """The probability of every outcome (right in the first stage, right in the second stage if there was one)."""

    def binomial(n: int, c: int) -> Fraction:
        return comb(n, c) * p**c * (1 - p) ** (n - c)

    return [binomial(FIRST, a) * (1 if b is None else binomial(SECOND, b)) for a, b in OUTCOMES]


def curves() -> np.ndarray:
    """[outcome, k] the estimates of all outcomes, each as a problem of its own."""
    first_c, second = [a for a, _ in OUTCOMES], [b for _, b in OUTCOMES]
    second_n = [0 if b is None else SECOND for b in second]
    return passk.two_stage_curves(FIRST, first_c, second_n, [b or 0 for b in second], FIRST + SECOND)


@pytest.mark.parametrize(
    "p", [Fraction(0), Fraction(1, 100), Fraction(1, 7), Fraction(1, 2), Fraction(9, 10), Fraction(1)]
)
def test_the_mean_over_all_outcomes_is_the_truth_at_every_k(p):
    assert sum(chances(p)) == 1
    mean_K = np.array([float(x) for x in chances(p)]) @ curves()
    truth_K = [float(1 - (1 - p) ** k) for k in range(1, FIRST + SECOND + 1)]
    np.testing.assert_allclose(mean_K, truth_K, atol=1e-14)


@pytest.mark.parametrize("p", [Fraction(1, 100), Fraction(1, 7), Fraction(1, 2)])
def test_counting_both_stages_together_is_biased_upwards_by_what_the_docstring_says(p):
    together = [Fraction(a, FIRST) if b is None else Fraction(b, FIRST + SECOND) for a, b in OUTCOMES]
    mean = sum(x * chance for x, chance in zip(together, chances(p), strict=True))
    assert mean == p * (1 + (1 - p) ** FIRST * Fraction(SECOND, FIRST + SECOND)) > p


def test_estimates_are_probabilities_that_never_fall_and_need_no_second_stage_where_all_is_solved():
    curve_MK = curves()
    assert curve_MK.min() >= 0 and curve_MK.max() <= 1 and (np.diff(curve_MK, axis=1) >= -1e-15).all()
    solved = passk.two_stage_curves(4, [1, 4], [0, 0], [0, 0], 9)
    np.testing.assert_allclose(solved[:, :4], passk.pass_curves([4, 4], [1, 4]))
    assert (solved[:, 4:] == 1).all()
    # A second stage of a solved problem is not looked at, nor is any at k <= first.
    assert (passk.two_stage_curves(4, [1, 4], [5, 5], [0, 0], 9) == solved).all()
    assert (passk.two_stage_curves(4, [1, 0], [0, 0], [0, 0], 3)[1] == 0).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((4, [1, 0], [0, 4], [0, 1], 9), "problem 1 .* no right sample among its first 4 and 4 more: K = 9 needs 5"),
        ((4, [1, 5], [0, 0], [0, 0], 4), "n = 4 and c = 5"),
        ((4, [1, 0], [0], [0], 9), "1 n and 1 c"),
        ((4, [1, 0], [0, 5], [0, 6], 9), "n = 5 and c = 6"),
        ((4, [1, 0], [0, 5], [0, 1], 0), "K = 0"),
    ],
)
def test_counts_that_cannot_be_are_refused(arguments, words):
    with pytest.raises(UserError, match=words):
        passk.two_stage_curves(*arguments)
