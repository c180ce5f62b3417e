"""Metrics that stand beside pass@k, each as a small table with one line that says what it is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from rlvr_limit import passk
from rlvr_limit.report.analysis import Findings, fewest_samples, powers_of_four
from rlvr_limit.report.results import ArmResults, Results
from rlvr_limit.report.text import DASH, ResultTable, by_arm, join, percent, percent_and_band

RELIABLE = (0.25, 0.5, 0.75, 1.0)
"""Shares of k samples for G-Pass@k."""
THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Success rates for Cover@tau."""
BEYOND = (1, 2, 4, 16)
"""Multiples of n for the extrapolation."""


def further_tables(results: Results, findings: Findings) -> list[ResultTable]:
    """Every table that the data allow; all but the last two need nothing but counts, of the first stage."""
    tables = (
        _on_base_tests(results),
        _of_samples(results, findings),
        _of_rates(results),
        _majority(results),
    )
    return [*itertools.chain(*tables), *_budget(results)]


def _mean_at(curves_MK: np.ndarray, ks: Sequence[int]) -> list[str]:
    mean_K = curves_MK.mean(axis=0)
    return [percent(mean_K[k - 1]) for k in ks]


def _on_base_tests(results: Results) -> Iterator[ResultTable]:
    """What HumanEval and MBPP say of samples of HumanEval+ and MBPP+."""
    arms = [arm for arm in results.arms if arm.base_tests_M is not None]
    ks = powers_of_four(fewest_samples(results.arms))
    if arms:
        yield by_arm(
            "On the base tests alone",
            "pass@k on HumanEval or MBPP: the same samples, judged without the tests that EvalPlus adds.",
            [f"pass@{k}" for k in ks],
            arms,
            lambda arm: _mean_at(passk.pass_curves(arm.n_M, arm.base_tests_M), ks),
        )


def _of_samples(results: Results, findings: Findings) -> Iterator[ResultTable]:
    """One number an arm, and how reliably an arm is right."""
    n = fewest_samples(results.arms)
    ks = powers_of_four(n)

    def single(arm: ArmResults) -> Iterator[str]:
        mean, deviation = passk.bayes_at_n(arm.n_M, arm.c_M)
        yield percent(passk.avg_at_n(arm.n_M, arm.c_M))
        yield f"{100 * mean:.1f} \u00b1 {100 * deviation:.1f} %"
        if n > 1:
            yield f"{passk.auc_log_k(findings.curves[arm.name].mean_K[:n]):.4f}"

    yield by_arm(
        "One number an arm",
        "avg@n: mean share of right samples, which is pass@1. Bayes@N: the same under uniform priors, with its "
        "posterior deviation for these very problems. Area: the mean of pass@k over log k, octaves counted alike.",
        ["avg@n", "Bayes@N, mean \u00b1 deviation", *([f"area over log k, k to {n}"] if n > 1 else [])],
        results.arms,
        single,
    )
    yield by_arm(
        "pass^k",
        "The chance that all of k samples of a problem are right: C(c, k) / C(n, k), mean over problems.",
        [f"pass^{k}" for k in ks],
        results.arms,
        lambda arm: _mean_at(passk.pass_hat_curves(arm.n_M, arm.c_M), ks),
    )
    k = min(16, 1 << (n.bit_length() - 1))
    if k < 4:
        return
    enough = [round(tau * k) for tau in RELIABLE]

    def reliable(arm: ArmResults) -> Iterator[str]:
        yield from (percent(passk.g_pass_at_k(arm.n_M, arm.c_M, k, right)) for right in enough)
        yield percent(passk.mg_pass_at_k(arm.n_M, arm.c_M, k))

    yield by_arm(
        f"G-Pass@{k}",
        f"The chance that at least so many of {k} samples of a problem are right, mean over problems; mG-Pass@{k}: "
        f"twice the mean over shares above one half.",
        [*(f"{right} of {k}" for right in enough), f"mG-Pass@{k}"],
        results.arms,
        reliable,
    )


