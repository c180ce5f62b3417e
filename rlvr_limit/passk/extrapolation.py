"""pass@k beyond n, from a beta-binomial law of the success rates by maximum likelihood (METRICS item 11).

A model, not a measurement: to be drawn dashed and never mixed with measured values.
Shapes: M problems; J runs over j = 0..J-1, J at least the largest n; S starts of the search; P parameters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rlvr_limit.passk.curve import checked_counts, host_float64
from rlvr_limit.types import UserError

LARGEST_LOGIT = 14.0
CONCENTRATIONS = (1e-3, 1e5)
STEPS = 200


@dataclass(frozen=True)
class BetaBinomial:
    """Success rates are 0 with probability pi0, else Beta(a, b).

    log_likelihood is that of the counts, binomial coefficients included, so that the fits with and without zero
    inflation compare. at_edge: a + b ran to the end of its range, 1e-3 to 1e5 (or the mean to that of 1e-6 to
    1 - 1e-6): the rates are all alike, or all 0 or 1, and the data do not say how much so.
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
    J = 1 << int(n_M.max()).bit_length()
    apart_M = (c_M == 0) & zero_inflated
    above = [_above(x_M[~apart_M], J) for x_M in (c_M, n_M - c_M, n_M)]
    zeros_J = np.bincount(n_M[apart_M], minlength=J).astype(np.float64)
    with host_float64():
        found = _search(*above, zeros_J, np.float64((~apart_M).sum()), _starts(n_M, c_M, zero_inflated))
        theta_P, loss = (np.asarray(x) for x in found)
    a, b, pi0 = (float(x) for x in _natural(theta_P, np))
    constant = sum(
        math.lgamma(n + 1) - math.lgamma(c + 1) - math.lgamma(n - c + 1)
        for n, c in zip(n_M.tolist(), c_M.tolist(), strict=True)
    )
    low, high = map(math.log, CONCENTRATIONS)
    at_edge = not (low + 1e-6 < theta_P[1] < high - 1e-6 and abs(theta_P[0]) < LARGEST_LOGIT - 1e-6)
    return BetaBinomial(a, b, pi0, constant - float(loss), at_edge)


def _above(x_M: np.ndarray, J: int) -> np.ndarray:
    """[J] how many of x_M are above j."""
    return np.bincount(x_M, minlength=J)[::-1].cumsum()[::-1][1:].astype(np.float64) if x_M.size else np.zeros(J - 1)


def _starts(n_M: np.ndarray, c_M: np.ndarray, zero_inflated: bool) -> np.ndarray:
    """[S, P] starts as (logit of the mean, log of a + b, and logit of pi0 where there is one)."""
    mean, zeros = (c_M / n_M).mean(), (c_M == 0).mean()
    shares = [zeros * x for x in (0.1, 0.5, 0.9)] if zero_inflated else [None]
    starts = []
    for share in shares:
        m = min(max(mean / (1 - (share or 0.0)), 1e-4), 1 - 1e-4)
        extra = [] if share is None else [_logit(min(max(share, 1e-3), 1 - 1e-3))]
        starts += [[_logit(m), math.log(total), *extra] for total in (0.3, 3.0, 30.0)]
    return np.array(starts)


def _logit(x: float) -> float:
    return math.log(x / (1 - x))


def _natural(theta_P, numpy):
    """a, b and pi0 of the unbounded parameters; pi0 is 0 where it is no parameter."""
    mean, total = 1 / (1 + numpy.exp(-theta_P[0])), numpy.exp(theta_P[1])
    pi0 = 1 / (1 + numpy.exp(-theta_P[2])) if len(theta_P) == 3 else 0.0
    return mean * total, total / (1 + numpy.exp(theta_P[0])), pi0


def _loss(theta_P: jax.Array, c_J: jax.Array, wrong_J: jax.Array, n_J: jax.Array, zeros_J: jax.Array, apart: jax.Array):
    """Minus the log-likelihood without binomial coefficients; zeros_J[n] problems with c = 0 may have a rate of 0."""
    a, b, pi0 = _natural(theta_P, jnp)
    j_J = jnp.arange(c_J.shape[0])
    log_a_J, log_b_J, log_ab_J = jnp.log(a + j_J), jnp.log(b + j_J), jnp.log(a + b + j_J)
    likely = c_J @ log_a_J + wrong_J @ log_b_J - n_J @ log_ab_J
    if theta_P.shape[0] == 3:
        none_J = jnp.concatenate([jnp.zeros(1), jnp.cumsum(log_b_J - log_ab_J)])
        log_pi0, log_rest = -jax.nn.softplus(-theta_P[2]), -jax.nn.softplus(theta_P[2])
        likely += apart * log_rest + zeros_J @ jnp.logaddexp(log_pi0, log_rest + none_J)
    return -likely


@jax.jit
def _search(c_J, wrong_J, n_J, zeros_J, apart, start_SP):
    """(best parameters, their loss). Newton steps with the curvature's absolute value, the best of several lengths."""
    data = (c_J, wrong_J, n_J, zeros_J, apart)
    P = start_SP.shape[1]
    edge_P = jnp.array([LARGEST_LOGIT, math.log(CONCENTRATIONS[1]), LARGEST_LOGIT])[:P]
    floor_P = jnp.array([-LARGEST_LOGIT, math.log(CONCENTRATIONS[0]), -LARGEST_LOGIT])[:P]
    lengths = jnp.concatenate([jnp.zeros(1), 2.0 ** -jnp.arange(12)])

    def advance(state):
        theta_P, _, i = state
        gradient_P, curvature_PP = jax.grad(_loss)(theta_P, *data), jax.hessian(_loss)(theta_P, *data)
        value_P, axis_PP = jnp.linalg.eigh(curvature_PP)
        step_P = -axis_PP @ (axis_PP.T @ gradient_P / jnp.maximum(jnp.abs(value_P), 1e-9))
        step_P = step_P / jnp.maximum(1.0, jnp.abs(step_P).max() / 2.0)
        tried = jnp.clip(theta_P + lengths[:, None] * step_P, floor_P, edge_P)
        best_P = tried[jnp.argmin(jax.vmap(lambda theta_P: _loss(theta_P, *data))(tried))]
        return best_P, jnp.abs(best_P - theta_P).max(), i + 1

    def climb(theta_P):
        theta_P, _, _ = jax.lax.while_loop(
            lambda state: (state[1] > 1e-10) & (state[2] < STEPS), advance, (theta_P, jnp.inf, 0)
        )
        return theta_P, _loss(theta_P, *data)

    theta_SP, loss_S = jax.lax.map(climb, start_SP)
    best = jnp.argmin(loss_S)
    return theta_SP[best], loss_S[best]
