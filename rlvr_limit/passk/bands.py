"""Bands around pass@k: how far the curves could move with other problems, or with other samples of these problems.

Shapes: M problems, K columns (values of k), B bootstrap replicates; value_MK is one number per problem and k.
Memory: the bootstrap keeps 8 B M bytes of weights and works through the columns in blocks, so K may be large. Its
matrix products and order statistics are NumPy's: XLA sorts a column where a partition is enough.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import jax
import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from rlvr_limit.passk.curve import checked_counts, host_float64, pass_curves, refuse_where
from rlvr_limit.types import UserError

COLUMNS_PER_BLOCK = 128

ACCEPTED_COVERAGE = (0.92, 0.98)

FEW_UNLIKE = 8
"""Below so many problems that are unlike the others, a bootstrap says little about problems not drawn."""
UNSEEN_DRAWS = 10_000

ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class Band:
    """A pointwise interval at each of K columns around an estimate. kind says what would be drawn anew."""

    mean_K: np.ndarray
    low_K: np.ndarray
    high_K: np.ndarray
    level: float
    kind: str

    def sign(self, k: int) -> int:
        """Of a difference: 1 or -1 where the band excludes 0 at this k, else 0."""
        return int(self.low_K[k - 1] > ROUNDING) - int(self.high_K[k - 1] < -ROUNDING)


def checked_values(value_MK: ArrayLike, name: str, low: float, high: float) -> np.ndarray:
    """Return value_MK as float64, or raise UserError: two dimensions, at least 2 problems, all within [low, high]."""
    value_MK = np.asarray(value_MK, dtype=np.float64)
    if value_MK.ndim != 2 or value_MK.shape[0] < 2 or not value_MK.shape[1]:
        raise UserError(
            f"{name} has shape {value_MK.shape}: a band over problems needs [M, K] with M >= 2 problems and K >= 1"
        )
    inside_M = np.all((value_MK >= low) & (value_MK <= high), axis=1)
    refuse_where(np.logical_not(inside_M), lambda i: f"of {name} has a value outside [{low:g}, {high:g}]")
    return value_MK


def checked_settings(level: float, replicates: int) -> None:
    """Raise UserError unless 0 < level < 1 and there are enough replicates to speak of tails."""
    if not 0 < level < 1:
        raise UserError(f"level is {level}: should be between 0 and 1, such as 0.95")
    if replicates < 100:
        raise UserError(f"replicates is {replicates}: a bootstrap band needs at least 100, 2000 is usual")


@functools.partial(jax.jit, static_argnames=("M", "B"))
def _bootstrap_draws(seed: jax.Array, M: int, B: int) -> jax.Array:
    key = jax.random.key(seed, impl="threefry2x32")
    return jax.random.randint(key, (B, M), 0, M)


def bootstrap_weights(seed: int, M: int, B: int) -> np.ndarray:
    """[B, M] counts of how often each problem is drawn in M draws with replacement; one seed serves every arm."""
    with host_float64():
        index_BM = np.asarray(_bootstrap_draws(np.int64(seed), M, B))
    place_BM = index_BM + M * np.arange(B)[:, None]
    return np.bincount(place_BM.ravel(), minlength=B * M).reshape(B, M).astype(np.float64)


def student_quantile(level: float, df: int) -> float:
    """t with P(|T| <= t) = level for Student's T with df degrees of freedom."""
    return float(scipy.special.stdtrit(df, (1 + level) / 2))


def tail_area(level: float, M: int) -> float:
    """Area to cut from each tail of M problems' bootstrap distribution: the expanded percentile interval.

    Resampling M problems understates the spread by sqrt((M-1)/M) and takes it as known; cutting Phi(-sqrt(M/(M-1)) t)
    instead of (1-level)/2 mends both (Hesterberg 2015, arXiv 1411.5279).
    """
    return NormalDist().cdf(-math.sqrt(M / (M - 1)) * student_quantile(level, M - 1))


