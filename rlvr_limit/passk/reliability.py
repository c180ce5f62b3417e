"""How reliably problems are solved: G-Pass@k (metrics.md item 3) and Cover@tau (item 5; arXiv 2510.08325).

Of a true rate p, pass@k is the integral of Cover@tau k (1-tau)^(k-1) over tau in [0, 1]. Of estimates it is not: the
plug-in form integrates to the mean of 1 - (1 - c/n)^k, the posterior form to posterior pass@k, and neither is pass@k.

Shapes: M problems; J runs over j = 0..k; T thresholds.
"""

from __future__ import annotations

import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from rlvr_limit.passk.curve import checked_counts, checked_prior, refuse_k_beyond_n
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


def cover_at_tau(n_M: ArrayLike, c_M: ArrayLike, tau_T: ArrayLike) -> np.ndarray:
    """Share of problems with c/n >= tau: [T] in [0, 1].

    c/n is rounded to the nearest float64, so 7/25 meets a tau written 0.28 but not one computed as 0.04 x 7. Raises
    UserError on counts that cannot be and on tau outside [0, 1].
    """
    n_M, c_M = checked_counts(n_M, c_M)
    tau_T = _checked_thresholds(tau_T)
    return ((c_M / n_M)[:, None] >= tau_T).mean(axis=0)


def posterior_cover(n_M: ArrayLike, c_M: ArrayLike, tau_T: ArrayLike, a: float = 1.0, b: float = 1.0) -> np.ndarray:
    """Mean over problems of P(p >= tau) under the posterior Beta(c+a, n-c+b): [T], I_{1-tau}(n-c+b, c+a).

    Raises UserError on counts that cannot be, tau outside [0, 1], a <= 0 or b <= 0.
    """
    n_M, c_M = checked_counts(n_M, c_M)
    checked_prior(a, b)
    tau_T = _checked_thresholds(tau_T)
    return scipy.special.betainc((n_M - c_M + b)[:, None], (c_M + a)[:, None], 1.0 - tau_T).mean(axis=0)


def _checked_thresholds(tau_T: ArrayLike) -> np.ndarray:
    tau_T = np.atleast_1d(np.asarray(tau_T, dtype=np.float64))
    bad = tau_T[~((tau_T >= 0) & (tau_T <= 1))]
    if bad.size:
        raise UserError(f"Cover@tau was asked for tau = {bad[0]:g}: should be within [0, 1]")
    return tau_T
