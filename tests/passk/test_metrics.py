"""Every metric of counts against a slow reference that shares nothing with it, on the same 200 random count vectors.

The references are exact rationals, enumeration and quadrature. The vectors have few shapes, so that little is compiled.
"""

import functools
from fractions import Fraction
from itertools import combinations
from math import ceil, comb, log, prod

import numpy as np
import pytest
from scipy import optimize, stats

from rlvr_limit import passk
from rlvr_limit.types import UserError

M = 8
LEAST_N = (1, 2, 9, 24)  # the fewest samples of a vector, so that curves have few lengths


def vectors():
    """200 pairs (n_M, c_M): ragged n in three of four, every one with c = 0 and c = n among its problems."""
    rng = np.random.default_rng(7)
    for i in range(200):
        least = LEAST_N[i % 4]
        n_M = np.full(M, least) if i % 16 < 4 else least + rng.integers(0, 12, M)
        n_M[rng.integers(M)] = least
        c_M = rng.binomial(n_M, rng.beta(0.5, 0.5, M))
        some, other = rng.permutation(M)[:2]
        c_M[some], c_M[other] = 0, n_M[other]
        yield n_M, c_M


VECTORS = list(vectors())
PAIRS = [list(zip(n_M.tolist(), c_M.tolist(), strict=True)) for n_M, c_M in VECTORS]


def mean(values) -> float:
    values = list(values)
    return float(sum(values, Fraction(0)) / len(values))


