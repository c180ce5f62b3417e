"""What several runs say of their algorithm, against loops, closed forms and simulated effects."""

import math

import numpy as np
import pytest
from scipy import stats

from rlvr_limit import passk
from rlvr_limit.passk import runs
from rlvr_limit.types import UserError

LAW = ("base", "GRPO", "GRPO, seed 0")


def values(seed: int, S: int = 4, M: int = 12, K: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).random((S, M, K))


def effects(rng: np.random.Generator, S: int, M: int, K: int, *deviations: float) -> np.ndarray:
    """A run's, a problem's and their common effect, normal and independent: [S, M, K]."""
    shapes = ((S, 1, K), (1, M, K), (S, M, K))
    return sum(x * rng.normal(size=shape) for x, shape in zip(deviations, shapes, strict=True))


def test_variances_and_what_follows_are_those_of_plain_loops() -> None:
    value_SMK = values(0)
    S, M, K = value_SMK.shape
    found = passk.run_spread(value_SMK)
    for k in range(K):
        x = value_SMK[:, :, k].tolist()
        mean = sum(sum(row) for row in x) / (S * M)
        run = [sum(row) / M for row in x]
        problem = [sum(x[s][m] for s in range(S)) / S for m in range(M)]
        by_run = sum((r - mean) ** 2 for r in run) / (S - 1)
        by_problem = sum((p - mean) ** 2 for p in problem) / (M - 1)
        rest = sum((x[s][m] - run[s] - problem[m] + mean) ** 2 for s in range(S) for m in range(M))
        rest /= (S - 1) * (M - 1)
        assert (found.runs_K[k], found.problems_K[k], found.rest_K[k]) == pytest.approx((by_run, by_problem, rest))
        squares = by_run / S * stats.t.ppf(0.95, S - 1) ** 2 + by_problem / M * stats.t.ppf(0.95, M - 1) ** 2
        assert found.half(0.9)[k] == pytest.approx(math.sqrt(squares))
        assert found.between_K[k] == pytest.approx(max(by_run - rest / M, 0))


@pytest.mark.parametrize(("S", "deviations"), [(3, (0.5, 0.2, 0.3)), (3, (0.1, 1.0, 0.3)), (5, (0.3, 1.0, 0.5))])
def test_of_normal_effects_the_interval_holds_the_mean_as_often_as_it_says(S: int, deviations: tuple) -> None:
    value_SMK = effects(np.random.default_rng(S), S, 24, 4000, *deviations)
    found = passk.run_spread(value_SMK)
    held = np.mean(np.abs(value_SMK.mean(axis=(0, 1))) <= found.half(0.95))
    # Three standard errors of 4,000 trials below; what both variances contain widens it.
    assert 0.94 < held < 0.98
    assert found.between_K.mean() == pytest.approx(deviations[0] ** 2, rel=0.2, abs=0.01)


def test_runs_that_are_one_run_say_what_one_run_says() -> None:
    base_MK, run_MK = values(1)[:2]
    copies_SMK = np.stack([run_MK] * 3)
    found, one = passk.algorithm_band(copies_SMK), passk.population_band(run_MK)
    assert np.allclose([found.mean_K, found.low_K, found.high_K], [one.mean_K, one.low_K, one.high_K], atol=1e-12)
    gap, paired = passk.algorithm_paired_band(base_MK, copies_SMK), passk.paired_band(base_MK, run_MK)
    half_K = stats.t.ppf(0.975, 11) * (base_MK - run_MK).std(axis=0, ddof=1) / math.sqrt(12)
    assert np.allclose(gap.high_K, np.maximum(paired.high_K, gap.mean_K + half_K))
    assert not passk.algorithm(base_MK, copies_SMK, LAW).deviation_K.any()


