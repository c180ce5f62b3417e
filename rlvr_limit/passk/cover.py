"""Cover@tau: the share of problems whose success rate reaches tau (arXiv 2510.08325; METRICS item 5).

Of a true rate p, pass@k is the integral of Cover@tau k (1-tau)^(k-1) over tau in [0, 1]. Of estimates it is not: the
plug-in form integrates to the mean of 1 - (1 - c/n)^k, the posterior form to posterior pass@k, and neither is pass@k.

Shapes: M problems; T thresholds.
"""

from __future__ import annotations

import jax
import numpy as np
from numpy.typing import ArrayLike

from rlvr_limit.passk.curve import checked_counts, checked_prior, host_float64
from rlvr_limit.types import UserError


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
    with host_float64():
        return np.asarray(_upper_beta((n_M - c_M + b)[:, None], (c_M + a)[:, None], 1.0 - tau_T)).mean(axis=0)


@jax.jit
def _upper_beta(b_M1: jax.Array, a_M1: jax.Array, x_T: jax.Array) -> jax.Array:
    return jax.scipy.special.betainc(b_M1, a_M1, x_T)


def _checked_thresholds(tau_T: ArrayLike) -> np.ndarray:
    tau_T = np.atleast_1d(np.asarray(tau_T, dtype=np.float64))
    bad = tau_T[~((tau_T >= 0) & (tau_T <= 1))]
    if bad.size:
        raise UserError(f"Cover@tau was asked for tau = {bad[0]:g}: should be within [0, 1]")
    return tau_T
