"""Entropy of the sampling distribution, from the log-probs that were recorded while sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
