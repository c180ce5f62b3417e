"""Bands and crossover: against independent formulae, brute force over replicates, and simulated coverage."""

import importlib.resources
import json
import math
from statistics import NormalDist

import jax
import numpy as np
import pytest
from scipy import stats

from rlvr_limit import passk
from rlvr_limit.passk import bands
from rlvr_limit.types import UserError

M, N, B = 30, 64, 2000  # one shape for most tests, so that little is compiled


def curves(c_M, n=N):
    return passk.pass_curves(np.full(len(c_M), n), np.asarray(c_M))


def crossing_arms(seed=0):
    """RL solves half of the problems with one sample in two; base solves all of them, with one in sixteen."""
    rng = np.random.default_rng(seed)
    base_c_M = rng.binomial(N, 1 / 16, M).clip(1)
    rl_c_M = np.where(np.arange(M) % 2, rng.binomial(N, 1 / 2, M), 0)
    return curves(base_c_M), curves(rl_c_M)


def expanded_tail():
    return stats.norm.cdf(-math.sqrt(M / (M - 1)) * stats.t.ppf(0.975, M - 1))


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95, 0.99])
def test_student_quantile_is_that_of_its_closed_forms(level):
    """Of 1, 2 and, in the limit, many degrees of freedom."""
    assert bands.student_quantile(level, 1) == pytest.approx(math.tan(math.pi * level / 2), rel=1e-12)
    assert bands.student_quantile(level, 2) == pytest.approx(level * math.sqrt(2 / (1 - level**2)), rel=1e-12)
    assert bands.student_quantile(level, 10**9) == pytest.approx(NormalDist().inv_cdf((1 + level) / 2), rel=1e-8)


def test_bootstrap_draws_m_problems_each_time_and_follows_the_seed():
    weights_BM = bands.bootstrap_weights(0, M, B)
    assert (weights_BM.sum(axis=1) == M).all()
    np.testing.assert_allclose(weights_BM.mean(axis=0), 1, atol=0.09)
    np.testing.assert_allclose(weights_BM.var(axis=0), 1 - 1 / M, atol=0.15)
    assert (weights_BM == bands.bootstrap_weights(0, M, B)).all()
    assert (weights_BM != bands.bootstrap_weights(1, M, B)).any()


def test_paired_band_is_the_expanded_percentile_of_resampled_differences():
    base_MK, rl_MK = crossing_arms()
    band = passk.paired_band(base_MK, rl_MK, seed=3)
    boot_BK = bands.bootstrap_weights(3, M, B) @ (base_MK - rl_MK) / M
    low_K, high_K = np.quantile(boot_BK, [expanded_tail(), 1 - expanded_tail()], axis=0)
    np.testing.assert_allclose(band.low_K, low_K, atol=1e-12)
    np.testing.assert_allclose(band.high_K, high_K, atol=1e-12)
    np.testing.assert_allclose(band.mean_K, base_MK.mean(axis=0) - rl_MK.mean(axis=0), atol=1e-14)
    assert (band.level, band.kind) == (0.95, "paired difference")


