"""Metrics that stand beside pass@k, each as a small table with one line that says what it is.

Shape suffix: K runs over the k of a table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlvr_limit import passk
from rlvr_limit.report.analysis import Findings, powers_of_four
from rlvr_limit.report.results import ArmResults, Results
from rlvr_limit.report.words import join, percent

RELIABLE = (0.25, 0.5, 0.75, 1.0)
"""Shares of k samples for G-Pass@k."""
THRESHOLDS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Success rates for Cover@tau."""
BEYOND = (1, 2, 4, 16)
"""Multiples of n for the extrapolation."""


@dataclass(frozen=True)
class Extra:
    """One table: its title, what it shows, and its head and rows, the arm first."""

    title: str
    meaning: str
    head: list[str]
    rows: list[list[str]]


def extras(results: Results, found: Findings) -> list[Extra]:
    """Every table that the data allow; all but the last two need nothing but counts, of the first stage."""
    made = [_single(results, found), _all_right(results), _reliable(results), _cover(results), _posterior(results),
            _fixed(results), _beyond(results), _majority(results), _budget(results)]  # fmt: skip
    return [extra for extra in made if extra is not None]


def _ks(*arms: ArmResults) -> list[int]:
    """The k of interest that the first stage of all these arms has."""
    return powers_of_four(min(int(arm.n_M.min()) for arm in arms))


def _single(results: Results, found: Findings) -> Extra:
    """avg@n, Bayes@N and the area under the curve."""
    K = _ks(*results.arms)[-1]
    head = ["arm", "avg@n", "Bayes@N, mean \u00b1 deviation", *([f"area over log k, k to {K}"] if K > 1 else [])]
    rows = []
    for arm in results.arms:
        mean, deviation = passk.bayes_at_n(arm.n_M, arm.c_M)
        area = [f"{passk.auc_log_k(found.curves[arm.name].mean_K[:K]):.4f}"] if K > 1 else []
        average = percent(passk.avg_at_n(arm.n_M, arm.c_M))
        rows.append([arm.label, average, f"{100 * mean:.1f} \u00b1 {100 * deviation:.1f} %", *area])
    return Extra(
        "One number an arm",
        "avg@n: mean share of right samples, which is pass@1. Bayes@N: the same under uniform priors, with its "
        "posterior deviation for these very problems. Area: the mean of pass@k over log k, octaves counted alike.",
        head,
        rows,
    )


def _all_right(results: Results) -> Extra:
    ks = _ks(*results.arms)
    curves = {arm.name: passk.pass_hat_curves(arm.n_M, arm.c_M).mean(axis=0) for arm in results.arms}
    rows = [[arm.label, *(percent(curves[arm.name][k - 1]) for k in ks)] for arm in results.arms]
    return Extra(
        "pass^k", "The chance that all of k samples of a problem are right: C(c, k) / C(n, k), mean over problems.",
        ["arm", *(f"pass^{k}" for k in ks)], rows)  # fmt: skip


def _reliable(results: Results) -> Extra | None:
    """G-Pass@k at the largest power of two up to 16 that every problem allows."""
    n = min(int(arm.n_M.min()) for arm in results.arms)
    k = min(16, 1 << (n.bit_length() - 1))
    if k < 4:
        return None
    rows = []
    for arm in results.arms:
        values = [passk.g_pass_at_k(arm.n_M, arm.c_M, k, round(tau * k)) for tau in RELIABLE]
        rows.append([arm.label, *map(percent, values), percent(passk.mg_pass_at_k(arm.n_M, arm.c_M, k))])
    head = ["arm", *(f"{round(tau * k)} of {k}" for tau in RELIABLE), f"mG-Pass@{k}"]
    return Extra(
        f"G-Pass@{k}",
        f"The chance that at least so many of {k} samples of a problem are right, mean over problems; mG-Pass@{k}: "
        f"twice the mean over shares above one half.",
        head,
        rows,
    )


def _cover(results: Results) -> Extra:
    rows = []
    for arm in results.arms:
        plain, posterior = (of(arm.n_M, arm.c_M, THRESHOLDS) for of in (passk.cover_at_tau, passk.posterior_cover))
        cells = [f"{percent(a)}\n{percent(b)}" for a, b in zip(plain, posterior, strict=True)]
        rows.append([arm.label, *cells])
    return Extra(
        "Cover@\u03c4",
        "Share of problems that are solved by at least a share \u03c4 of samples; below it the same as expected under "
        "uniform priors, which allows for the noise of c/n.",
        ["arm", *(f"\u03c4 = {tau:g}" for tau in THRESHOLDS)],
        rows,
    )


