"""Entropy of tokens and of answers, and what sharpening would give, from what was recorded while sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlvr_limit.passk.votes import Votes


@dataclass(frozen=True)
class Entropy:
    """Mean entropy of a generated token, its standard error (new samples, the same problems), in nats; of how many.

    The error is None where a problem has one sample only: nothing is known of it then.
    """

    mean: float
    error: float | None
    tokens: int
    samples: int


def token_entropy(problems: Sequence[str], total_S: np.ndarray, length_S: np.ndarray) -> Entropy:
    """Entropy of the distribution tokens are drawn from (after temperature and truncation), averaged over the tokens.

    problems [S] says which problem a sample answers, total_S is the sum of its -log p under that distribution, length_S
    its number of tokens. -log p of a drawn token is an unbiased estimate of the entropy it was drawn at, so the sum
    over all tokens is one of the summed entropies; the mean is a ratio of two sums, its error by the delta method.
    """
    total_S, length_S = np.asarray(total_S, np.float64), np.asarray(length_S, np.float64)
    _, problem_S, count_P = np.unique(np.asarray(problems), return_inverse=True, return_counts=True)
    mean = total_S.sum() / length_S.sum()
    if count_P.min() < 2:
        return Entropy(float(mean), None, int(length_S.sum()), len(total_S))
    residual_S = total_S - mean * length_S
    within_S = residual_S - (np.bincount(problem_S, residual_S) / count_P)[problem_S]
    variance_P = np.bincount(problem_S, within_S**2) / (count_P - 1)
    error = np.sqrt((count_P * variance_P).sum()) / length_S.sum()
    return Entropy(float(mean), float(error), int(length_S.sum()), len(total_S))


@dataclass(frozen=True)
class Sharpened:
    """Success rates under p^alpha, renormalised, and how many samples the estimate of each problem is worth."""

    alpha: float
    rate_M: np.ndarray
    effective_M: np.ndarray


def sharpened(
    problem_S: np.ndarray, correct_S: np.ndarray, model_S: np.ndarray, drawn_S: np.ndarray, alpha: float
) -> Sharpened:
    """What a model would solve if whole answers y were drawn from p(y)^alpha (metrics.md item 24).

    problem_S holds positions 0 to M - 1, each there; model_S is log p of whole answers, drawn_S their log-probability
    under what they were drawn from, which must reach every answer. Weights p^alpha / q, normalised in each problem.
    """
    weight_S = alpha * np.asarray(model_S, np.float64) - np.asarray(drawn_S, np.float64)
    most_M = np.full(problem_S.max() + 1, -np.inf)
    np.maximum.at(most_M, problem_S, weight_S)
    weight_S = np.exp(weight_S - most_M[problem_S])
    total_M, squares_M = (np.bincount(problem_S, x) for x in (weight_S, weight_S**2))
    return Sharpened(alpha, np.bincount(problem_S, weight_S * correct_S) / total_M, total_M**2 / squares_M)


def answer_entropy(votes_M: Sequence[Votes]) -> np.ndarray:
    """[M] entropy of each problem's answers in nats: classes of equal ones, no answer being a class too.

    The plug-in entropy, plus (classes - 1) / 2n for what n samples do not show (Miller 1955; metrics.md item 26).
    """
    found = []
    for votes in votes_M:
        share_C = np.array([size for size in (votes.right, *votes.wrong, votes.silent) if size]) / votes.n
        found.append(-(share_C * np.log(share_C)).sum() + (len(share_C) - 1) / (2 * votes.n))
    return np.array(found)
