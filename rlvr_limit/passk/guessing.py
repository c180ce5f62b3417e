"""How far answers can be guessed without solving the problem; right answers by a wrong chain (metrics.md 6, 7, 21).

Shapes: M problems, R samples; K the largest k of a curve.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from rlvr_limit.passk.curve import checked_counts, pass_curve, pass_curves, refuse_where
from rlvr_limit.types import UserError

RARE_PERCENT = 5
"""Yue et al. 2025, v5: a problem answered without a chain of thought at a rate in (0, 5 %) is guessable (Fig. 13), and
the chains of one that is solved at such a rate are read by a person (app. C.2)."""

SHARES, EM_STEPS = 51, 500
"""Points of [0, 1] on which the distribution of shares of right chains is looked for, and for how many steps."""


def rarely_right(n_M: ArrayLike, c_M: ArrayLike) -> np.ndarray:
    """Whether each problem is answered right at times, but rarely: 0 < c/n < 5 %, in integers; [M] bool.

    Raises UserError on counts that cannot be.
    """
    n_M, c_M = checked_counts(n_M, c_M)
    return (c_M > 0) & (100 * c_M < RARE_PERCENT * n_M)


class RareWins(NamedTuple):
    """Problems that an arm solves rarely, by what a person said of the chains behind their right answers."""

    problems: int
    valid: int  # one chain at least is right
    invalid: int  # every chain is wrong; the rest: not known


def rare_wins(n_M: ArrayLike, c_M: ArrayLike, right_M: ArrayLike, wrong_M: ArrayLike) -> RareWins:
    """Of a problem's c right answers right_M have a chain judged right, wrong_M one judged wrong (metrics.md 21)."""
    rare_M, right_M = rarely_right(n_M, c_M), np.asarray(right_M) > 0
    all_wrong_M = np.asarray(wrong_M) == np.asarray(c_M)
    return RareWins(*(int(np.sum(rare_M & kind_M)) for kind_M in (True, right_M, all_wrong_M)))


def marginal_rates(
    accepted_M: Sequence[Collection[str]], problem_R: Sequence[int], answer_R: Sequence[str]
) -> np.ndarray:
    """The chance of a right answer among the answers to the other problems: [M], the guess rate of an average answer.

    accepted_M: the texts that are right for each problem, in one normal form with the answers; problem_R are places in
    it; samples without an answer are given as "" and count as drawn. 0 where no other problem has samples. Raises
    UserError on a place that is none.
    """
    if len(problem_R) != len(answer_R):
        raise UserError(f"{len(problem_R)} problems and {len(answer_R)} answers: every sample needs one of each")
    if any(not 0 <= problem < len(accepted_M) for problem in problem_R):
        raise UserError(f"a sample belongs to none of the {len(accepted_M)} problems")
    drawn, given = Counter(problem_R), Counter(answer_R)
    own = Counter(zip(problem_R, answer_R, strict=True))
    rates = np.zeros(len(accepted_M))
    for i, accepted in enumerate(accepted_M):
        others = len(problem_R) - drawn[i]
        if others:
            rates[i] = sum(given[text] - own[i, text] for text in {*accepted} - {""}) / others
    return rates