def test_population_band_is_the_wider_of_bootstrap_and_score_interval():
    solved_M = np.array([1.0] * 27 + [0.0] * 3)
    band = passk.population_band(np.tile(np.stack([solved_M, 1 - solved_M], axis=1), N // 2))
    boot_B = bands.bootstrap_weights(0, M, B) @ solved_M / M
    boot = np.quantile(boot_B, [expanded_tail(), 1 - expanded_tail()])
    # For zeros and ones the effective number of problems is M - 1, so the score interval is Wilson's with n = 29.
    t, n, p = stats.t.ppf(0.975, 29), 29, 0.9
    half = t * math.sqrt(p * (1 - p) / n + t**2 / (4 * n**2))
    wilson = [(p + t**2 / (2 * n) + sign * half) / (1 + t**2 / n) for sign in (-1, 1)]
    assert band.low_K[0] == pytest.approx(min(boot[0], wilson[0]), abs=1e-7)
    assert band.high_K[0] == pytest.approx(max(boot[1], wilson[1]), abs=1e-7)
    assert band.low_K[1] < band.mean_K[1] < band.high_K[1]


def test_population_band_keeps_a_width_where_every_problem_is_solved():
    band = passk.population_band(np.ones((M, N)))
    t = stats.t.ppf(0.975, 29)
    assert band.low_K[0] == pytest.approx(30 / (30 + t**2), abs=1e-7)
    assert band.high_K[0] == 1


def test_few_problems_that_are_nearly_solved_keep_the_width_of_what_was_not_seen():
    """Neither the bootstrap nor the score interval has any width for 4 problems at .9999."""
    band = passk.population_band(0.9999 - 1e-7 * np.arange(8).reshape(4, 2))
    assert band.low_K == pytest.approx(0.9999 * 0.025**0.25, abs=0.02) and band.high_K == pytest.approx(1, abs=1e-4)


def test_many_columns_give_the_same_band_as_each_alone():
    rng = np.random.default_rng(5)
    value_MK = rng.random((M, 2 * bands.COLUMNS_PER_BLOCK + 7))
    band = passk.population_band(value_MK)
    for k in (0, bands.COLUMNS_PER_BLOCK, value_MK.shape[1] - 1):
        alone = passk.population_band(np.tile(value_MK[:, k : k + 1], N))
        assert (alone.low_K[0], alone.high_K[0]) == pytest.approx((band.low_K[k], band.high_K[k]), abs=1e-12)


@pytest.mark.parametrize("M", [2, 4, 8, 30, 500])
@pytest.mark.parametrize("difference", [-1.0, 0.0, 0.125])
def test_problems_that_all_agree_keep_the_exact_width_of_what_was_not_seen(M, difference):
    """A share s of unlike problems is missed by all M with chance (1-s)^M, which is 2.5 % at s = 1 - .025^(1/M)."""
    first_MK, second_MK = np.full((M, 2), max(difference, 0.0)), np.full((M, 2), max(-difference, 0.0))
    band = passk.paired_band(first_MK, second_MK)
    seen = 0.025 ** (1 / M)
    assert (band.mean_K == difference).all()
    np.testing.assert_allclose(band.low_K, difference * seen - (1 - seen), atol=0.05 * (1 - seen) + 1e-3)
    np.testing.assert_allclose(band.high_K, difference * seen + (1 - seen), atol=0.05 * (1 - seen) + 1e-3)


def test_both_arms_are_resampled_with_the_same_problems():
    rng = np.random.default_rng(2)
    rl_MK, above_M1 = rng.random((M, N)) * 0.8, 0.125 + 1e-9 * np.arange(M)[:, None]
    band = passk.paired_band(rl_MK + above_M1, rl_MK)
    np.testing.assert_allclose([band.low_K, band.high_K], 0.125, atol=1e-7)


@pytest.mark.parametrize("M", [2, 4, 8, 16, 30, 96])
@pytest.mark.parametrize(("worse", "better"), [(0, 0), (0.05, 0), (0.02, 0.02), (0.1, 0.02), (0.9, 0), (0.97, 0.01)])
def test_paired_bands_of_problems_that_mostly_agree_hold_the_truth(M, worse, better):
    """5,000 simulations of arms that differ by a whole problem, or not at all; a band a pair of counts, as a column."""
    drawn_R3 = np.random.default_rng(M).multinomial(M, [worse, better, 1 - worse - better], 5000)
    (worse_C, better_C, _), times_C = np.unique(drawn_R3.T, axis=1, return_counts=True)
    place_M1, truth = np.arange(M)[:, None], better - worse
    band = passk.paired_band(1.0 * (place_M1 >= M - better_C), 1.0 * (place_M1 < worse_C))
    held_C = (band.low_K <= truth + 1e-9) & (truth - 1e-9 <= band.high_K)
    assert np.average(held_C, weights=times_C) >= 0.94
    assert (band.low_K < band.high_K).all()


def test_bands_hold_the_truth_in_95_percent_of_simulations():
    rng, sims, M, ks = np.random.default_rng(11), 400, 96, (1, 16)
    p_RM = rng.beta(0.5, 2.0, (sims, M))
    curve_CK = passk.pass_curves(np.full(N + 1, N), np.arange(N + 1))[:, np.array(ks) - 1]
    value_MK = curve_CK[rng.binomial(N, p_RM)].transpose(1, 0, 2).reshape(M, -1)
    truth_K = [1 - math.exp(math.lgamma(2 + k) - math.lgamma(2.5 + k) - math.lgamma(2) + math.lgamma(2.5)) for k in ks]
    band = passk.population_band(value_MK)
    held_RK = ((band.low_K <= np.tile(truth_K, sims)) & (np.tile(truth_K, sims) <= band.high_K)).reshape(sims, -1)
    assert (np.abs(held_RK.mean(axis=0) - 0.95) < 0.03).all()


def test_fixed_band_variance_is_unbiased_and_holds_the_truth():
    rng, sims, M, ks = np.random.default_rng(12), 600, 40, (1, 4, 16)
    p_M = rng.beta(0.5, 2.0, M)
    c = np.arange(N + 1)
    pmf_MC = stats.binom.pmf(c, N, p_M[:, None])
    none_CK = np.array([[math.comb(N - x, k) / math.comb(N, k) for k in ks] for x in range(N + 1)])
    true_variance_K = (pmf_MC @ none_CK**2 - (pmf_MC @ none_CK) ** 2).sum(axis=0) / M**2
    truth_K = np.stack([1 - (1 - p_M) ** k for k in ks]).mean(axis=1)
    found = [passk.fixed_band(np.full(M, N), rng.binomial(N, p_M), ks) for _ in range(sims)]
    held_K = np.mean([(band.low_K <= truth_K) & (truth_K <= band.high_K) for band in found], axis=0)
    assert (np.abs(held_K - 0.95) < 0.03).all()
    half_RK = np.stack([(band.high_K - band.low_K) / 2 for band in found]) / stats.t.ppf(0.975, M - 1)
    np.testing.assert_allclose((half_RK**2).mean(axis=0), true_variance_K, rtol=0.03)


@pytest.mark.parametrize("M", [2, 8, pytest.param(96, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rates", ["never", "always", "both", "rarely", "nearly always", "one unsure", "few of many"])
def test_fixed_bands_of_problems_that_agree_have_a_width_that_holds_the_truth(M, rates):
    rng, n, ks = np.random.default_rng(M), 64, (1, 4, 16)
    place_M, rare = np.arange(M), 1.0 / (n * M)
    p_M = {
        "never": np.zeros(M),
        "always": np.ones(M),
        "both": place_M % 2,
        "rarely": np.full(M, 2 * rare),
        "nearly always": np.full(M, 1 - 2 * rare),
        "one unsure": np.where(place_M, place_M % 2, 0.5),
        "few of many": np.where(place_M < 3, 1 / n, 0.0),
    }[rates]
    truth_K = [(1 - (1 - p_M) ** k).mean() for k in ks]
    bands = [passk.fixed_band(np.full(M, n), rng.binomial(n, p_M), ks) for _ in range(200)]
    held_RK = np.array([(b.low_K <= np.add(truth_K, 1e-9)) & (np.subtract(truth_K, 1e-9) <= b.high_K) for b in bands])
    assert (held_RK.mean(axis=0) >= 0.92).all()
    assert all((band.low_K < band.high_K).all() for band in bands)


def test_fixed_band_without_a_right_sample_is_the_rule_of_three():
    """Clopper and Pearson's interval of 0 of 5 x 64, by hand; of k samples 64 / k groups a problem count."""
    band = passk.fixed_band([64] * 5, [0] * 5, [1, 16])
    np.testing.assert_allclose(band.high_K, [1 - 0.025 ** (1 / 320), 1 - 0.025 ** (1 / 20)])
    assert (band.low_K == 0).all()


def test_fixed_band_needs_four_times_k_samples():
    n_M = np.array([64, 40, 64])
    assert passk.fixed_band(n_M, [3, 3, 3], [1, 10]).kind == "fixed problems"
    with pytest.raises(UserError, match=r"needs n >= 4k = 44, but problem 1 .* n = 40"):
        passk.fixed_band(n_M, [3, 3, 3], [1, 11])
    for ks in ([], [0, 2]):
        with pytest.raises(UserError, match="at least 1"):
            passk.fixed_band(n_M, [3, 3, 3], ks)
    with pytest.raises(UserError, match="at least 2"):
        passk.fixed_band([64], [3], [1])


@pytest.mark.parametrize(
    ("first", "second", "settings", "words"),
    [
        (np.zeros((3, 2)), np.zeros((3, 4)), {}, "cut both"),
        (np.zeros((1, 2)), np.zeros((1, 2)), {}, "M >= 2"),
        (np.array([[0.0], [np.nan]]), np.zeros((2, 1)), {}, "problem 1"),
        (np.array([[0.0], [1.5]]), np.zeros((2, 1)), {}, "outside"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {"level": 95}, "level is 95"),
        (np.zeros((3, 2)), np.zeros((3, 2)), {"replicates": 10}, "replicates is 10"),
    ],
)
def test_bad_band_input_is_refused_in_words(first, second, settings, words):
    for compare in (passk.paired_band, passk.crossover):
        with pytest.raises(UserError, match=words):
            compare(first, second, **settings)


def test_clear_crossing_is_resolved_at_the_k_counted_by_hand():
    base_MK, rl_MK = crossing_arms()
    found = passk.crossover(base_MK, rl_MK, names=("base", "GRPO"))
    gap_K = (base_MK - rl_MK).mean(axis=0)
    by_hand = next(k for k in range(1, N + 1) if (gap_K[k - 1 :] >= 0).all())
    assert found.verdict == "resolved" and found.k == by_hand > 1
    assert found.low <= found.k <= found.high and found.probability == 1
    assert "GRPO leads at small k" in found.sentence and f"at k = {found.k} " in found.sentence


def test_crossover_interval_equals_brute_force_over_replicates():
    base_MK, rl_MK = crossing_arms(seed=4)
    found = passk.crossover(base_MK, rl_MK, seed=9)
    gap_BK = bands.bootstrap_weights(9, M, B) @ (base_MK - rl_MK) / M
    crossings = sorted(
        next((k for k in range(1, N + 1) if (gap_K[k - 1 :] >= -1e-12).all()), N + 1) for gap_K in gap_BK
    )
    cut = math.floor(expanded_tail() * (B - 1))
    expected = [None if k > N else k for k in (crossings[cut], crossings[B - 1 - cut])]
    assert [found.low, found.high] == expected
    assert found.probability == pytest.approx(np.mean(np.array(crossings) <= N))
    assert found == passk.crossover(base_MK, rl_MK, seed=9)


def test_few_problems_that_agree_leave_the_crossing_as_open_as_their_paired_band():
    """RL leads and base catches up in 8 problems that are copies of one: the bootstrap alone has k* to the sample."""
    base_MK, rl_MK = curves([4] * 8), np.tile(np.linspace(0.5, 0.8, N), (8, 1))
    found, band = passk.crossover(base_MK, rl_MK), passk.paired_band(base_MK, rl_MK)
    open_K = (band.low_K < 0) & (band.high_K > 0)
    assert open_K.sum() > 10 and found.low < found.k < (found.high or N + 1)
    assert found.low == 1 + np.flatnonzero(band.high_K < 0).max(initial=-1) + 1


def test_crossings_beyond_the_first_block_of_columns_equal_brute_force():
    rng, K = np.random.default_rng(6), 2 * bands.COLUMNS_PER_BLOCK + 7
    rl_MK = np.full((M, K), 0.5)
    base_MK = np.clip(0.5 + np.linspace(-0.2, 0.07, K) + 0.3 * rng.standard_normal((M, 1)), 0, 1)
    found = passk.crossover(base_MK, rl_MK, replicates=200)
    gap_BK = bands.bootstrap_weights(0, M, 200) @ (base_MK - rl_MK) / M
    crossings = sorted(2 + max(np.flatnonzero(gap_K < -1e-12), default=-1) for gap_K in gap_BK)
    cut = math.floor(expanded_tail() * 199)
    assert [found.low or K + 1, found.high or K + 1] == [crossings[cut], crossings[199 - cut]]
    assert crossings[cut] < bands.COLUMNS_PER_BLOCK < crossings[199 - cut]


def test_an_early_touch_that_does_not_last_is_not_the_crossover():
    base_MK = np.tile([0.3, 0.4, 0.5] + [0.9] * (N - 3), (M, 1))
    rl_MK = np.tile([0.2, 0.5, 0.6, 0.7] + [0.8] * (N - 4), (M, 1))
    assert passk.crossover(base_MK, rl_MK).k == 4


def test_a_crossing_at_the_largest_k_counts_as_one():
    base_MK, rl_MK = np.tile([0.3] * (N - 1) + [0.9], (M, 1)), np.full((M, N), 0.5)
    found = passk.crossover(base_MK, rl_MK)
    assert (found.k, found.low, found.high, found.probability, found.verdict) == (N, N, N, 1, "resolved")


def test_rounding_does_not_make_a_leader():
    _, rl_MK = crossing_arms()
    found = passk.crossover(np.clip(rl_MK - 1e-15, 0, 1), rl_MK)
    assert (found.verdict, found.k, found.probability) == ("tie", 1, 1)


def test_rl_ahead_everywhere_means_base_never_overtakes():
    found = passk.crossover(curves([1] * 10 + [0] * 20), curves([32] * 25 + [0] * 5))
    assert (found.verdict, found.k, found.high, found.probability) == ("base never overtakes", None, None, 0)
    assert found.sentence.startswith(f"By k = {N} base has not overtaken RL")


def test_base_ahead_everywhere_is_never_below():
    found = passk.crossover(curves([32] * 25 + [0] * 5), curves([1] * 10 + [0] * 20))
    assert (found.verdict, found.k, found.probability) == ("never below", 1, 1)
    assert "do not cross" in found.sentence


def test_equal_arms_tie_and_curves_that_meet_at_the_end_tie_there():
    base_MK, _ = crossing_arms()
    same = passk.crossover(base_MK, base_MK.copy())
    assert same.verdict == "tie" and "same pass@k at every k" in same.sentence
    meet = passk.crossover(curves([4] * 30), curves([32] * 30))
    assert meet.verdict == "tie" and f"a tie at k = {N}" in meet.sentence


def test_a_crossing_carried_by_one_problem_is_not_resolved():
    found = passk.crossover(curves([4] * M), curves([24] * (M - 1) + [0]))
    assert found.verdict == "not resolved" and 1 < found.k < N
    assert (
        found.sentence.startswith("Where the curves cross is not resolved")
        and f"base leads at k = {N}" in found.sentence
    )


def test_noise_between_equally_able_arms_is_never_called_resolved():
    rng = np.random.default_rng(8)
    for _ in range(10):
        p_M = rng.beta(0.5, 2.0, M)
        found = passk.crossover(curves(rng.binomial(N, p_M)), curves(rng.binomial(N, p_M)))
        assert found.verdict in ("not resolved", "tie", "never below", "base never overtakes")


def test_bands_are_compiled_once_for_a_shape():
    base_MK, rl_MK = crossing_arms()
    passk.population_band(base_MK)
    passk.crossover(base_MK, rl_MK)
    before = bands._bootstrap_draws._cache_size()
    for seed, level in ((1, 0.9), (2, 0.99)):
        passk.population_band(rl_MK, seed=seed, level=level)
        passk.crossover(rl_MK, base_MK, seed=seed, level=level)
    assert bands._bootstrap_draws._cache_size() == before
    assert jax.config.jax_enable_x64 is False


def coverage_rows():
    return json.loads(importlib.resources.files("rlvr_limit.passk").joinpath("coverage.json").read_text())


def test_coverage_was_simulated_in_every_cell_asked_for():
    table = coverage_rows()
    assert table["n"] == 256 and table["simulations"] >= 1000
    for kind in ("population", "paired difference"):
        cells = {(r["M"], r["k"], r["distribution"]) for r in table["rows"] if r["kind"] == kind}
        assert {(M, k) for M, k, _ in cells} == {(M, k) for M in (8, 30, 96, 500) for k in (1, 16, 64, 256)}
        assert len(cells) == 48


@pytest.mark.parametrize("M", [8, 30, 96, 500])
def test_every_coverage_outside_92_to_98_percent_is_told(M):
    missed = [r for r in coverage_rows()["rows"] if r["M"] == M and not 0.92 <= r["coverage"] <= 0.98]
    caveats = passk.coverage_caveats(M, 1024)
    assert len(caveats) == len({(r["kind"], r["k"]) for r in missed})
    text = " ".join(caveats)
    for row in missed:
        assert row["kind"] in text and f"{100 * row['coverage']:.1f} % for {row['distribution']}" in text
        assert f"({4 * row['k'] if row['k'] > 1 else 1} here)" in text


def test_caveats_use_the_nearest_m_and_leave_out_k_below_one():
    assert passk.coverage_caveats(20, 256) == passk.coverage_caveats(30, 256) != []
    assert passk.coverage_caveats(2000, 256) == passk.coverage_caveats(500, 256)
    assert len(passk.coverage_caveats(30, 8)) < len(passk.coverage_caveats(30, 256))
    with pytest.raises(UserError, match="M = 0"):
        passk.coverage_caveats(0, 8)


@pytest.mark.parametrize(("count", "n"), [(0, 40), (1, 40), (7, 40), (40, 40), (273, 500), (1, 1)])
def test_wilsons_interval_is_scipys(count, n):
    exact = stats.binomtest(count, n).proportion_ci(0.95, "wilson")
    assert passk.wilson(count, n) == pytest.approx((exact.low, exact.high), abs=1e-12)