def _of_rates(results: Results) -> Iterator[ResultTable]:
    """What stands behind the success rates of these problems, and what would come beyond n."""
    n = fewest_samples(results.arms)
    ks, beyond = powers_of_four(n), n * np.array(BEYOND)

    def cover(arm: ArmResults) -> Iterator[str]:
        plain = passk.cover_at_tau(arm.n_M, arm.c_M, THRESHOLDS)
        posterior = passk.posterior_cover(arm.n_M, arm.c_M, THRESHOLDS)
        return (f"{percent(a)}\n{percent(b)}" for a, b in zip(plain, posterior, strict=True))

    yield by_arm(
        "Cover@\u03c4",
        "Share of problems that are solved by at least a share \u03c4 of samples; below it the same as expected under "
        "uniform priors, which allows for the noise of c/n.",
        [f"\u03c4 = {tau:g}" for tau in THRESHOLDS],
        results.arms,
        cover,
    )
    yield by_arm(
        "Posterior pass@k",
        "Mean of 1 \u2212 (1 \u2212 p)^k where every p has the prior Beta(1, 1): even at k = n a problem without "
        "a right answer counts for more than 0, and one with a right answer for less than 1.",
        [f"k = {k}" for k in ks],
        results.arms,
        lambda arm: _mean_at(passk.posterior_curves(arm.n_M, arm.c_M, n), ks),
    )
    small = [k for k in ks if 4 * k <= n]

    def fixed(arm: ArmResults) -> list[str]:
        band = passk.fixed_band(arm.n_M, arm.c_M, small)
        return [percent_and_band(band, i) for i in range(1, len(small) + 1)]

    if small:
        yield by_arm(
            "Bands for these very problems",
            "95 % band over new samples of the same problems, where the bands elsewhere are over other problems; at "
            "larger k it needs n >= 4k.",
            [f"pass@{k}" for k in small],
            results.arms,
            fixed,
        )

    def fitted(arm: ArmResults) -> list[str]:
        if not 0 < arm.c_M.sum() < arm.n_M.sum():
            alike = "all right" if arm.c_M.any() else "none right"
            return [f"{alike}: no law fits", *[DASH] * len(beyond)]
        fit = passk.fit_beta_binomial(arm.n_M, arm.c_M)
        edge = " (at the edge)" if fit.at_edge else ""
        return [f"{fit.a:.3g}, {fit.b:.3g}{edge}", *map(percent, fit.pass_at_k(beyond))]

    yield by_arm(
        "Beyond n, by a model",
        "Not measured: success rates are taken to be Beta(a, b), fitted to the counts by maximum likelihood. At k = n "
        "it can be held against the measured value; beyond, nothing here can check it.",
        ["a, b", *(f"k = {k:,}" for k in beyond)],
        results.arms,
        fitted,
    )


def _majority(results: Results) -> Iterator[ResultTable]:
    """maj@k and distinct answers, of arms whose answers are on record as texts."""
    arms = [arm for arm in results.arms if arm.votes_M]
    if not arms:
        return
    ks = powers_of_four(fewest_samples(arms))

    def cells(arm: ArmResults) -> Iterator[str]:
        yield from map(percent, passk.maj_at_k(arm.votes_M, ks).mean(axis=0))
        yield f"{np.mean([votes.distinct for votes in arm.votes_M]):.1f}"

    yield by_arm(
        "maj@k",
        "The answer that most of k samples give is right; ties share the point, no answer does not vote. Mean over "
        "1,000 random choices of k samples. Last: distinct answers a problem, which depends on n.",
        [*(f"maj@{k}" for k in ks), "distinct answers"],
        arms,
        cells,
    )


def _budget(results: Results) -> Iterator[ResultTable]:
    """Problems solved at equal numbers of generated tokens: those that the base takes for the k of interest."""
    arms = [arm for arm in results.arms if arm.spent_M is not None]
    base = results.arm(results.base)
    if base.spent_M is None or len(arms) < 2:
        return
    ks = powers_of_four(fewest_samples([base]))
    curves = {arm.name: passk.budget_curve(arm.n_M, arm.c_M, arm.spent_M) for arm in arms}
    budgets = [float(curves[base.name].tokens_K[k - 1]) for k in ks]

    def cells(arm: ArmResults) -> Iterator[str]:
        tokens_K, solved_K = curves[arm.name].tokens_K, curves[arm.name].solved_K
        yield f"{tokens_K[0] / len(arm.n_M):.1f}"
        for solved in np.interp(budgets, tokens_K, solved_K, left=np.nan, right=np.nan):
            yield DASH if np.isnan(solved) else f"{solved:.1f}"

    yield by_arm(
        "Problems solved for equal numbers of tokens",
        f"Expected problems solved, of {len(results.problems)}, when all samples together take so many tokens: those "
        f"of {base.label} at k = {join(ks)}. A dash: outside what was sampled.",
        ["tokens an answer", *(f"{tokens:,.0f} tokens" for tokens in budgets)],
        arms,
        cells,
    )