def chain_bounds(
    n_M: ArrayLike, c_M: ArrayLike, right_M: ArrayLike, wrong_M: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """CoT-Pass@k (arXiv 2506.14245) for every k <= min(n), from below and from above: two [K] curves.

    Of a problem's c right answers right_M have a chain judged right and wrong_M one judged wrong; the others are taken
    for wrong in the lower curve and for right in the upper one. Raises UserError where more are judged than are there.
    """
    n_M, c_M = checked_counts(n_M, c_M)
    right_M, wrong_M = np.asarray(right_M, np.int64), np.asarray(wrong_M, np.int64)
    refuse_where(
        (right_M < 0) | (wrong_M < 0) | (right_M + wrong_M > c_M),
        lambda i: f"has {right_M[i]} chains judged right and {wrong_M[i]} wrong, but {c_M[i]} right answers",
    )
    return pass_curve(n_M, right_M), pass_curve(n_M, c_M - wrong_M)


class JudgeCounts(NamedTuple):
    """Chains behind right answers that both a person and a judge model have judged."""

    right_yes: int  # right by the person, and by the judge
    right_no: int
    wrong_yes: int
    wrong_no: int

    @property
    def is_calibrated(self) -> bool:
        """Whether there are chains of both kinds."""
        return self.right_yes + self.right_no > 0 and self.wrong_yes + self.wrong_no > 0

    @property
    def ends(self) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
        """Sensitivity and specificity, each with an exact interval of 97.5 %: both hold with 95 %."""
        return _rate(self.right_yes, self.right_no), _rate(self.wrong_no, self.wrong_yes)

    def in_words(self) -> str:
        """One clause."""
        if not self.is_calibrated:
            return "not calibrated: it takes a right and a wrong chain that a person has judged too"
        said = (f"{100 * x:.0f} % ({100 * low:.0f} to {100 * high:.0f})" for x, low, high in self.ends)
        right, wrong = self.right_yes + self.right_no, self.wrong_yes + self.wrong_no
        return "by a person's judgments it says yes to {} of {} right chains and no to {} of {} wrong ones".format(
            *(x for pair in zip(said, (right, wrong), strict=True) for x in pair)
        )


def _rate(hits: int, misses: int) -> tuple[float, float, float]:
    """A rate with its interval of Clopper and Pearson (1934, Biometrika 26, 404), 1.25 % on either side."""
    low = scipy.special.betaincinv(hits, misses + 1, 0.0125) if hits else 0.0
    high = scipy.special.betaincinv(hits + 1, misses, 0.9875) if misses else 1.0
    return hits / (hits + misses), float(low), float(high)


class JudgedCurves(NamedTuple):
    """CoT-Pass@k where a judge model has judged the chains, [K] curves; None where nobody can tell."""

    judged_K: np.ndarray  # the judge is taken at its word
    corrected_K: np.ndarray | None = None  # for its errors, as a person's judgments show them
    low_K: np.ndarray | None = None
    high_K: np.ndarray | None = None


def judged_curves(n_M: ArrayLike, c_M: ArrayLike, yes_M: ArrayLike, counts: JudgeCounts) -> JudgedCurves:
    """CoT-Pass@k of problems whose right answers a judge has all judged, for every k <= min(n) (metrics.md item 32).

    The bounds are the least and the largest correction over the ends of both of the judge's rates. A judge that says
    yes to wrong chains as often as to right ones tells nothing: no right chain, and all of them.
    """
    n_M, c_M = checked_counts(n_M, c_M)
    yes_M = np.asarray(yes_M, np.int64)
    refuse_where((yes_M < 0) | (yes_M > c_M), lambda i: f"has {yes_M[i]} right chains, but {c_M[i]} right answers")
    judged_K = pass_curve(n_M, yes_M)
    if not counts.is_calibrated:
        return JudgedCurves(judged_K)
    sensitivity, specificity = counts.ends
    (a, *ends_a), (b, *ends_b) = sensitivity, specificity
    rates = [(a, b), *itertools.product(ends_a, ends_b)]
    curves = [_corrected(n_M, c_M, yes_M, *pair) for pair in rates]
    trivial = [] if all(curve is not None for curve in curves) else [np.zeros_like(judged_K), pass_curve(n_M, c_M)]
    known = np.stack([*(curve for curve in curves if curve is not None), *trivial])
    return JudgedCurves(judged_K, curves[0], known.min(axis=0), known.max(axis=0))


def _corrected(
    n_M: np.ndarray, c_M: np.ndarray, yes_M: np.ndarray, sensitivity: float, specificity: float
) -> np.ndarray | None:
    """The expectation of CoT-Pass@k over which chains are right, given the judge's words and its rates: [K]."""
    if sensitivity + specificity <= 1:
        return None
    share_G = np.linspace(0, 1, SHARES)
    says_G = sensitivity * share_G + (1 - specificity) * (1 - share_G)
    with np.errstate(divide="ignore", invalid="ignore"):
        if_yes_G = np.nan_to_num(sensitivity * share_G / says_G)
        if_no_G = np.nan_to_num((1 - sensitivity) * share_G / (1 - says_G))
    no_M = c_M - yes_M
    log_yes_G, log_no_G = (np.log(np.maximum(x_G, 1e-300)) for x_G in (says_G, 1 - says_G))
    log_MG = yes_M[:, None] * log_yes_G + no_M[:, None] * log_no_G
    like_MG = np.exp(log_MG - log_MG.max(axis=1, keepdims=True))
    weight_G = np.full(SHARES, 1 / SHARES)
    for _ in range(EM_STEPS):
        given_MG = like_MG * weight_G / (like_MG @ weight_G)[:, None]
        weight_G = given_MG[c_M > 0].mean(axis=0) if c_M.any() else weight_G
    total_K, tables = np.zeros(int(n_M.min())), {n: pass_curves(np.full(n + 1, n), np.arange(n + 1)) for n in {*n_M}}
    for n, c, yes, no, given_G in zip(n_M, c_M, yes_M, no_M, given_MG, strict=True):
        # Two binomials' sum, through its characteristic function.
        turn = np.exp(-2j * np.pi * np.arange(c + 1) / (c + 1))[:, None] - 1
        some_G = given_G > 1e-12
        turned = (1 + if_yes_G[some_G] * turn) ** yes * (1 + if_no_G[some_G] * turn) ** no
        right_C = np.fft.ifft(turned @ given_G[some_G]).real
        total_K += right_C @ tables[n][: c + 1, : len(total_K)]
    return total_K / len(n_M)
