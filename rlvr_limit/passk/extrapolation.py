"""pass@k beyond n, from a beta-binomial law of the success rates by maximum likelihood (metrics.md item 11).

A model, not a measurement: to be drawn dashed and never mixed with measured values.
Shapes: M problems; J runs over j = 0..max(n)-1, N over n = 0..max(n), and Z over the n of problems with c = 0; S starts
of the search; P the parameters log a, log b and logit pi0. NumPy: a search of some thirty steps over vectors of length
n takes less time than compiling it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import jax
import numpy as np
from numpy.typing import ArrayLike

from rlvr_limit.passk.curve import checked_counts, host_float64
from rlvr_limit.types import UserError

LEAST, MOST = 1e-4, 1e6
LARGEST_LOGIT = 14.0
STEPS, HALVINGS = 300, 20


@dataclass(frozen=True)
class BetaBinomial:
    """Success rates are 0 with probability pi0, else Beta(a, b).

    log_likelihood is that of the counts, binomial coefficients included, so that the fits with and without zero
    inflation compare. at_edge: a or b ran to the end of its range, 1e-4 to 1e6: the rates are all alike, or all 0 or 1,
    and the data do not say how much so.
    """

    a: float
    b: float
    pi0: float
    log_likelihood: float
    at_edge: bool

    def pass_at_k(self, k_K: ArrayLike) -> np.ndarray:
        """(1-pi0) (1 - B(a, b+k) / B(a, b)) at each k, which need not be an integer: [K] in [0, 1].

        arXiv 2510.05197; what it models was seen in arXiv 2407.21787. Raises UserError on a negative k.
        """
        k_K = np.asarray(k_K, dtype=np.float64)
        if not (k_K >= 0).all():
            raise UserError(f"pass@k was asked for k = {k_K.min():g}: k must be at least 0")
        a, b = self.a, self.b
        with host_float64():
            log = jax.scipy.special.gammaln
            fail_K = np.asarray(log(b + k_K) - log(a + b + k_K)) + math.lgamma(a + b) - math.lgamma(b)
        return (1 - self.pi0) * -np.expm1(fail_K)


def fit_beta_binomial(n_M: ArrayLike, c_M: ArrayLike, *, zero_inflated: bool = False) -> BetaBinomial:
    """Maximum likelihood over a, b and, where asked for, pi0, by Newton's method from several starts.

    The likelihood is taken as sums of log(a+j), log(b+j) and log(a+b+j) over how many problems have c, n-c and n above
    j (Griffiths 1973, Biometrics 29:637), so n may be ragged and no Gamma function loses digits. Raises UserError where
    no sample, or every sample, is right: nothing bounds the rates there.
    """
    n_M, c_M = checked_counts(n_M, c_M)
    if not c_M.any() or (c_M == n_M).all():
        which = "every sample is right" if c_M.any() else "no sample is right"
        raise UserError(f"the beta-binomial law cannot be fitted: {which} in all of {n_M.size} problems")
    apart_M = (c_M == 0) & zero_inflated
    J = int(n_M.max())
    c_J, wrong_J, n_J = (_above(x_M[~apart_M], J) for x_M in (c_M, n_M - c_M, n_M))
    tallies = _Tallies(
        c_J,
        wrong_J,
        n_J,
        zeros_N=np.bincount(n_M[apart_M], minlength=J + 1),
        others=int((~apart_M).sum()) if zero_inflated else 0,
    )
    theta_P, likely = _search(tallies, _starts(n_M, c_M, zero_inflated))
    constant = sum(
        math.lgamma(n + 1) - math.lgamma(c + 1) - math.lgamma(n - c + 1)
        for n, c in zip(n_M.tolist(), c_M.tolist(), strict=True)
    )
    a, b = (float(x) for x in np.exp(theta_P[:2]))
    pi0 = 1 / (1 + math.exp(-theta_P[2])) if zero_inflated else 0.0
    at_edge = not all(1.001 * LEAST < x < 0.999 * MOST for x in (a, b))
    return BetaBinomial(a, b, pi0, constant + likely, at_edge)


@dataclass(frozen=True, eq=False)
class _Tallies:
    """How many problems have c, n-c and n above j; zeros_N problems with c = 0 may have a rate of 0, others may not."""

    c_J: np.ndarray
    wrong_J: np.ndarray
    n_J: np.ndarray
    zeros_N: np.ndarray
    others: int


def _above(x_M: np.ndarray, J: int) -> np.ndarray:
    return np.bincount(x_M, minlength=J + 1)[::-1].cumsum()[::-1][1:]


def _starts(n_M: np.ndarray, c_M: np.ndarray, zero_inflated: bool) -> np.ndarray:
    """[S, P]: the mean of c/n with three sizes of a + b and, with zero inflation, three shares of the zeros."""
    mean, zeros = (c_M / n_M).mean(), (c_M == 0).mean()
    starts = []
    for share, total in itertools.product((0.1, 0.5, 0.9) if zero_inflated else (0.0,), (0.3, 3.0, 30.0)):
        m = min(max(mean / (1 - share * zeros), 1e-4), 1 - 1e-4)
        pi0 = min(max(share * zeros, 1e-3), 1 - 1e-3)
        starts.append([math.log(total * m), math.log(total * (1 - m)), math.log(pi0 / (1 - pi0))])
    return np.array(starts)


def _likelihood(tallies: _Tallies, theta_SP: np.ndarray) -> np.ndarray:
    """[S] log-likelihoods without binomial coefficients; flat in pi0 where there is no zero inflation."""
    a_S1, b_S1, j_J = np.exp(theta_SP[:, :1]), np.exp(theta_SP[:, 1:2]), np.arange(len(tallies.n_J))
    log_b_SJ, log_both_SJ = np.log(b_S1 + j_J), np.log(a_S1 + b_S1 + j_J)
    likely_S = np.log(a_S1 + j_J) @ tallies.c_J + log_b_SJ @ tallies.wrong_J - log_both_SJ @ tallies.n_J
    n_Z = np.flatnonzero(tallies.zeros_N)
    if not n_Z.size:
        return likely_S - tallies.others * np.logaddexp(0, theta_SP[:, 2])
    none_SZ = np.cumsum(log_b_SJ - log_both_SJ, axis=1)[:, n_Z - 1]
    log_pi0_S, log_rest_S = -np.logaddexp(0, -theta_SP[:, 2]), -np.logaddexp(0, theta_SP[:, 2])
    mixed_SZ = np.logaddexp(log_pi0_S[:, None], log_rest_S[:, None] + none_SZ)
    return likely_S + tallies.others * log_rest_S + mixed_SZ @ tallies.zeros_N[n_Z]


def _derivatives(tallies: _Tallies, theta_SP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient [S, P] and Hessian [S, P, P] of _likelihood."""
    a_S1, b_S1, j_J = np.exp(theta_SP[:, :1]), np.exp(theta_SP[:, 1:2]), np.arange(len(tallies.n_J))
    of_a_SJ, of_b_SJ, both_SJ = 1 / (a_S1 + j_J), 1 / (b_S1 + j_J), 1 / (a_S1 + b_S1 + j_J)
    pi0_S = 1 / (1 + np.exp(-theta_SP[:, 2]))
    gradient_SP, hessian_SPP = np.zeros(theta_SP.shape), np.zeros((*theta_SP.shape, theta_SP.shape[1]))
    gradient_SP[:, 0] = of_a_SJ @ tallies.c_J - both_SJ @ tallies.n_J
    gradient_SP[:, 1] = of_b_SJ @ tallies.wrong_J - both_SJ @ tallies.n_J
    gradient_SP[:, 2] = -pi0_S * tallies.others
    hessian_SPP[:, :2, :2] = (both_SJ**2 @ tallies.n_J)[:, None, None]
    hessian_SPP[:, 0, 0] -= of_a_SJ**2 @ tallies.c_J
    hessian_SPP[:, 1, 1] -= of_b_SJ**2 @ tallies.wrong_J
    hessian_SPP[:, 2, 2] = -pi0_S * (1 - pi0_S) * tallies.others
    n_Z = np.flatnonzero(tallies.zeros_N)
    if n_Z.size:
        # log(pi0 + (1-pi0) exp(g)), g = log P(c = 0 | Beta); r is the chance that such a problem's rate is not 0.
        count_Z = tallies.zeros_N[n_Z]
        own_SZ, shared_SZ, own2_SZ, shared2_SZ, g_SZ = (
            np.cumsum(x_SJ, axis=1)[:, n_Z - 1]
            for x_SJ in (of_b_SJ, both_SJ, of_b_SJ**2, both_SJ**2, np.log(both_SJ / of_b_SJ))
        )
        r_SZ = np.exp(-np.logaddexp(0, theta_SP[:, 2:] - g_SZ))
        slope_SPZ = np.stack([-shared_SZ, own_SZ - shared_SZ, -np.ones_like(g_SZ)], axis=1)
        gradient_SP[:, :2] += (r_SZ[:, None] * slope_SPZ[:, :2]) @ count_Z
        gradient_SP[:, 2] += (1 - r_SZ - pi0_S[:, None]) @ count_Z
        hessian_SPP += (slope_SPZ * (r_SZ * (1 - r_SZ) * count_Z)[:, None]) @ slope_SPZ.transpose(0, 2, 1)
        hessian_SPP[:, :2, :2] += ((r_SZ * shared2_SZ) @ count_Z)[:, None, None]
        hessian_SPP[:, 1, 1] -= (r_SZ * own2_SZ) @ count_Z
        hessian_SPP[:, 2, 2] -= pi0_S * (1 - pi0_S) * count_Z.sum()
    # From a and b to their logarithms.
    scale_SP = np.concatenate([a_S1, b_S1, np.ones_like(a_S1)], axis=1)
    hessian_SPP *= scale_SP[:, :, None] * scale_SP[:, None, :]
    for place in (0, 1):
        hessian_SPP[:, place, place] += gradient_SP[:, place] * scale_SP[:, place]
    return gradient_SP * scale_SP, hessian_SPP


