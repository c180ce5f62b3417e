"""pass@k and its neighbours from two integers per problem: n samples drawn, c of them correct.

Shapes: M problems, K the largest k of a curve; n_M and c_M are integer vectors, curve_MK has column k-1 for k = 1..K.
Everything is float64 on the host's CPU: float32 products err by 2e-6 to 2e-5 at n = 10,000. The x64 switch is local to
each call, so a training job in the same process keeps its own precision.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rlvr_limit.types import UserError


@contextlib.contextmanager
def host_float64() -> Iterator[None]:
    """Run JAX in float64 on this host's CPU; the global flag and the default device are left as they were."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        yield


def checked_counts(n_M: ArrayLike, c_M: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return (n_M, c_M) as int64, or raise UserError naming the first problem that breaks n >= 1 and 0 <= c <= n."""
    n_M, c_M = np.asarray(n_M), np.asarray(c_M)
    if n_M.ndim != 1 or n_M.shape != c_M.shape or not n_M.size:
        raise UserError(
            f"n and c have shapes {n_M.shape} and {c_M.shape}: give one n and one c for each of at least 1 problem"
        )
    for name, x_M in (("n", n_M), ("c", c_M)):
        if not np.issubdtype(x_M.dtype, np.integer):
            raise UserError(f"{name} has dtype {x_M.dtype}: sample counts are integers")
    n_M, c_M = n_M.astype(np.int64), c_M.astype(np.int64)
    refuse_where(
        (n_M < 1) | (c_M < 0) | (c_M > n_M),
        lambda i: f"has n = {n_M[i]} and c = {c_M[i]}: should be n >= 1 and 0 <= c <= n",
    )
    return n_M, c_M


def refuse_where(bad_M: np.ndarray, say: Callable[[int], str]) -> None:
    """Raise UserError about the first problem that bad_M marks: its place, and what `say` says of it."""
    if bad_M.any():
        i = int(np.argmax(bad_M))
        raise UserError(f"problem {i} (counting from 0) {say(i)}")


def checked_prior(a: float, b: float) -> None:
    """Raise UserError unless Beta(a, b) is a law: both numbers positive and finite."""
    if not (0 < a < np.inf and 0 < b < np.inf):
        raise UserError(f"the prior is Beta({a}, {b}): both numbers must be positive and finite")


def refuse_k_beyond_n(n_M: np.ndarray, k: int, metric: str) -> None:
    """Raise UserError unless 1 <= k <= n for every problem: a curve is never padded beyond the samples drawn."""
    if k < 1:
        raise UserError(f"{metric} was asked for k = {k}: k must be at least 1")
    i = int(np.argmin(n_M))
    if k > n_M[i]:
        raise UserError(
            f"{metric} was asked for k = {k}, but problem {i} (counting from 0) has only n = {n_M[i]} samples: "
            f"ask for k <= {n_M[i]} or draw more samples"
        )


def checked_arms(
    base_n_M: ArrayLike, base_c_M: ArrayLike, rl_n_M: ArrayLike, rl_c_M: ArrayLike
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Both arms' (n_M, c_M), checked, or UserError where they are not of the same number of problems."""
    base, rl = checked_counts(base_n_M, base_c_M), checked_counts(rl_n_M, rl_c_M)
    if base[0].shape != rl[0].shape:
        raise UserError(f"base has {base[0].size} problems and RL has {rl[0].size}: compare the same problems")
    return base, rl


@functools.partial(jax.jit, static_argnames="K")
def _ratio_products(top_M: jax.Array, bottom_M: jax.Array, step: jax.Array, K: int) -> jax.Array:
    """[M, K] of prod_{j<k} max(top + step j, 0) / (bottom + step j): O(1) work per entry, no factorials."""

    def advance(q_M: jax.Array, j: jax.Array) -> tuple[jax.Array, jax.Array]:
        q_M = q_M * jnp.maximum(top_M + step * j, 0.0) / (bottom_M + step * j)
        return q_M, q_M

    _, q_KM = jax.lax.scan(advance, jnp.ones_like(top_M), jnp.arange(K, dtype=top_M.dtype))
    return q_KM.T


def _products(top_M: np.ndarray, bottom_M: np.ndarray, step: float, K: int) -> np.ndarray:
    with host_float64():
        return np.asarray(_ratio_products(np.float64(top_M), np.float64(bottom_M), np.float64(step), K))


def pass_curves(n_M: ArrayLike, c_M: ArrayLike) -> np.ndarray:
    """pass@k of each problem for every k <= min(n): [M, K] in [0, 1], 1 - C(n-c, k) / C(n, k).

    Unbiased for 1 - (1-p)^k (Chen et al. 2021, arXiv 2107.03374, eq. 1). Raises UserError on counts that cannot be.
    """
    n_M, c_M = checked_counts(n_M, c_M)
    return 1.0 - _products(n_M - c_M, n_M, -1.0, int(n_M.min()))


def pass_curve(n_M: ArrayLike, c_M: ArrayLike) -> np.ndarray:
    """pass@k averaged over problems for every k <= min(n): [K]. Raises UserError as pass_curves does."""
    return pass_curves(n_M, c_M).mean(axis=0)


def pass_at_k(n_M: ArrayLike, c_M: ArrayLike, k: int) -> float:
    """pass@k averaged over problems (metrics.md item 1). Raises UserError where k > n, naming the problem."""
    n_M, c_M = checked_counts(n_M, c_M)
    refuse_k_beyond_n(n_M, k, f"pass@{k}")
    return float(pass_curve(n_M, c_M)[k - 1])


def pass_hat_curves(n_M: ArrayLike, c_M: ArrayLike) -> np.ndarray:
    """pass^k of each problem, the chance that all of k samples are right: [M, K], C(c, k) / C(n, k) for k <= min(n)."""
    n_M, c_M = checked_counts(n_M, c_M)
    return _products(c_M, n_M, -1.0, int(n_M.min()))


def avg_at_n(n_M: ArrayLike, c_M: ArrayLike) -> float:
    """Mean over problems of c / n: the accuracy of one sample, equal to pass@1."""
    n_M, c_M = checked_counts(n_M, c_M)
    return float((c_M / n_M).mean())


def delta_se(base_n_M: ArrayLike, base_c_M: ArrayLike, rl_n_M: ArrayLike, rl_c_M: ArrayLike, k: int = 256) -> float:
    """Delta_SE = pass@k(base) - pass@1(RL), k = 256 by convention; lower is better (metrics.md item 2).

    Raises UserError where k exceeds the samples of the base arm.
    """
    return pass_at_k(base_n_M, base_c_M, k) - pass_at_k(rl_n_M, rl_c_M, 1)


def posterior_curves(n_M: ArrayLike, c_M: ArrayLike, K: int, a: float = 1.0, b: float = 1.0) -> np.ndarray:
    """Posterior mean of 1 - (1-p)^k for k = 1..K under a Beta(a, b) prior on p: [M, K].

    1 - B(c+a, n-c+b+k) / B(c+a, n-c+b) (metrics.md item 10). Defined for k > n too, where the prior speaks louder than
    the samples: always name the prior beside it. Raises UserError on impossible counts, a <= 0, b <= 0 or K < 1.
    """
    n_M, c_M = checked_counts(n_M, c_M)
    checked_prior(a, b)
    if K < 1:
        raise UserError(f"posterior pass@k was asked for K = {K}: K must be at least 1")
    return 1.0 - _products(n_M - c_M + b, n_M + a + b, 1.0, K)


def bayes_at_n(n_M: ArrayLike, c_M: ArrayLike) -> tuple[float, float]:
    """Bayes@N: posterior mean and standard deviation of avg@n under uniform priors (arXiv 2510.04265).

    With p = (c+1) / (n+2): mu = mean p and sigma^2 = M^-2 sum p (1-p) / (n+3). sigma speaks of new samples of these
    problems, not of other problems. Raises UserError on counts that cannot be.
    """
    n_M, c_M = checked_counts(n_M, c_M)
    p_M = (c_M + 1) / (n_M + 2)
    return float(p_M.mean()), float(np.sqrt((p_M * (1 - p_M) / (n_M + 3)).sum()) / n_M.size)


def guess_curve(a_M: ArrayLike, K: int) -> np.ndarray:
    """pass@k of guessing alone: [K], the mean over problems of 1 - (1-a)^k with a the chance of one guess (item 7).

    Raises UserError where a is not a probability or K < 1.
    """
    a_M = np.asarray(a_M, dtype=np.float64)
    if a_M.ndim != 1 or not a_M.size:
        raise UserError(f"guess rates have shape {a_M.shape}: give one for each of at least 1 problem")
    refuse_where(~((a_M >= 0) & (a_M <= 1)), lambda i: f"has guess rate {a_M[i]}: should be between 0 and 1")
    if K < 1:
        raise UserError(f"the guess curve was asked for K = {K}: K must be at least 1")
    return 1.0 - ((1.0 - a_M[:, None]) ** np.arange(1, K + 1)).mean(axis=0)


def guess_corrected(curve_K: ArrayLike, guess_K: ArrayLike) -> np.ndarray:
    """(pass@k - g) / (1 - g) of the two mean curves: [K]; 0 is guessing, 1 is solving all (metrics.md item 7).

    A ratio of means, because a mean of ratios explodes where one problem's g is near 1. Undefined (NaN) where the mean
    g is 1. It is linear in the curve, so the ends of a band may be passed through it. Raises UserError on unequal
    shapes.
    """
    curve_K, guess_K = np.asarray(curve_K, dtype=np.float64), np.asarray(guess_K, dtype=np.float64)
    if curve_K.shape != guess_K.shape:
        raise UserError(f"curve and guess baseline have shapes {curve_K.shape} and {guess_K.shape}: they must be equal")
    return np.divide(curve_K - guess_K, 1.0 - guess_K, out=np.full(curve_K.shape, np.nan), where=guess_K < 1.0)


@dataclass(frozen=True, eq=False)
class BudgetCurve:
    """Expected problems solved (out of M) and expected generated tokens when every problem gets k samples."""

    tokens_K: np.ndarray
    solved_K: np.ndarray


def auc_log_k(curve_K: ArrayLike) -> float:
    """Area under pass@j over log j from 1 to K by trapezoids, divided by log K: a mean in [0, 1], octaves alike.

    Of two arms only at the same K. Raises UserError where the curve has fewer than 2 points.
    """
    curve_K = np.asarray(curve_K, dtype=np.float64)
    if curve_K.ndim != 1 or curve_K.size < 2:
        raise UserError(f"the curve has shape {curve_K.shape}: an area over log k needs at least k = 1 and 2")
    log_K = np.log(np.arange(1, curve_K.size + 1))
    return float(((curve_K[1:] + curve_K[:-1]) / 2 * np.diff(log_K)).sum() / log_K[-1])


def budget_curve(n_M: ArrayLike, c_M: ArrayLike, tokens_M: ArrayLike) -> BudgetCurve:
    """Problems solved against tokens generated, for every k <= min(n): arms with longer answers pay for them.

    tokens_M is the mean length of a problem's answers, so that k samples cost k tokens_M of it. Both are unbiased for
    k fresh samples: sum_i pass@k and k sum_i tokens. Raises UserError on impossible counts or lengths.
    """
    n_M, c_M = checked_counts(n_M, c_M)
    tokens_M = np.asarray(tokens_M, dtype=np.float64)
    if tokens_M.shape != n_M.shape:
        raise UserError(f"mean lengths have shape {tokens_M.shape}: give one for each of {n_M.size} problems")
    impossible_M = ~(np.isfinite(tokens_M) & (tokens_M >= 0))
    refuse_where(impossible_M, lambda i: f"has a mean length of {tokens_M[i]} tokens: should be at least 0")
    solved_K = pass_curves(n_M, c_M).sum(axis=0)
    return BudgetCurve(tokens_M.sum() * np.arange(1, solved_K.size + 1), solved_K)
