"""CoT-Pass@k by a judge model: against enumeration over right chains, Rogan and Gladen, and simulated truth."""

from __future__ import annotations

import itertools
from math import comb

import numpy as np
import pytest

from rlvr_limit import passk
from rlvr_limit.passk.guessing import EM_STEPS, SHARES
from rlvr_limit.types import UserError

PERFECT = passk.JudgeCounts(10_000, 0, 0, 10_000)


def pass_at(n: int, c: int, k: int) -> float:
    return 1 - comb(n - c, k) / comb(n, k)


def test_a_judge_without_known_errors_is_taken_at_its_word():
    n, c, yes = [8] * 4, [0, 3, 8, 5], [0, 3, 2, 0]
    found = passk.judged_curves(n, c, yes, PERFECT)
    np.testing.assert_allclose(found.judged_K, passk.pass_curve(n, yes), rtol=1e-12)
    np.testing.assert_allclose(found.corrected_K, found.judged_K, atol=1e-12)
    assert np.all(found.low_K <= found.corrected_K + 1e-9) and np.all(found.corrected_K <= found.high_K + 1e-9)
    assert np.all(found.high_K - found.low_K < 0.01)


def test_of_one_right_answer_a_problem_the_share_is_rogan_and_gladens():
    """Rogan and Gladen 1978: (q + specificity - 1) / (sensitivity + specificity - 1), q the share of yes."""
    counts = passk.JudgeCounts(9, 1, 3, 7)
    for said in (35, 60, 85):
        found = passk.judged_curves([1] * 100, [1] * 100, [1] * said + [0] * (100 - said), counts)
        share = (said / 100 + 0.7 - 1) / (0.9 + 0.7 - 1)
        assert found.judged_K[0] == pytest.approx(said / 100)
        assert found.corrected_K[0] == pytest.approx(share, abs=2e-3)


def slow(n: list[int], c: list[int], yes: list[int], sensitivity: float, specificity: float, k: int) -> float:
    """The same by loops: the distribution of shares by EM, then every way in which chains can be right."""
    points = [i / (SHARES - 1) for i in range(SHARES)]
    mass = [1 / SHARES] * SHARES
    says = [sensitivity * x + (1 - specificity) * (1 - x) for x in points]
    for _ in range(EM_STEPS):
        shares = []
        for right, up in zip(c, yes, strict=True):
            like = [m * s**up * (1 - s) ** (right - up) for m, s in zip(mass, says, strict=True)]
            shares.append([x / sum(like) for x in like])
        some = [share for share, right in zip(shares, c, strict=True) if right]
        mass = [sum(column) / len(some) for column in zip(*some, strict=True)]
    total = 0.0
    for samples, right, up, share in zip(n, c, yes, shares, strict=True):
        for weight, x, s in zip(share, points, says, strict=True):
            truths = [sensitivity * x / s] * up + [(1 - sensitivity) * x / (1 - s)] * (right - up)
            for case in itertools.product((0, 1), repeat=right):
                chance = np.prod([p if is_right else 1 - p for p, is_right in zip(truths, case, strict=True)])
                total += weight * chance * pass_at(samples, sum(case), k)
    return total / len(n)


def test_the_correction_is_the_expectation_over_every_way_in_which_chains_can_be_right():
    n, c, yes = [6, 6, 7], [2, 0, 4], [1, 0, 4]
    found = passk.judged_curves(n, c, yes, passk.JudgeCounts(8, 2, 3, 9))
    for k in (1, 3, 6):
        assert found.corrected_K[k - 1] == pytest.approx(slow(n, c, yes, 0.8, 0.75, k), rel=1e-6)


def test_the_truth_is_nearer_to_the_correction_than_to_the_judge_and_between_the_bounds():
    """Problems that are guessed (no chain right) beside others: a judge too kind counts guesses as solved."""
    rng = np.random.default_rng(0)
    n, M = 64, 200
    c_M = rng.integers(1, 40, M)
    right_M = np.where(rng.random(M) < 0.4, 0, rng.binomial(c_M, 0.9))
    yes_M = rng.binomial(right_M, 0.9) + rng.binomial(c_M - right_M, 0.2)
    counts = passk.JudgeCounts(90, 10, 20, 80)
    found, truth_K = passk.judged_curves([n] * M, c_M, yes_M, counts), passk.pass_curve([n] * M, right_M)
    # How far a problem whose chains are all wrong is from being solved is seen best where k is large.
    assert abs(found.judged_K[-1] - truth_K[-1]) > 0.2
    for k in (1, 4, 16, 64):
        assert abs(found.corrected_K[k - 1] - truth_K[k - 1]) < 0.05
        assert found.low_K[k - 1] <= truth_K[k - 1] <= found.high_K[k - 1]


def test_without_a_persons_judgments_of_both_kinds_nothing_is_corrected():
    for counts in (passk.JudgeCounts(0, 0, 0, 0), passk.JudgeCounts(5, 1, 0, 0), passk.JudgeCounts(0, 0, 0, 3)):
        found = passk.judged_curves([4, 4], [2, 3], [1, 3], counts)
        assert found[1:] == (None, None, None) and "not calibrated" in counts.in_words()
        np.testing.assert_allclose(found.judged_K, passk.pass_curve([4, 4], [1, 3]))


def test_a_judge_that_may_toss_coins_leaves_everything_open():
    found = passk.judged_curves([4, 4], [2, 3], [1, 3], passk.JudgeCounts(3, 2, 2, 2))
    assert np.all(found.low_K == 0)
    np.testing.assert_allclose(found.high_K, passk.pass_curve([4, 4], [2, 3]))
    assert passk.judged_curves([4, 4], [2, 3], [1, 3], passk.JudgeCounts(1, 1, 1, 1)).corrected_K is None


@pytest.mark.parametrize(("hits", "misses"), [(0, 7), (7, 0), (3, 4), (19, 1)])
def test_intervals_of_rates_are_exact(hits: int, misses: int):
    n = hits + misses

    def at_least(x: int, p: float) -> float:
        return sum(comb(n, j) * p**j * (1 - p) ** (n - j) for j in range(x, n + 1))

    rate, low, high = passk.JudgeCounts(hits, misses, 1, 1).ends[0]
    assert rate == hits / n
    assert low == 0 if not hits else at_least(hits, low) == pytest.approx(0.0125, rel=1e-6)
    assert high == 1 if not misses else 1 - at_least(hits + 1, high) == pytest.approx(0.0125, rel=1e-6)


def test_more_right_chains_than_right_answers_are_refused():
    with pytest.raises(UserError, match="has 3 right chains, but 2 right answers"):
        passk.judged_curves([4], [2], [3], PERFECT)