def ks(n_M) -> list[int]:
    """First, last and one between: k = n is among them for the problem with the fewest samples."""
    return sorted({1, int(n_M.min() + 1) // 2, int(n_M.min())})


def test_vectors_have_the_corners_that_matter():
    assert len(VECTORS) == 200
    assert all((c_M == 0).any() and (c_M == n_M).any() for n_M, c_M in VECTORS)
    assert sum(len(set(n_M)) > 1 for n_M, _ in VECTORS) > 140
    assert {int(n_M.min()) for n_M, _ in VECTORS} == set(LEAST_N)


def test_pass_at_k_pass_hat_curves_and_avg_at_n_are_ratios_of_binomials():
    for (n_M, c_M), pairs in zip(VECTORS, PAIRS, strict=True):
        for k in ks(n_M):
            any_right = mean(1 - Fraction(comb(n - c, k), comb(n, k)) for n, c in pairs)
            all_right = mean(Fraction(comb(c, k), comb(n, k)) for n, c in pairs)
            assert passk.pass_at_k(n_M, c_M, k) == pytest.approx(any_right, abs=1e-13)
            assert passk.pass_hat_curves(n_M, c_M)[:, k - 1].mean() == pytest.approx(all_right, abs=1e-13)
        assert passk.avg_at_n(n_M, c_M) == pytest.approx(mean(Fraction(c, n) for n, c in pairs), abs=1e-14)


def exact_g_pass(pairs, k, right) -> Fraction:
    tails = [
        Fraction(sum(comb(c, j) * comb(n - c, k - j) for j in range(right, min(c, k) + 1)), comb(n, k))
        for n, c in pairs
    ]
    return sum(tails, Fraction(0)) / len(pairs)


def test_g_pass_is_the_upper_tail_of_the_hypergeometric_law():
    for (n_M, c_M), pairs in zip(VECTORS, PAIRS, strict=True):
        for k in ks(n_M):
            for right in {1, ceil(k / 2), k}:
                expected = float(exact_g_pass(pairs, k, right))
                assert passk.g_pass_at_k(n_M, c_M, k, right) == pytest.approx(expected, abs=1e-13)
            assert passk.g_pass_at_k(n_M, c_M, k, 1) == pytest.approx(passk.pass_at_k(n_M, c_M, k), abs=1e-13)
            assert passk.g_pass_at_k(n_M, c_M, k, k) == pytest.approx(
                passk.pass_hat_curves(n_M, c_M)[:, k - 1].mean(), abs=1e-13
            )


def test_mg_pass_is_the_mean_over_the_upper_half_of_thresholds():
    for (n_M, c_M), pairs in zip(VECTORS, PAIRS, strict=True):
        for k in (k for k in ks(n_M) if k % 2 == 0):
            expected = sum(exact_g_pass(pairs, k, i) for i in range(ceil(k / 2) + 1, k + 1)) * Fraction(2, k)
            assert passk.mg_pass_at_k(n_M, c_M, k) == pytest.approx(float(expected), abs=1e-13)
    assert passk.mg_pass_at_k([9, 9], [9, 9], 8) == pytest.approx(1, abs=1e-14)


def test_g_pass_holds_at_a_thousand_samples():
    n_M, c_M = np.full(6, 1024), np.array([0, 1, 100, 512, 1000, 1024])
    for k, right in ((7, 4), (25, 7), (256, 128), (1024, 1000)):
        expected = exact_g_pass(list(zip(n_M.tolist(), c_M.tolist(), strict=True)), k, right)
        assert passk.g_pass_at_k(n_M, c_M, k, right) == pytest.approx(float(expected), abs=1e-12)


def test_thresholds_that_no_float_can_move():
    """ceil(0.28 x 25) is 8 in floats and 7 in truth, which is why an integer is asked for."""
    assert ceil(0.28 * 25) == 8 and ceil(Fraction(7, 25) * 25) == 7
    for words, call in (
        ("within 1..4", lambda: passk.g_pass_at_k([4], [2], 4, 0)),
        ("within 1..4", lambda: passk.g_pass_at_k([4], [2], 4, 5)),
        ("must be even", lambda: passk.mg_pass_at_k([5], [5], 5)),
        ("must be even", lambda: passk.mg_pass_at_k([5], [5], 0)),
        (r"k = 6, but problem 1 .* n = 4", lambda: passk.mg_pass_at_k([6, 4], [5, 1], 6)),
    ):
        with pytest.raises(UserError, match=words):
            call()


TAUS = [Fraction(i, 63) for i in range(64)]


def test_cover_counts_problems_at_or_above_the_threshold():
    tau_T = [float(tau) for tau in TAUS]
    for (n_M, c_M), pairs in zip(VECTORS, PAIRS, strict=True):
        expected_T = [mean(Fraction(Fraction(c, n) >= tau) for n, c in pairs) for tau in TAUS]
        np.testing.assert_allclose(passk.cover_at_tau(n_M, c_M, tau_T), expected_T, atol=1e-14)


@functools.cache
def exact_posterior_cover(n: int, c: int, i: int) -> Fraction:
    """P(p >= i/63) under Beta(c+1, n-c+1), which is P(Bin(n+1, i/63) <= c)."""
    return Fraction(sum(comb(n + 1, j) * i**j * (63 - i) ** (n + 1 - j) for j in range(c + 1)), 63 ** (n + 1))


def test_posterior_cover_is_a_binomial_tail():
    tau_T = [float(tau) for tau in TAUS]
    for (n_M, c_M), pairs in zip(VECTORS, PAIRS, strict=True):
        found_T = passk.posterior_cover(n_M, c_M, tau_T)
        for i in (0, 3, 31, 57, 63):
            assert found_T[i] == pytest.approx(mean(exact_posterior_cover(n, c, i) for n, c in pairs), abs=1e-12)
    c_M = [0, 1, 2, 300, 301, 900, 1023, 1024]
    expected_T = np.mean([stats.beta.sf(tau_T, c + 0.5, 1024 - c + 3) for c in c_M], axis=0)
    np.testing.assert_allclose(passk.posterior_cover([1024] * M, c_M, tau_T, 0.5, 3), expected_T, atol=1e-11)


@pytest.mark.parametrize("k", [7, 33, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2))])
def test_cover_integrates_to_what_each_of_its_forms_must(k):
    """Two identities of metrics.md item 5, to 1e-6; and neither is pass@k, which is what the definitions warn of."""
    x, weight = np.polynomial.legendre.leggauss(64)  # exact for the posterior form: a polynomial of degree n + k
    tau_T = (x + 1) / 2
    apart = 0.0
    for n_M, c_M in VECTORS:
        edges = np.unique(np.concatenate([[0.0], c_M / n_M, [1.0]]))
        steps = passk.cover_at_tau(n_M, c_M, (edges[1:] + edges[:-1]) / 2)
        plug_in = (steps * ((1 - edges[:-1]) ** k - (1 - edges[1:]) ** k)).sum()
        assert plug_in == pytest.approx((1 - (1 - c_M / n_M) ** k).mean(), abs=1e-6)
        posterior = (passk.posterior_cover(n_M, c_M, tau_T) * k * (1 - tau_T) ** (k - 1) * weight / 2).sum()
        assert posterior == pytest.approx(passk.posterior_curves(n_M, c_M, 33)[:, k - 1].mean(), abs=1e-6)
        if k <= n_M.min():
            apart = max(apart, abs(plug_in - passk.pass_at_k(n_M, c_M, k)))
    assert apart > 0.01 or k in (1, 33)


