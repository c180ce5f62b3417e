"""What several training runs say of the algorithm that they are runs of (metrics.md item 31).

Shapes: S runs, M problems, K columns (values of k); value_SMK is one number per run, problem and k, all runs on the
same problems.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike

from rlvr_limit.passk.bands import (
    Band,
    checked_values,
    paired_band,
    population_band,
    score_interval,
    student_quantile,
)
from rlvr_limit.types import UserError

MOST_RUNS = 1000
"""More are not asked for."""


@dataclass(frozen=True, eq=False)
class RunSpread:
    """How S runs on M problems differ, each [K]: variances of the means of runs and of problems, and what is left.

    The rest is of a run and a problem together, samples' noise included; both variances of means contain some of it.
    """

    runs_K: np.ndarray
    problems_K: np.ndarray
    rest_K: np.ndarray
    S: int
    M: int

    @property
    def between_K(self) -> np.ndarray:
        """Variance between runs' true means; 0 where the rest alone explains more."""
        return np.maximum(self.runs_K - self.rest_K / self.M, 0.0)

    def half(self, level: float) -> np.ndarray:
        """Half the width of an interval of the mean over runs and problems.

        sqrt(t_{S-1}^2 runs / S + t_{M-1}^2 problems / M): at least this level for normal effects, whichever of the two
        is larger (Banerjee 1960, Sankhya 22, 357). What is left counts twice, which errs to the wide side.
        """
        t_S, t_M = (student_quantile(level, count - 1) for count in (self.S, self.M))
        return np.sqrt(t_S**2 * self.runs_K / self.S + t_M**2 * self.problems_K / self.M)

    def expected(self, runs: int) -> RunSpread:
        """What is to be expected of so many runs, if what was found here is the truth."""
        problems_K = np.maximum(self.problems_K - self.rest_K / self.S, 0.0) + self.rest_K / runs
        return RunSpread(self.between_K + self.rest_K / self.M, problems_K, self.rest_K, runs, self.M)


def run_spread(value_SMK: np.ndarray) -> RunSpread:
    """The spread of S x M values a column, each run on each problem."""
    S, M, _ = value_SMK.shape
    run_SK, problem_MK = value_SMK.mean(axis=1), value_SMK.mean(axis=0)
    rest_SMK = value_SMK - run_SK[:, None] - problem_MK + problem_MK.mean(axis=0)
    rest_K = (rest_SMK**2).sum(axis=(0, 1)) / ((S - 1) * (M - 1))
    return RunSpread(run_SK.var(axis=0, ddof=1), problem_MK.var(axis=0, ddof=1), rest_K, S, M)


def algorithm_band(value_SMK: ArrayLike, *, level: float = 0.95) -> Band:
    """Band of an algorithm's mean pass@k over other runs and other problems: [K], in [0, 1].

    The score interval of population_band, as wide as RunSpread.half asks, and nowhere narrower than the band over
    problems of the runs' mean. Pointwise in k. Raises UserError on S < 2, M < 2 or values outside [0, 1].
    """
    value_SMK = _checked_runs(value_SMK)
    over_problems, spread = population_band(value_SMK.mean(axis=0), level=level), run_spread(value_SMK)
    t = student_quantile(level, spread.M - 1)
    ends = score_interval(over_problems.mean_K, (spread.half(level) / t) ** 2, spread.M, t)
    return _widened(over_problems, *ends, 0.0)


def algorithm_paired_band(base_MK: ArrayLike, value_SMK: ArrayLike, *, level: float = 0.95) -> Band:
    """Band of the base minus an algorithm over other runs and other problems, the same ones for both: [K].

    The mean and RunSpread.half in place of the score interval. The base is one set of weights, from which all runs
    started.
    """
    value_SMK = _checked_runs(value_SMK)
    over_problems = paired_band(base_MK, value_SMK.mean(axis=0), level=level)
    half_K = run_spread(base_MK - value_SMK).half(level)
    return _widened(over_problems, over_problems.mean_K - half_K, over_problems.mean_K + half_K, -1.0)