def test_bands_over_runs_hold_those_over_problems_and_stay_in_range() -> None:
    apart_SMK = np.clip(values(2) + np.array([-0.9, 0.0, 0.0, 0.9])[:, None, None], 0, 1)
    base_MK = values(3)[0]
    for found, inner, least in (
        (passk.algorithm_band(apart_SMK), passk.population_band(apart_SMK.mean(axis=0)), 0),
        (passk.algorithm_paired_band(base_MK, apart_SMK), passk.paired_band(base_MK, apart_SMK.mean(axis=0)), -1),
    ):
        assert (found.low_K < inner.low_K).all() and (found.high_K > inner.high_K).all()
        assert (found.low_K >= least).all() and (found.high_K <= 1).all()


def test_as_many_runs_would_resolve_as_a_plain_search_says() -> None:
    base_M, run_SM = np.full(40, 0.5), 0.47 + effects(np.random.default_rng(5), 4, 40, 1, 0.05, 0.02, 0.1)[:, :, 0]
    found = passk.run_spread((base_M - run_SM)[:, :, None])
    between, rest, M = found.between_K[0], found.rest_K[0], 40
    beta = max(found.problems_K[0] - rest / 4, 0)

    def is_enough(S: int) -> bool:
        a, b = (between + rest / M) / S, (beta + rest / S) / M
        half = math.sqrt(stats.t.ppf(0.975, S - 1) ** 2 * a + stats.t.ppf(0.975, M - 1) ** 2 * b)
        return abs((base_M - run_SM).mean()) >= half + stats.norm.ppf(0.8) * math.sqrt(a + b)

    first = next(S for S in range(2, 1000) if is_enough(S))
    assert passk.runs_to_resolve(base_M, run_SM) == first > 4


def test_no_number_of_runs_makes_up_for_problems() -> None:
    rng = np.random.default_rng(6)
    base_M, problem_M = rng.random(20), rng.random(20)
    run_SM = np.clip(problem_M + effects(rng, 4, 20, 1, 0.0, 0.0, 0.01)[:, :, 0], 0, 1)
    assert passk.runs_to_resolve(base_M, run_SM) is None
    assert passk.runs_to_resolve(np.full(20, 0.5), np.full((3, 20), 0.5)) is None
    found = passk.algorithm(base_M[:, None], run_SM[:, :, None], LAW)
    assert found.needed == {1: None} and "more runs alone would not show a sign on 20 problems" in found.sentence


def test_the_claim_about_a_run_is_told_apart_from_that_about_the_algorithm() -> None:
    base_MK = np.full((30, 2), 0.5) + np.random.default_rng(7).uniform(-0.05, 0.05, (30, 2))
    run_SMK = base_MK + np.array([0.3, 0.02, -0.1, 0.16])[:, None, None]
    found = passk.algorithm(base_MK, run_SMK, LAW)
    assert "base minus GRPO, seed 0 is \u221230.0 points" in found.this_run and "ahead is resolved" in found.this_run
    assert "base minus GRPO is \u22129.5 points" in found.sentence
    assert f"at k = 1 about {found.needed[1]} runs (now 4)" in found.sentence
    assert found.deviation_K == pytest.approx(np.std([0.3, 0.02, -0.1, 0.16], ddof=1))
    alike = passk.algorithm(base_MK, base_MK + np.array([0.3, 0.31, 0.29])[:, None, None], LAW)
    assert "ahead is resolved" in alike.sentence and alike.needed == {}


def test_one_run_is_no_algorithm() -> None:
    with pytest.raises(UserError, match="S >= 2 runs"):
        passk.algorithm_band(values(0)[:1])
    with pytest.raises(UserError, match="problem 0 .* of the curve of run 1 has a value outside"):
        runs.algorithm_band(np.stack([np.zeros((3, 1)), np.full((3, 1), 2.0)]))


@pytest.mark.slow
def test_simulated_coverage_is_near_what_the_bands_say() -> None:
    from tests.benchmarks import runs_coverage

    found = runs_coverage.shares(runs_coverage.LAWS[0], 0.3, 5, 32, np.random.default_rng(8))
    for kind in ("curve", "difference"):
        assert all(0.92 < held <= 1 for held, _ in found[kind])
    assert min(held for held, _ in found["difference, one run"]) < 0.9