def _search(tallies: _Tallies, theta_SP: np.ndarray) -> tuple[np.ndarray, float]:
    """(best parameters [P], their likelihood): Newton steps by the curvature's absolute value, halved until they help.

    All starts climb side by side until none moves.
    """
    low_P = np.array([math.log(LEAST), math.log(LEAST), -LARGEST_LOGIT])
    high_P = np.array([math.log(MOST), math.log(MOST), LARGEST_LOGIT])
    likely_S = _likelihood(tallies, theta_SP)
    for _ in range(STEPS):
        gradient_SP, hessian_SPP = _derivatives(tallies, theta_SP)
        value_SP, axis_SPP = np.linalg.eigh(hessian_SPP)
        along_SP = (axis_SPP.transpose(0, 2, 1) @ gradient_SP[:, :, None])[:, :, 0]
        step_SP = (axis_SPP @ (along_SP / np.maximum(np.abs(value_SP), 1e-9))[:, :, None])[:, :, 0]
        step_SP /= np.maximum(1, np.abs(step_SP).max(axis=1, keepdims=True) / 2)
        moved_S = np.zeros(len(theta_SP), dtype=bool)
        for halving in range(HALVINGS):
            tried_SP = np.clip(theta_SP + step_SP / 2**halving, low_P, high_P)
            tried_S = _likelihood(tallies, tried_SP)
            better_S = ~moved_S & (tried_S > likely_S)
            theta_SP = np.where(better_S[:, None], tried_SP, theta_SP)
            likely_S, moved_S = np.where(better_S, tried_S, likely_S), moved_S | better_S
            if moved_S.all():
                break
        if not moved_S.any() or np.abs(step_SP).max() < 1e-10:
            break
    best = int(np.argmax(likely_S))
    return theta_SP[best], float(likely_S[best])