def test_cover_refuses_what_is_no_threshold():
    for cover in (passk.cover_at_tau, passk.posterior_cover):
        with pytest.raises(UserError, match="tau = 1.5"):
            cover([4], [2], [0.5, 1.5])
    with pytest.raises(UserError, match="prior is"):
        passk.posterior_cover([4], [2], [0.5], a=0)


def test_posterior_pass_at_k_is_a_ratio_of_rising_products():
    for (n_M, c_M), pairs in zip(VECTORS, PAIRS, strict=True):
        found = passk.posterior_curves(n_M, c_M, 33).mean(axis=0)
        for k in (1, 5, 33):
            expected = mean(1 - Fraction(comb(n - c + k, k), comb(n + 1 + k, k)) for n, c in pairs)
            assert found[k - 1] == pytest.approx(expected, abs=1e-13)


def test_bayes_at_n_is_the_posterior_mean_and_deviation():
    for (n_M, c_M), pairs in zip(VECTORS, PAIRS, strict=True):
        mu, sigma = passk.bayes_at_n(n_M, c_M)
        first = [Fraction(c + 1, n + 2) for n, c in pairs]
        second = [Fraction((c + 1) * (c + 2), (n + 2) * (n + 3)) for n, c in pairs]
        variance = sum((y - x**2 for x, y in zip(first, second, strict=True)), Fraction(0)) / M**2
        assert mu == pytest.approx(mean(first), abs=1e-13) and sigma**2 == pytest.approx(float(variance), rel=1e-12)


def test_area_over_log_k_is_the_integral_of_the_polyline():
    for n_M, c_M in VECTORS:
        curve_K = passk.pass_curve(n_M, c_M)
        K = curve_K.size
        if K == 1:
            with pytest.raises(UserError, match="area over log k"):
                passk.auc_log_k(curve_K)
            continue
        at = np.union1d(np.linspace(0, log(K), 101), np.log(np.arange(1, K + 1)))
        height = np.interp(at, np.log(np.arange(1, K + 1)), curve_K)
        assert passk.auc_log_k(curve_K) == pytest.approx(np.trapezoid(height, at) / log(K), abs=1e-12)
    assert passk.auc_log_k(np.full(9, 0.3)) == pytest.approx(0.3)


def test_budget_counts_every_token_and_every_problem_solved():
    rng = np.random.default_rng(3)
    for (n_M, c_M), pairs in zip(VECTORS, PAIRS, strict=True):
        tokens_M = rng.uniform(5, 500, M)
        found = passk.budget_curve(n_M, c_M, tokens_M)
        for k in ks(n_M):
            solved = M * mean(1 - Fraction(comb(n - c, k), comb(n, k)) for n, c in pairs)
            assert found.solved_K[k - 1] == pytest.approx(solved, abs=1e-12)
            assert found.tokens_K[k - 1] == pytest.approx(k * sum(tokens_M.tolist()), rel=1e-13)
    for bad in ([1.0], [1.0, -2.0], [1.0, float("nan")]):
        with pytest.raises(UserError, match="mean length"):
            passk.budget_curve([4, 4], [1, 1], bad)


def test_delta_se_and_support_by_hand():
    for (n_M, base_M), (_, other_M) in zip(VECTORS[::2], VECTORS[1::2], strict=True):
        rl_M = np.minimum(other_M, n_M)
        k = int(n_M.min())
        ends = [
            1 - Fraction(comb(n - b, k), comb(n, k)) - Fraction(r, n)
            for n, b, r in zip(n_M.tolist(), base_M.tolist(), rl_M.tolist(), strict=True)
        ]
        assert passk.delta_se(n_M, base_M, n_M, rl_M, k) == pytest.approx(mean(ends), abs=1e-13)
        found = passk.support(n_M, base_M, n_M, rl_M)
        sides = {
            (True, True): found.both,
            (True, False): found.base_only,
            (False, True): found.rl_only,
            (False, False): found.neither,
        }
        for side, places in sides.items():
            assert places == tuple(i for i in range(M) if (base_M[i] > 0, rl_M[i] > 0) == side)


