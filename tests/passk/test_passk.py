"""pass@k and its neighbours against exact rational arithmetic and brute force."""

from fractions import Fraction
from itertools import combinations
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_limit import passk
from rlvr_limit.passk import curve
from rlvr_limit.types import UserError


def exact_pass_at_k(n: int, c: int, k: int) -> Fraction:
    return 1 - Fraction(comb(n - c, k), comb(n, k))


def exact_pass_hat_k(n: int, c: int, k: int) -> Fraction:
    return Fraction(comb(c, k), comb(n, k))


@pytest.mark.parametrize("n", range(1, 25))
def test_curves_equal_rational_arithmetic_for_all_c_and_k(n):
    n_M, c_M = np.full(n + 1, n), np.arange(n + 1)
    for curves, exact in ((passk.pass_curves, exact_pass_at_k), (passk.pass_hat_curves, exact_pass_hat_k)):
        reference_MK = [[float(exact(n, c, k)) for k in range(1, n + 1)] for c in range(n + 1)]
        np.testing.assert_allclose(curves(n_M, c_M), reference_MK, rtol=0, atol=1e-14)


def test_curve_holds_at_ten_thousand_samples():
    n, ks = 10_000, [1, 2, 10, 100, 1000, 5000, 9999, 10_000]
    c_M = np.array([0, 1, 2, 7, 50, 1000, 9999, 10_000])
    curve_MK = passk.pass_curves(np.full(c_M.size, n), c_M)
    reference_MK = [[float(exact_pass_at_k(n, int(c), k)) for k in ks] for c in c_M]
    np.testing.assert_allclose(curve_MK[:, np.array(ks) - 1], reference_MK, rtol=0, atol=1e-10)


@pytest.mark.parametrize("n", range(1, 9))
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(n):
    n_M, c_M = np.full(n + 1, n), np.arange(n + 1)
    any_MK, all_MK = passk.pass_curves(n_M, c_M), passk.pass_hat_curves(n_M, c_M)
    for c in range(n + 1):
        for k in range(1, n + 1):
            drawn = list(combinations([i < c for i in range(n)], k))
            assert any_MK[c, k - 1] == pytest.approx(sum(map(any, drawn)) / len(drawn), abs=1e-14)
            assert all_MK[c, k - 1] == pytest.approx(sum(map(all, drawn)) / len(drawn), abs=1e-14)


def test_ragged_n_keeps_each_problems_own_n_and_stops_at_the_smallest():
    n_M, c_M = [5, 9, 7], [1, 2, 0]
    curve_MK = passk.pass_curves(n_M, c_M)
    reference_MK = [[float(exact_pass_at_k(n, c, k)) for k in range(1, 6)] for n, c in zip(n_M, c_M, strict=True)]
    np.testing.assert_allclose(curve_MK, reference_MK, atol=1e-14)
    np.testing.assert_allclose(passk.pass_curve(n_M, c_M), np.mean(reference_MK, axis=0), atol=1e-14)


def test_k_beyond_n_is_refused_with_the_problem_named():
    assert passk.pass_at_k([8, 5, 9], [1, 1, 1], 5) == pytest.approx(1 - (3 / 8 + 0 + 4 / 9) / 3, abs=1e-14)
    with pytest.raises(UserError, match=r"k = 6, but problem 1 .* n = 5"):
        passk.pass_at_k([8, 5, 9], [1, 1, 1], 6)
    with pytest.raises(UserError, match="k = 0"):
        passk.pass_at_k([8, 5, 9], [1, 1, 1], 0)


@pytest.mark.parametrize(
    ("n_M", "c_M", "words"),
    [
        ([4, 4], [1, 5], "problem 1 .* n = 4 and c = 5"),
        ([4, 4], [-1, 4], "problem 0 .* c = -1"),
        ([4, 0], [1, 0], "problem 1 .* n = 0"),
        ([4.0, 4.0], [1, 2], "float64"),
        ([4, 4], [True, False], "bool"),
        ([4, 4], [1], "shapes"),
        ([], [], "shapes"),
    ],
)
def test_impossible_counts_are_refused(n_M, c_M, words):
    with pytest.raises(UserError, match=words):
        passk.pass_curves(n_M, c_M)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(12, 300), st.floats(0, 1)), min_size=3, max_size=3))
def test_pass_at_k_never_falls_and_pass_hat_k_never_rises(problems):
    n_M = np.array([12] + [n for n, _ in problems])
    c_M = np.array([6] + [round(n * share) for n, share in problems])
    up_MK, down_MK = passk.pass_curves(n_M, c_M), passk.pass_hat_curves(n_M, c_M)
    assert (np.diff(up_MK, axis=1) >= -1e-15).all() and (np.diff(down_MK, axis=1) <= 1e-15).all()
    assert not np.signbit(down_MK).any()  # no -0.0 to print on a page
    assert up_MK.min() >= 0 and up_MK.max() <= 1 and down_MK.min() >= 0 and down_MK.max() <= 1
    np.testing.assert_allclose(up_MK[:, 0], c_M / n_M, atol=1e-14)
    np.testing.assert_allclose(down_MK[:, 0], c_M / n_M, atol=1e-14)
    assert passk.avg_at_n(n_M, c_M) == pytest.approx(np.mean(c_M / n_M), abs=1e-14)


def test_curve_is_compiled_once_for_a_shape():
    passk.pass_curves(np.full(37, 41), np.arange(37))
    before = curve._ratio_products._cache_size()
    passk.pass_curves(np.full(37, 41), np.arange(37)[::-1].copy())
    passk.pass_hat_curves(np.arange(41, 78), np.arange(37))
    for k in (1, 7, 41):
        passk.pass_at_k(np.full(37, 41), np.arange(37), k)
    assert curve._ratio_products._cache_size() == before