def bootstrap_blocks(value_MK: np.ndarray, weights_BM: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(first column, means [columns, B] of the resampled problems), block by block."""
    M, K = value_MK.shape
    for start in range(0, K, COLUMNS_PER_BLOCK):
        yield start, value_MK[:, start : start + COLUMNS_PER_BLOCK].T @ weights_BM.T / M


def _bootstrap_interval(value_MK: np.ndarray, weights_BM: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Expanded percentile interval of the mean over problems, column by column."""
    tail = tail_area(level, value_MK.shape[0])
    ends = [np.quantile(means, [tail, 1 - tail], axis=1) for _, means in bootstrap_blocks(value_MK, weights_BM)]
    low_K, high_K = np.concatenate(ends, axis=1)
    return low_K, high_K


def wilson(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a rate of which count in n independent trials were seen (1927, JASA 22, 209)."""
    z = NormalDist().inv_cdf((1 + level) / 2)
    rate, shrink = count / n, 1 + z**2 / n
    half = z * math.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2))
    return (rate + z**2 / (2 * n) - half) / shrink, (rate + z**2 / (2 * n) + half) / shrink


def score_interval(mean_K: np.ndarray, variance_K: np.ndarray, M: int, t: float) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's interval at the effective number of problems mean (1-mean) / Var(mean), with Student's quantile t."""
    binary_K = mean_K * (1 - mean_K)
    size_K = np.divide(binary_K, variance_K, out=np.full(mean_K.shape, float(M)), where=variance_K > 0)
    size_K = np.maximum(size_K, 1.0)
    shrink_K = 1 + t**2 / size_K
    centre_K = (mean_K + t**2 / (2 * size_K)) / shrink_K
    half_K = t * np.sqrt(binary_K / size_K + t**2 / (4 * size_K**2)) / shrink_K
    return centre_K - half_K, centre_K + half_K


def population_band(value_MK: ArrayLike, *, level: float = 0.95, replicates: int = 2000, seed: int = 0) -> Band:
    """Band of mean pass@k over problems like these: [K] ends in [0, 1] from per-problem curves in [0, 1] (item 9a).

    The expanded percentile bootstrap over problems, widened where needed to the score interval. Resampling problems
    already contains each problem's sampling noise. Why not the plain percentile interval: in the worlds of
    tests/benchmarks/coverage.py at M = 30 it held the truth in .86 to .95 of cases, and in .68 at k = n where nearly
    every problem is solved, because 30 problems without a failure leave it no width. Bootstrap-t breaks down there
    too, its widths exceeding 1; the score interval is the one that keeps a sensible width. Of up to 8 problems both may
    be nearly alike (they held the truth in .67 of cases at k = n/4), so `_unseen_interval` widens the band.
    Pointwise in k. Raises UserError on M < 2 or values outside [0, 1].
    """
    checked_settings(level, replicates)
    value_MK = checked_values(value_MK, "the curve", 0.0, 1.0)
    weights_BM = bootstrap_weights(seed, value_MK.shape[0], replicates)
    boot_low_K, boot_high_K = _bootstrap_interval(value_MK, weights_BM, level)
    M, mean_K = value_MK.shape[0], value_MK.mean(axis=0)
    t = student_quantile(level, M - 1)
    score_low_K, score_high_K = score_interval(mean_K, value_MK.var(axis=0, ddof=1) / M, M, t)
    low_K = np.clip(np.minimum(boot_low_K, score_low_K), 0.0, 1.0)
    high_K = np.clip(np.maximum(boot_high_K, score_high_K), 0.0, 1.0)
    if M <= FEW_UNLIKE:
        unseen_low_K, unseen_high_K = _unseen_interval(value_MK, level, 0.0)
        low_K, high_K = np.minimum(low_K, unseen_low_K), np.maximum(high_K, unseen_high_K)
    return Band(mean_K, low_K, high_K, level, "population")


def paired_band(
    first_MK: ArrayLike, second_MK: ArrayLike, *, level: float = 0.95, replicates: int = 2000, seed: int = 0
) -> Band:
    """Band of the mean of first minus second over problems like these: [K], the same problems drawn for both arms.

    Expanded percentile bootstrap (item 9a). Columns must be the same k of the same problems. Pointwise in k. Where
    fewer than 8 problems differ from the others the bootstrap is nearly blind (4 problems that agree give it no width;
    in such worlds it held the truth in .12 to .85 of cases), so the band is widened to `_unseen_interval`.
    Raises UserError on unequal shapes, M < 2 or values outside [0, 1].
    """
    checked_settings(level, replicates)
    first_MK, second_MK = checked_pair(first_MK, second_MK)
    return difference_band(first_MK - second_MK, bootstrap_weights(seed, first_MK.shape[0], replicates), level)


def difference_band(difference_MK: np.ndarray, weights_BM: np.ndarray, level: float) -> Band:
    """paired_band of differences that are checked already, from these weights."""
    low_K, high_K = _bootstrap_interval(difference_MK, weights_BM, level)
    few_K = few_unlike(difference_MK)
    if few_K.any():
        unseen_low, unseen_high = _unseen_interval(difference_MK[:, few_K], level, -1.0)
        low_K[few_K] = np.minimum(low_K[few_K], unseen_low)
        high_K[few_K] = np.maximum(high_K[few_K], unseen_high)
    return Band(difference_MK.mean(axis=0), low_K, high_K, level, "paired difference")


def few_unlike(value_MK: np.ndarray) -> np.ndarray:
    """[K] whether fewer than FEW_UNLIKE problems differ from the most common value; always so of M <= FEW_UNLIKE."""
    M = value_MK.shape[0]
    alike = max(M - FEW_UNLIKE + 1, 1)
    sorted_MK = np.sort(value_MK, axis=0)
    return (sorted_MK[alike - 1 :] - sorted_MK[: M - alike + 1] <= ROUNDING).any(axis=0)


def _unseen_interval(value_MK: np.ndarray, level: float, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the mean of values in [least, 1] that allows for problems unlike all seen, column by column.

    Learned-Miller and Thomas 2019 (arXiv 1905.06208): the quantile of a mean under Dirichlet(1, ..., 1) weights on the
    M values and one more at the far end of the range. If all are v, the upper end is v s + 1 - s with
    s = ((1-level)/2)^(1/M), so that 4 problems that agree say little, and 1,000 leave 0.4 points.
    """
    M, tail = value_MK.shape[0], (1 - level) / 2
    share_BM = np.random.default_rng(M).dirichlet(np.ones(M + 1), UNSEEN_DRAWS)
    blocks = [means for _, means in bootstrap_blocks(value_MK, M * share_BM[:, :M])]
    mean_KB, end_B = np.concatenate(blocks), share_BM[:, M]
    return np.quantile(mean_KB + least * end_B, tail, axis=1), np.quantile(mean_KB + end_B, 1 - tail, axis=1)


def checked_pair(first_MK: ArrayLike, second_MK: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return both curves as float64 of one shape within [0, 1], or raise UserError."""
    first_MK = checked_values(first_MK, "the first arm's curve", 0.0, 1.0)
    second_MK = checked_values(second_MK, "the second arm's curve", 0.0, 1.0)
    if first_MK.shape != second_MK.shape:
        raise UserError(
            f"the arms' curves have shapes {first_MK.shape} and {second_MK.shape}: cut both to the same problems and k"
        )
    return first_MK, second_MK


def fixed_band(n_M: ArrayLike, c_M: ArrayLike, ks: Sequence[int], *, level: float = 0.95) -> Band:
    """Band of mean pass@k over new samples of these very problems, at each k of ks (item 9b).

    With q_k = C(n-c, k) / C(n, k), q_k^2 - q_2k is an unbiased estimate of Var(q_k) for 2k <= n; the band is the mean
    +- t sqrt(sum_i Var_i) / M with M - 1 degrees of freedom. Redrawing c from a fitted binomial or Beta posterior is
    not used: it reuses the plug-in p as if true and covers .86 at k = n/16 and .73 at k = n/4 (M = 96, n = 256).
    A problem without a right sample, or with fewer than k wrong ones, seems to have no variance. Where fewer than 8
    problems have any (it held the truth in .71 of cases at M = 8 and k = n/4, and never where all samples agree), the
    ends move out by what such problems may hide, `_most_unseen`.
    Near k = n/2 the variance rests on too few failures, so raises UserError unless n >= 4k; also on M < 2.
    """
    checked_settings(level, 100)
    n_M, c_M = checked_counts(n_M, c_M)
    if n_M.size < 2:
        raise UserError(f"there is {n_M.size} problem: the fixed-problem band needs at least 2")
    if not len(ks) or min(ks) < 1:
        raise UserError(f"the fixed-problem band was asked for k = {list(ks)}: give at least one k, each at least 1")
    i = int(np.argmin(n_M))
    if 4 * max(ks) > n_M[i]:
        raise UserError(
            f"the fixed-problem band at k = {max(ks)} needs n >= 4k = {4 * max(ks)}, "
            f"but problem {i} (counting from 0) has n = {n_M[i]}"
        )
    k_K = np.asarray(ks, dtype=np.int64)
    none_MK = 1.0 - pass_curves(n_M, c_M)
    q_MK, q_twice_MK = none_MK[:, k_K - 1], none_MK[:, 2 * k_K - 1]
    variance_K = np.maximum((q_MK**2 - q_twice_MK).sum(axis=0), 0.0) / n_M.size**2
    mean_K = 1.0 - q_MK.mean(axis=0)
    half_K = student_quantile(level, n_M.size - 1) * np.sqrt(variance_K)
    low_K, high_K = mean_K - half_K, mean_K + half_K
    wrong_M, n = n_M - c_M, int(n_M.min())
    for place, k in enumerate(ks):
        never_M, always_M = c_M == 0, wrong_M < k
        if n_M.size - np.count_nonzero(never_M | always_M) < FEW_UNLIKE:
            most_wrong = int(wrong_M[always_M].max(initial=0))
            low_K[place] -= _most_unseen(int(always_M.sum()), most_wrong + 1, n, level) / n_M.size
            high_K[place] += _most_unseen(int(never_M.sum()), k, n, level) / n_M.size
    return Band(mean_K, np.clip(low_K, 0.0, 1.0), np.clip(high_K, 0.0, 1.0), level, "fixed problems")


def _most_unseen(problems: int, k: int, n: int, level: float) -> float:
    """The most chances v_i of an event of k samples, summed over problems, where n samples of each showed none.

    The n / k separate groups of a problem show none with chance (1 - v_i)^(n/k), all of them with the product, which
    has to be (1 - level) / 2 at least; the sum is then largest where all v_i are alike.
    """
    return problems * (1 - ((1 - level) / 2) ** (k / (n * problems))) if problems else 0.0


@dataclass(frozen=True)
class GainShare:
    """gain(control) / gain(arm), with the interval of Fieller's theorem."""

    share: float
    low: float
    high: float


def gain_share(base_M: ArrayLike, arm_M: ArrayLike, control_M: ArrayLike, level: float = 0.95) -> GainShare | None:
    """mean(control - base) / mean(arm - base) of rates on the same problems, each [M], M of 2 or more.

    The interval holds every r at which the mean of (control - base) - r (arm - base) is not told from 0 by a t test
    over problems (Fieller 1954). It is bounded only where the arm's own gain is told from 0; None where it is not.
    """
    base_M, arm_M, control_M = (np.asarray(x, np.float64) for x in (base_M, arm_M, control_M))
    reached_M, gain_M = control_M - base_M, arm_M - base_M
    M = gain_M.size
    spread = np.cov(reached_M, gain_M) * student_quantile(level, M - 1) ** 2 / M
    reached, gain = reached_M.mean(), gain_M.mean()
    # (reached - r gain)^2 <= t^2 Var(reached - r gain) / M, a quadratic in r: a r^2 - 2 b r + c <= 0.
    a, b, c = gain**2 - spread[1, 1], reached * gain - spread[0, 1], reached**2 - spread[0, 0]
    if a <= 0:
        return None
    half = np.sqrt(max(b**2 - a * c, 0.0))
    return GainShare(float(reached / gain), float((b - half) / a), float((b + half) / a))


def coverage_caveats(M: int, n: int) -> list[str]:
    """One sentence for each kind of band and each k whose simulated coverage leaves .92-.98 at the nearest M.

    M problems with n samples each. The simulation (coverage.json, written by tests/benchmarks/coverage.py) has
    n = 256 and is carried over by k / n. An empty list means that every simulated coverage lies inside. Raises
    UserError where M or n is not at least 1.
    """
    if M < 1 or n < 1:
        raise UserError(f"coverage was asked for M = {M} problems and n = {n} samples: both must be at least 1")
    table = json.loads(importlib.resources.files("rlvr_limit.passk").joinpath("coverage.json").read_text())
    nearest = min({row["M"] for row in table["rows"]}, key=lambda m: abs(math.log(m / M)))
    misses: dict[tuple[str, int], list[dict]] = {}
    for row in table["rows"]:
        if row["M"] == nearest and not ACCEPTED_COVERAGE[0] <= row["coverage"] <= ACCEPTED_COVERAGE[1]:
            misses.setdefault((row["kind"], row["k"]), []).append(row)
    caveats = []
    for (kind, k), rows in misses.items():
        share = table["n"] // k
        here = 1 if k == 1 else n // share
        if not here:
            continue
        ratio = "" if k == 1 else " = n" if share == 1 else f" = n/{share}"
        found = " and ".join(f"{100 * row['coverage']:.1f} % for {row['distribution']} problems" for row in rows)
        sides = {"too narrow" if row["coverage"] < ACCEPTED_COVERAGE[0] else "too wide" for row in rows}
        caveats.append(
            f"The {100 * table['level']:g} % {kind} band at k{ratio} ({here} here) is {' or '.join(sorted(sides))}: "
            f"simulated with M = {nearest} problems it holds the truth in {found}."
        )
    return caveats