def test_expected_support_is_the_mean_over_all_cuts_to_fewer_samples():
    for i in range(0, 200, 2):
        (n_M, _), base, rl = VECTORS[i], PAIRS[i], PAIRS[i + 1]
        n = int(min(n_M.min(), VECTORS[i + 1][0].min()))
        solved = [[1 - Fraction(comb(m - c, n), comb(m, n)) for m, c in pairs] for pairs in (base, rl)]
        both = sum(b * r for b, r in zip(*solved, strict=True))
        totals = [sum(side, Fraction(0)) for side in solved]
        expected = [both, totals[0] - both, totals[1] - both, M - totals[0] - totals[1] + both]
        found = passk.expected_support(*VECTORS[i], *VECTORS[i + 1], n)
        assert found == pytest.approx([float(x) for x in expected], abs=1e-12)
    with pytest.raises(UserError, match="n = 5"):
        passk.expected_support([8], [1], [4], [1], 5)
    with pytest.raises(UserError, match="same problems"):
        passk.expected_support([8], [1], [4, 4], [1, 1], 2)


# Beta-binomial: pass@k beyond n.


def test_extrapolated_pass_at_k_is_a_ratio_of_rising_products():
    law = passk.BetaBinomial(a=0.5, b=3.0, pi0=0.25, log_likelihood=0.0, at_edge=False)
    for k in (0, 1, 2, 50, 2000):
        fail = Fraction(1)
        for j in range(k):
            fail *= (3 + j) / (Fraction(7, 2) + j)
        assert law.pass_at_k([k])[0] == pytest.approx(0.75 * float(1 - fail), abs=1e-12)
    assert law.pass_at_k([1e9])[0] == pytest.approx(0.75, abs=1e-3)
    with pytest.raises(UserError, match="k = -1"):
        law.pass_at_k([-1])


def log_likelihood(law, pairs) -> float:
    """By rational arithmetic on the very floats of the fit."""
    a, b, pi0 = Fraction(law.a), Fraction(law.b), Fraction(law.pi0)
    total = 0.0
    for n, c in pairs:
        top = prod([*(a + j for j in range(c)), *(b + j for j in range(n - c))], start=Fraction(comb(n, c)))
        total += log((1 - pi0) * top / prod(a + b + j for j in range(n)) + pi0 * (c == 0))
    return total


def test_likelihood_is_that_of_the_law_and_no_search_finds_a_better_one():
    for (n_M, c_M), pairs in zip(VECTORS, PAIRS, strict=True):
        law = passk.fit_beta_binomial(n_M, c_M)
        assert law.log_likelihood == pytest.approx(log_likelihood(law, pairs), abs=1e-9)
    for n_M, c_M in VECTORS[2::40]:
        found = optimize.minimize(
            lambda x, n_M=n_M, c_M=c_M: -stats.betabinom.logpmf(c_M, n_M, *np.exp(x)).sum(),
            [0.0, 0.0],
            method="Nelder-Mead",
            options={"xatol": 1e-7, "fatol": 1e-10},
        )
        assert passk.fit_beta_binomial(n_M, c_M).log_likelihood >= -found.fun - 1e-7


def test_zero_inflated_likelihood_is_that_of_the_law_and_never_below_the_plain_one():
    for (n_M, c_M), pairs in zip(VECTORS[1::7], PAIRS[1::7], strict=True):
        plain, law = passk.fit_beta_binomial(n_M, c_M), passk.fit_beta_binomial(n_M, c_M, zero_inflated=True)
        assert law.log_likelihood == pytest.approx(log_likelihood(law, pairs), abs=1e-9)
        assert law.log_likelihood >= plain.log_likelihood - 1e-4 and plain.pi0 == 0


@pytest.mark.parametrize(("a", "b", "pi0"), [(0.4, 2.0, 0.0), (2.0, 3.0, 0.0), (0.8, 3.0, 0.3), (5.0, 20.0, 0.6)])
def test_known_parameters_are_recovered(a, b, pi0):
    rng = np.random.default_rng(17)
    n_M = rng.integers(40, 64, 20_000)
    c_M = rng.binomial(n_M, rng.beta(a, b, n_M.size) * (rng.random(n_M.size) >= pi0))
    law = passk.fit_beta_binomial(n_M, c_M, zero_inflated=pi0 > 0)
    assert (law.a, law.b) == pytest.approx((a, b), rel=0.08) and law.pi0 == pytest.approx(pi0, abs=0.02)
    ks = [1, 64, 1000]
    truth = (1 - pi0) * (1 - np.exp([np.log(stats.beta.expect(lambda p, k=k: (1 - p) ** k, (a, b))) for k in ks]))
    np.testing.assert_allclose(law.pass_at_k(ks), truth, atol=0.012)