@pytest.mark.parametrize("flag", [False, True])
def test_float64_inside_and_the_x64_flag_left_as_found(flag):
    with jax.enable_x64(flag):
        curve_MK = passk.pass_curves([1000], [3])
        assert curve_MK.dtype == np.float64
        assert curve_MK[0, 499] == pytest.approx(float(exact_pass_at_k(1000, 3, 500)), abs=1e-13)
        assert jax.config.jax_enable_x64 is flag
        assert jnp.ones(1).dtype == (jnp.float64 if flag else jnp.float32)


def test_posterior_is_the_beta_integral():
    def exact(n, c, k, a, b):
        ratio = Fraction(1)
        for j in range(k):
            ratio *= Fraction(n - c + b + j, n + a + b + j)
        return float(1 - ratio)

    n_M, c_M = [6, 6, 9], [0, 6, 4]
    for a, b in ((1, 1), (2, 5)):
        reference_MK = [[exact(n, c, k, a, b) for k in range(1, 13)] for n, c in zip(n_M, c_M, strict=True)]
        np.testing.assert_allclose(passk.posterior_curves(n_M, c_M, 12, a, b), reference_MK, atol=1e-14)
    # By quadrature of 1 - (1-p)^k against the Beta(c+1, n-c+1) density: independent of the product formula.
    p = (np.arange(200_000) + 0.5) / 200_000
    weight = p**4 * (1 - p) ** 5
    assert passk.posterior_curves([9], [4], 7)[0, 6] == pytest.approx(
        ((1 - (1 - p) ** 7) * weight).sum() / weight.sum(), abs=1e-9
    )
    for bad in ((12, 0.0, 1.0), (12, 1.0, -1.0), (12, float("nan"), 1.0), (0, 1.0, 1.0)):
        with pytest.raises(UserError):
            passk.posterior_curves(n_M, c_M, *bad)


def test_delta_se_is_base_at_k_minus_rl_at_one():
    n_M = [300, 400]
    expected = np.mean([float(exact_pass_at_k(n, c, 256)) for n, c in zip(n_M, [1, 0], strict=True)]) - (0.5 + 0.25) / 2
    assert passk.delta_se(n_M, [1, 0], [2, 4], [1, 1]) == pytest.approx(expected, abs=1e-14)
    with pytest.raises(UserError, match="pass@256"):
        passk.delta_se([255, 300], [1, 1], [2, 2], [1, 1])


def test_guess_baseline_matches_its_known_value_and_corrects_the_curve():
    guess_K = passk.guess_curve(np.full(30, 1 / 1000), 1024)
    assert guess_K[1023] == pytest.approx(0.641, abs=5e-4)
    np.testing.assert_allclose(passk.guess_curve([0.0, 1.0], 3), 0.5)
    np.testing.assert_allclose(passk.guess_corrected(guess_K, guess_K), 0)
    np.testing.assert_allclose(passk.guess_corrected(np.ones(3), np.array([0, 0.5, 0.9])), 1)
    assert passk.guess_corrected([0.55], [0.1])[0] == pytest.approx(0.5)
    assert np.isnan(passk.guess_corrected([1.0], [1.0])[0])
    for bad in ([0.2, 1.5], [0.2, float("nan")]):
        with pytest.raises(UserError, match="problem 1 .* guess rate"):
            passk.guess_curve(bad, 4)
    with pytest.raises(UserError, match="shapes"):
        passk.guess_corrected([0.1, 0.2], [0.1])


def test_support_sorts_problems_and_gives_the_four_ratios():
    found = passk.support([8] * 6, [1, 8, 3, 0, 0, 2], [8] * 6, [5, 1, 0, 2, 0, 0])
    assert (found.both, found.base_only, found.rl_only, found.neither) == ((0, 1), (2, 5), (3,), (4,))
    srr, ndr = 2 / 4, 1 / 3
    assert (found.srr, found.ndr) == pytest.approx((srr, ndr))
    assert found.sds == pytest.approx(2 * srr * ndr / (srr + ndr))
    assert found.nscr == pytest.approx((1 - 2) / 5)


def test_support_calls_zero_over_zero_undefined():
    nothing = passk.support([4], [0], [4], [0])
    assert (nothing.srr, nothing.ndr, nothing.sds, nothing.nscr) == (None, None, None, None)
    lost = passk.support([4], [1], [4], [0])
    assert (lost.srr, lost.ndr, lost.sds, lost.nscr) == (0, None, None, -1)
    kept = passk.support([4], [1], [4], [1])
    assert (kept.srr, kept.ndr, kept.sds, kept.nscr) == (1, 0, 0, 0)


def test_support_refuses_arms_that_cannot_be_compared():
    with pytest.raises(UserError, match="problem 1 .* n = 4 in base and n = 5 in RL"):
        passk.support([4, 4], [1, 1], [4, 5], [1, 1])
    with pytest.raises(UserError, match="2 problems and RL has 1"):
        passk.support([4, 4], [1, 1], [4], [1])


def test_unsolved_bound_is_the_rate_that_leaves_five_percent():
    for n in (1, 16, 1024):
        assert (1 - passk.unsolved_bound(n)) ** n == pytest.approx(0.05)
    assert passk.unsolved_bound(1024) == pytest.approx(3 / 1024, rel=0.01)
    for n, level in ((0, 0.95), (4, 1.0)):
        with pytest.raises(UserError):
            passk.unsolved_bound(n, level)
