"""The power line against simulation: that many problems, or samples, do show the sign about four times in five."""

import numpy as np
import pytest

from rlvr_limit import passk
from rlvr_limit.passk.power import noise
from rlvr_limit.types import UserError

K_TABLE = {n: passk.pass_curves(np.full(n + 1, n), np.arange(n + 1)) for n in (16, 32)}


def shown(base_RM, rl_RM, n, k) -> float:
    """Share of R simulated studies whose 95 % normal interval of the paired difference excludes 0."""
    difference_RM = K_TABLE[n][base_RM, k - 1] - K_TABLE[n][rl_RM, k - 1]
    mean_R, error_R = difference_RM.mean(axis=1), difference_RM.std(axis=1, ddof=1) / np.sqrt(base_RM.shape[1])
    return float((np.abs(mean_R) > 1.96 * error_R).mean())


def draw(rng, shape, n, worth):
    """Counts of a base with p ~ Beta(1, 3) and of an arm one of whose samples is worth that many on half of these."""
    p = rng.beta(1, 3, shape)
    better = np.where(rng.random(shape) < 0.5, 1 - (1 - p) ** worth, p)
    return rng.binomial(n, p), rng.binomial(n, better)


@pytest.mark.parametrize(("n", "k", "worth"), [(32, 1, 1.3), (32, 8, 1.6), (16, 16, 2.5)])
def test_that_many_problems_show_the_sign_four_times_in_five(n, k, worth):
    rng = np.random.default_rng(1)
    base_M, rl_M = draw(rng, 60_000, n, worth)  # so many that the measured difference is nearly the true one
    found = passk.power_at_k(np.full(60_000, n), base_M, np.full(60_000, n), rl_M, k)
    assert 10 < found.problems < 2000 and found.modelled == (2 * k > n)
    assert shown(*draw(rng, (2000, found.problems), n, worth), n, k) == pytest.approx(0.8, abs=0.04)
    assert shown(*draw(rng, (2000, found.problems // 4), n, worth), n, k) < 0.5


def test_that_many_samples_show_the_sign_four_times_in_five():
    """All problems alike, so that sampling noise is all there is: p = .10 against .13."""
    rng, M, k = np.random.default_rng(2), 20, 2
    pilot = [rng.binomial(32, p, 60_000) for p in (0.10, 0.13)]
    counts = [np.full(60_000, 32), pilot[0], np.full(60_000, 32), pilot[1]]
    large = passk.power_at_k(*counts, k)
    assert large.samples == 32 and large.problems < 60_000  # these are plenty already
    # The 20 of them that are most like the whole, in mean and variance, stand for a study of 20 problems.
    gap = K_TABLE[32][pilot[0], k - 1] - K_TABLE[32][pilot[1], k - 1]
    gap_BM = gap.reshape(-1, M)
    unlike_B = np.abs(gap_BM.mean(axis=1) / gap.mean() - 1) + np.abs(gap_BM.var(axis=1, ddof=1) / gap.var() - 1)
    block = np.arange(M) + M * int(np.argmin(unlike_B))
    found = passk.power_at_k(*(x[block] for x in counts), k)
    assert 32 < found.samples < 500 and not found.modelled
    n = found.samples
    table_K = passk.pass_curves(np.full(n + 1, n), np.arange(n + 1))[:, k - 1]
    difference_RM = table_K[rng.binomial(n, 0.10, (4000, M))] - table_K[rng.binomial(n, 0.13, (4000, M))]
    error_R = difference_RM.std(axis=1, ddof=1) / np.sqrt(M)
    assert (np.abs(difference_RM.mean(axis=1)) > 1.96 * error_R).mean() == pytest.approx(0.8, abs=0.12)
    assert f"about {n:,} samples of each" in found.sentence and "(now 20)" in found.sentence


@pytest.mark.parametrize(("n", "k"), [(16, 4), (16, 16), (32, 8)])
def test_noise_of_n_samples_is_its_variance_by_enumeration(n, k):
    p_M, c = np.array([0.0, 0.02, 0.1, 0.4, 1.0]), np.arange(n + 1)
    choose = np.array([np.prod([(n - j) / (j + 1) for j in range(x)]) for x in c])
    mass_MC = choose * p_M[:, None] ** c * (1 - p_M[:, None]) ** (n - c)
    value_C = K_TABLE[n][:, k - 1]
    variance_M = mass_MC @ value_C**2 - (mass_MC @ value_C) ** 2
    miss_T = ((1 - p_M[:, None]) ** np.arange(2 * k + 1)).mean(axis=0)
    assert noise(miss_T, k, n) == pytest.approx(variance_M.mean(), abs=1e-13)


def test_problems_that_differ_cannot_be_outdone_by_samples():
    """One arm solves these, the other those: the measured difference is between problems, whatever n is."""
    found = passk.power_at_k([64] * 10, [64] * 5 + [0] * 5, [64] * 10, [0] * 4 + [64] * 4 + [0] * 2, 2)
    assert found.samples is None and found.problems > 10
    assert "more samples of these problems would not" in found.sentence


def test_equal_arms_name_no_number_and_clear_ones_say_they_are_enough():
    same = passk.power_at_k([8] * 9, [4] * 9, [8] * 9, [4] * 9, 2, names=("the base", "GRPO"))
    assert (same.problems, same.samples, same.error) == (None, None, None)
    assert same.sentence.startswith("the base minus GRPO at k = 2 is +0.0 points, standard error unknown: how many")
    assert "all 9 problems agree" in same.sentence
    level = passk.power_at_k([8] * 10, [4, 2] * 5, [8] * 10, [2, 4] * 5, 1)
    assert (level.problems, level.samples) == (None, None) and level.error > 0 and "is unknown" in level.sentence
    clear = passk.power_at_k([8] * 9, [8] * 9, [8] * 9, [1] * 8 + [2], 1)
    assert clear.problems <= 9 and clear.samples == 8 and "9 problems like these show its sign" in clear.sentence


@pytest.mark.parametrize("right", [0, 4, 6])
def test_few_problems_that_agree_need_as_many_as_give_a_paired_band_without_0(right):
    """Uncertainty shown as zero: two problems of a difference of -100 points were said to show its sign."""

    def band(M):
        first, second = (passk.pass_curves([8] * M, [c] * M)[:, :1] for c in (right, 8))
        return passk.paired_band(first, second)

    found = passk.power_at_k([8, 8], [right] * 2, [8, 8], [8, 8], 1)
    assert found.error is None and found.samples is None and "standard error unknown" in found.sentence
    assert band(found.problems + 1).high_K[0] < 0 < band(found.problems - 1).high_K[0]


def test_crossover_needs_the_harder_of_two_leads():
    n_M = np.full(30, 64)
    base_M = np.full(30, 4)
    rl_M = np.where(np.arange(30) % 10 == 0, 0, 20)  # RL leads clearly at k = 1; base at n by three problems of thirty
    found = passk.power_of_crossover(n_M, base_M, n_M, rl_M)
    late = passk.power_at_k(n_M, base_M, n_M, rl_M, 64)
    assert (found.k, found.problems) == (64, late.problems) and late.problems > 30
    assert found.sentence.startswith("The crossover needs both leads shown, and base's lead at k = 64 is the harder.")
    for base, rl, words in ((base_M, base_M * 2, "base not ahead at k = 64"), (rl_M, rl_M // 2, "RL nowhere ahead")):
        assert words in passk.power_of_crossover(n_M, base, n_M, rl).sentence


def test_what_cannot_be_asked_is_refused():
    for call, words in (
        (lambda: passk.power_at_k([8, 4], [1, 1], [8, 8], [1, 1], 5), r"k = 5, but problem 1 .* n = 4"),
        (lambda: passk.power_at_k([8], [1], [8], [1], 1), "at least 2"),
        (lambda: passk.power_of_crossover([8, 8], [1, 1], [8], [1]), "same problems"),
        (lambda: passk.power_at_k([8, 8], [1, 1], [8, 8], [1, 2], 1, power=1), "power is 1"),
    ):
        with pytest.raises(UserError, match=words):
            call()