def _posterior(results: Results) -> Extra:
    ks = _ks(*results.arms)
    curves = {arm.name: passk.posterior_curves(arm.n_M, arm.c_M, ks[-1]).mean(axis=0) for arm in results.arms}
    rows = [[arm.label, *(percent(curves[arm.name][k - 1]) for k in ks)] for arm in results.arms]
    return Extra(
        "Posterior pass@k",
        "Mean of 1 \u2212 (1 \u2212 p)^k where every p has the prior Beta(1, 1): even at k = n a problem without "
        "a right answer counts for more than 0, and one with a right answer for less than 1.",
        ["arm", *(f"k = {k}" for k in ks)],
        rows,
    )


def _fixed(results: Results) -> Extra | None:
    """The band over new samples of these problems, for k <= n/4."""
    n = min(int(arm.n_M.min()) for arm in results.arms)
    ks = [k for k in _ks(*results.arms) if 4 * k <= n]
    if not ks:
        return None
    rows = []
    for arm in results.arms:
        band = passk.fixed_band(arm.n_M, arm.c_M, ks)
        cells = [f"{percent(mean)}\n{100 * low:.1f}\u2013{100 * high:.1f}"
                 for mean, low, high in zip(band.mean_K, band.low_K, band.high_K, strict=True)]  # fmt: skip
        rows.append([arm.label, *cells])
    return Extra(
        "Bands for these very problems",
        "95 % band over new samples of the same problems, where the bands elsewhere are over other problems; at "
        "larger k it needs n >= 4k.",
        ["arm", *(f"pass@{k}" for k in ks)],
        rows,
    )


def _beyond(results: Results) -> Extra:
    n = min(int(arm.n_M.min()) for arm in results.arms)
    rows = []
    for arm in results.arms:
        if not 0 < arm.c_M.sum() < arm.n_M.sum():
            alike = "none right" if not arm.c_M.any() else "all right"
            rows.append([arm.label, f"{alike}: no law fits", *("\u2013" for _ in BEYOND)])
            continue
        fit = passk.fit_beta_binomial(arm.n_M, arm.c_M)
        cells = [percent(value) for value in fit.pass_at_k(n * np.array(BEYOND))]
        rows.append([arm.label, f"{fit.a:.3g}, {fit.b:.3g}" + (" (at the edge)" if fit.at_edge else ""), *cells])
    return Extra(
        "Beyond n, by a model",
        "Not measured: success rates are taken to be Beta(a, b), fitted to the counts by maximum likelihood. At k = n "
        "it can be held against the measured value; beyond, nothing here can check it.",
        ["arm", "a, b", *(f"k = {n * times:,}" for times in BEYOND)],
        rows,
    )


def _majority(results: Results) -> Extra | None:
    """maj@k and distinct answers, of arms whose answers are on record as texts."""
    arms = [arm for arm in results.arms if arm.votes_M]
    if not arms:
        return None
    ks = _ks(*arms)
    rows = []
    for arm in arms:
        cells = [percent(value) for value in passk.maj_at_k(arm.votes_M, ks).mean(axis=0)]
        distinct = np.mean([votes.distinct for votes in arm.votes_M])
        rows.append([arm.label, *cells, f"{distinct:.1f}"])
    return Extra(
        "maj@k",
        "The answer that most of k samples give is right; ties share the point, no answer does not vote. Mean over "
        "1,000 random choices of k samples. Last: distinct answers a problem, which depends on n.",
        ["arm", *(f"maj@{k}" for k in ks), "distinct answers"],
        rows,
    )


def _budget(results: Results) -> Extra | None:
    """Problems solved at equal numbers of generated tokens: those that the base takes for the k of interest."""
    arms = [arm for arm in results.arms if arm.tokens_M is not None]
    base = results.arm(results.base)
    if base.tokens_M is None or len(arms) < 2:
        return None
    curves = {arm.name: passk.budget_curve(arm.n_M, arm.c_M, arm.tokens_M) for arm in arms}
    budgets = [float(curves[base.name].tokens_K[k - 1]) for k in _ks(base)]
    rows = []
    for arm in arms:
        tokens, solved = curves[arm.name].tokens_K, curves[arm.name].solved_K
        values_B = np.interp(budgets, tokens, solved, left=np.nan, right=np.nan)
        cells = ["\u2013" if np.isnan(value) else f"{value:.1f}" for value in values_B]
        rows.append([arm.label, f"{tokens[0] / len(arm.n_M):.1f}", *cells])
    return Extra(
        "Problems solved for equal numbers of tokens",
        f"Expected problems solved, of {len(results.problems)}, when all samples together take so many tokens: those "
        f"of {base.label} at k = {join(_ks(base))}. A dash: outside what was sampled.",
        ["arm", "tokens an answer", *(f"{x:,.0f} tokens" for x in budgets)],
        rows,
    )