def test_rates_that_are_all_alike_or_all_extreme_are_said_to_be_at_the_edge():
    assert passk.fit_beta_binomial([8] * 9, [4] * 9).at_edge
    assert passk.fit_beta_binomial([8] * 9, [8] * 5 + [0] * 4).at_edge
    assert not passk.fit_beta_binomial([8] * 6, [0, 1, 1, 3, 6, 8]).at_edge
    for c_M, words in (([0, 0], "no sample is right"), ([4, 7], "every sample is right")):
        with pytest.raises(UserError, match=words):
            passk.fit_beta_binomial([4, 7], c_M)


# Votes: classes of answers.


def random_votes(rng) -> tuple[list[int], passk.Votes]:
    """Eight samples of one problem as class numbers (0 the gold one, -1 silent), and their counts."""
    classes = rng.integers(-1, rng.integers(1, 5), 8).tolist()
    wrong = tuple(classes.count(i) for i in sorted({*classes} - {-1, 0}))
    return classes, passk.Votes(classes.count(0), wrong, classes.count(-1))


def exact_maj(classes, k) -> float:
    scores = []
    for drawn in combinations(classes, k):
        sizes = {i: drawn.count(i) for i in {*drawn} - {-1}}
        largest = [i for i, size in sizes.items() if size == max(sizes.values())]
        scores.append(Fraction(0 in largest, max(len(largest), 1)))
    return mean(scores)


def test_maj_at_k_is_the_mean_over_all_subsets():
    rng, ks, draws = np.random.default_rng(1), (1, 2, 5, 8), 1000
    problems = [random_votes(rng) for _ in range(200)]
    found_MK = passk.maj_at_k([votes for _, votes in problems], ks, draws=draws)
    exact_MK = np.array([[exact_maj(classes, k) for k in ks] for classes, _ in problems])
    assert np.abs(found_MK - exact_MK).max() < 5 * 0.5 / np.sqrt(draws)
    assert np.abs((found_MK - exact_MK).mean(axis=0)).max() < 4 * 0.5 / np.sqrt(draws * 200)
    np.testing.assert_allclose(found_MK[:, 3], exact_MK[:, 3], atol=1e-12)  # all samples: nothing is random
    assert (found_MK == passk.maj_at_k([votes for _, votes in problems], ks, draws=draws)).all()


def test_silent_samples_do_not_vote_and_ties_share_the_point():
    votes = [passk.Votes(2, (2,), 4), passk.Votes(0, (), 8), passk.Votes(3, (2, 1, 1), 1)]
    assert passk.maj_at_k(votes, [8])[:, 0].tolist() == [0.5, 0.0, 1.0]
    for ks, words in (([9], r"problem 0 .* n = 8"), ([0], "within 1..8"), ([], "give one of each")):
        with pytest.raises(UserError, match=words):
            passk.maj_at_k(votes, ks)
    with pytest.raises(UserError, match="0 draws"):
        passk.maj_at_k(votes, [1], draws=0)


def test_answers_that_are_right_are_one_class_and_empty_ones_are_silent():
    problem = [0, 0, 0, 0, 0, 0, 2, 2]
    answer = ["1/2", "0.5", "3", "3", "", "0.5", "", "7"]
    correct = [True, True, False, False, False, False, True, False]  # the second 0.5 was not graded in time
    votes = passk.count_votes(3, problem, answer, correct)
    assert votes == [passk.Votes(3, (2,), 1), passk.Votes(0, (), 0), passk.Votes(1, (1,), 0)]
    assert [v.n for v in votes] == [6, 0, 2] and [v.distinct for v in votes] == [2, 0, 2]
    for call in (
        lambda: passk.count_votes(1, [0, 1], ["", ""], [False, False]),
        lambda: passk.count_votes(1, [0], ["", ""], [False]),
    ):
        with pytest.raises(UserError):
            call()