def runs_to_resolve(base_M: ArrayLike, value_SM: ArrayLike, *, level: float = 0.95, power: float = 0.8) -> int | None:
    """Runs at which base minus algorithm would show its sign with this chance, if it is what these runs show.

    Its mean must be RunSpread.half + Phi^-1(power) standard errors from 0, on as many problems like these. None where
    not even MOST_RUNS would do: then problems are too few, or the difference is 0.
    """
    difference_SM = np.asarray(base_M) - np.asarray(value_SM)
    mean, spread, counts = abs(difference_SM.mean()), run_spread(difference_SM[:, :, None]), range(2, MOST_RUNS + 1)

    def resolved(runs: int) -> bool:
        expected = spread.expected(runs)
        error_K = np.sqrt(expected.runs_K / runs + expected.problems_K / expected.M)
        return bool(np.all(expected.half(level) + NormalDist().inv_cdf(power) * error_K <= mean))

    # What more runs narrow is narrower for every one of them.
    first = bisect.bisect_left(counts, True, key=resolved)
    return counts[first] if first < len(counts) and not math.isclose(mean, 0, abs_tol=1e-12) else None


@dataclass(frozen=True, eq=False)
class AlgorithmRuns:
    """What S runs say of their algorithm beside a base."""

    curve: Band  # over runs and problems
    difference: Band  # the base minus the algorithm, likewise
    differences: tuple[Band, ...]  # the base minus each run, over problems
    deviation_K: np.ndarray  # between runs' true pass@k
    needed: dict[int, int | None]  # runs_to_resolve, where the sign at the least and the largest k is not resolved
    this_run: str  # what may be said of the first run
    sentence: str  # and of the algorithm


def algorithm(base_MK: np.ndarray, value_SMK: np.ndarray, names: tuple[str, str, str]) -> AlgorithmRuns:
    """The claim about the algorithm apart from that about its first run; names: the base, the algorithm, that run.

    Raises UserError as the bands do.
    """
    curve, difference = algorithm_band(value_SMK), algorithm_paired_band(base_MK, value_SMK)
    differences = tuple(paired_band(base_MK, value_MK) for value_MK in value_SMK)
    S, M, K = value_SMK.shape
    unclear = [k for k in dict.fromkeys((1, K)) if not difference.sign(k)]
    needed = {k: runs_to_resolve(base_MK[:, k - 1], value_SMK[:, :, k - 1]) for k in unclear}
    base, name, first = names
    this_run = (
        f"This run: {base} minus {first} is {_at_ends(differences[0])} (95 % bands over problems); "
        f"{_order(differences[0])}. That holds for these weights and says nothing of another run."
    )
    more = [
        f"at k = {k} about {runs:,} runs (now {S}) on {M} problems like these would show a sign with a chance of 80 %, "
        "if this is the true difference"
        if runs and runs > S
        else f"at k = {k} more runs alone would not show a sign on {M} problems like these"
        for k, runs in needed.items()
    ]
    sentence = (
        f"The algorithm: over {S} runs {base} minus {name} is {_at_ends(difference)} (95 % bands over runs and "
        f"problems); {'; '.join([_order(difference), *more])}. It speaks of further runs from this base."
    )
    deviation_K = np.sqrt(run_spread(value_SMK).between_K)
    return AlgorithmRuns(curve, difference, differences, deviation_K, needed, this_run, sentence)


def _at_ends(band: Band) -> str:
    def points(share_K: np.ndarray, k: int) -> str:
        return f"{100 * share_K[k - 1]:+.1f}".replace("-", "\u2212")

    said = {k: [points(x_K, k) for x_K in (band.mean_K, band.low_K, band.high_K)] for k in (1, len(band.mean_K))}
    return " and ".join(f"{value} points ({low} to {high}) at k = {k}" for k, (value, low, high) in said.items())


def _order(band: Band) -> str:
    unclear = [f"k = {k}" for k in dict.fromkeys((1, len(band.mean_K))) if not band.sign(k)]
    return f"which is ahead at {' and '.join(unclear)} is not resolved" if unclear else "which is ahead is resolved"


def _checked_runs(value_SMK: ArrayLike) -> np.ndarray:
    value_SMK = np.asarray(value_SMK, np.float64)
    if value_SMK.ndim != 3 or len(value_SMK) < 2:
        raise UserError(f"runs have shape {value_SMK.shape}: a band over runs needs [S, M, K] with S >= 2 runs")
    return np.stack([checked_values(value_MK, f"the curve of run {run}", 0.0, 1.0)
                     for run, value_MK in enumerate(value_SMK)])  # fmt: skip


def _widened(band: Band, low_K: np.ndarray, high_K: np.ndarray, least: float) -> Band:
    low_K, high_K = (np.clip(end_K, least, 1.0) for end_K in (low_K, high_K))
    kind = f"runs and {band.kind}"
    return Band(band.mean_K, np.minimum(band.low_K, low_K), np.maximum(band.high_K, high_K), band.level, kind)
