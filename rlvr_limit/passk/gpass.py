"""How often k samples hold at least j right ones: G-Pass@k and its mean over high thresholds (METRICS item 3).

Shapes: M problems; J runs over j = 0..k. Plain NumPy in float64: one pass over [M, J], nothing worth compiling.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from rlvr_limit.passk.curve import checked_counts, refuse_k_beyond_n
from rlvr_limit.types import UserError


def at_least(n_M: ArrayLike, c_M: ArrayLike, k: int) -> np.ndarray:
    """P(j or more of k samples are right) for j = 0..k: [M, J], the upper tail of the hypergeometric law.

    sum_{i >= j} C(c, i) C(n-c, k-i) / C(n, k). Raises UserError where k > n, naming the problem.
    """
    n_M, c_M = checked_counts(n_M, c_M)
    refuse_k_beyond_n(n_M, k, f"G-Pass@{k}")
    n_M1, c_M1, j_J = n_M[:, None], c_M[:, None], np.arange(k + 1)
    least_M1, most_M1 = np.maximum(0, k - (n_M1 - c_M1)), np.minimum(c_M1, k)
    # P(j+1) / P(j) is a ratio of integers; adding its logarithms up from the least j avoids every factorial.
    inside_MJ = (j_J >= least_M1) & (j_J < most_M1)
    top_MJ = np.where(inside_MJ, (c_M1 - j_J) * (k - j_J), 1)
    bottom_MJ = np.where(inside_MJ, (j_J + 1) * (n_M1 - c_M1 - k + j_J + 1), 1)
    log_MJ = np.cumsum(np.log(top_MJ / bottom_MJ), axis=1)
    log_MJ = np.concatenate([np.zeros((len(n_M), 1)), log_MJ[:, :-1]], axis=1)
    possible_MJ = (j_J >= least_M1) & (j_J <= most_M1)
    weight_MJ = np.exp(np.where(possible_MJ, log_MJ - log_MJ.max(axis=1, keepdims=True), -np.inf))
    tail_MJ = np.cumsum(weight_MJ[:, ::-1], axis=1)[:, ::-1]
    return tail_MJ / tail_MJ[:, :1]


def g_pass_at_k(n_M: ArrayLike, c_M: ArrayLike, k: int, right: int) -> float:
    """G-Pass@k_tau (Liu et al. 2024, arXiv 2412.13147): the mean chance that `right` or more of k are right.

    right = max(1, ceil(tau k)) is given as an integer: the product of two floats may lie above the integer it should
    be, as 0.28 x 25 does. right = 1 is pass@k and right = k is pass^k. Raises UserError where k > n, or right is not
    within 1..k.
    """
    if not 1 <= right <= k:
        raise UserError(f"G-Pass@{k} was asked for at least {right} right samples: should be within 1..{k}")
    return float(at_least(n_M, c_M, k)[:, right].mean())


def mg_pass_at_k(n_M: ArrayLike, c_M: ArrayLike, k: int) -> float:
    """mG-Pass@k = (2/k) sum_{i = k/2 + 1}^{k} G-Pass@k_{i/k} (arXiv 2412.13147): reliability in [0, 1].

    Even k only: for odd k an arm that is always right would miss 1. Raises UserError on odd k and where k > n.
    """
    if k < 2 or k % 2:
        raise UserError(f"mG-Pass@k was asked for k = {k}: k must be even and at least 2")
    return float(2 / k * at_least(n_M, c_M, k)[:, k // 2 + 1 :].mean(axis=0).sum())
