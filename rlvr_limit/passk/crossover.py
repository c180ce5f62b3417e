"""Where the base arm's pass@k catches up with the RL arm's, and whether the data can tell.

Shapes: M problems, K the largest k both arms have, B bootstrap replicates; *_MK are per-problem pass@k, k = 1..K.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlvr_limit.passk.bands import (
    ROUNDING,
    Band,
    bootstrap_blocks,
    bootstrap_weights,
    checked_pair,
    checked_settings,
    difference_band,
    tail_area,
)


@dataclass(frozen=True)
class Crossover:
    """k* with its bootstrap interval; None stands for "beyond the largest k drawn" in k, low and high.

    probability is the share of replicates in which base is at or above RL at the largest k, that is P(k* <= k_max).
    verdict is "resolved", "not resolved", "tie", "never below" (base is nowhere below RL) or "base never overtakes".
    """

    k: int | None
    low: int | None
    high: int | None
    probability: float
    verdict: str
    sentence: str


def first_lasting(difference_K: np.ndarray) -> int:
    """min{k : difference >= 0 from k up to K}, or K + 1 where the difference is negative at K. Rounding counts as 0."""
    below = np.flatnonzero(difference_K < -ROUNDING)
    return 2 + int(below[-1]) if below.size else 1


def _replicate_crossings(difference_MK: np.ndarray, weights_BM: np.ndarray) -> np.ndarray:
    """[B] first_lasting of the mean difference over each replicate's problems."""
    k_B = np.ones(len(weights_BM), dtype=np.int64)
    for start, means in bootstrap_blocks(difference_MK, weights_BM):
        below = means < -ROUNDING
        last_B = start + len(below) - 1 - below[::-1].argmax(axis=0)
        k_B = np.where(below.any(axis=0), last_B + 2, k_B)
    return k_B


def crossover(
    base_MK: ArrayLike,
    rl_MK: ArrayLike,
    *,
    level: float = 0.95,
    replicates: int = 2000,
    seed: int = 0,
    names: tuple[str, str] = ("base", "RL"),
) -> Crossover:
    """k* = min{k : base >= RL and stays so up to K}, searched on every integer k of the full curve (metrics.md item 9).

    The interval takes order statistics of k* over the paired bootstrap, tails cut as for the bands, and every k at
    which the paired band leaves the crossing open. In words:
    "resolved": the paired band is below 0 at some k < k* and above 0 at K. Both halves must be shown; an interval for
    k* alone could be narrow merely because both curves saturate together. The first half looks at several k, yet in
    worlds without a crossing at most .01 of simulations came out resolved (tests/benchmarks/coverage.py);
    "base never overtakes": below 0 at K with the band; "never below": nowhere below 0 and the band above 0 at some k;
    "tie": never above 0 and equal at K, so the curves meet without crossing; "not resolved": everything else.
    In a tie and in "never below", k follows the definition and marks no crossing. If base leads and both arms then meet
    at K, the verdict is "not resolved". Differences under 1e-12 are rounding and count as equal. Raises
    UserError on unequal shapes, M < 2, values outside [0, 1].
    """
    checked_settings(level, replicates)
    base_MK, rl_MK = checked_pair(base_MK, rl_MK)
    M, K = base_MK.shape
    difference_MK, weights_BM = base_MK - rl_MK, bootstrap_weights(seed, M, replicates)
    band = difference_band(difference_MK, weights_BM, level)
    k = first_lasting(band.mean_K)
    k_B = np.sort(_replicate_crossings(difference_MK, weights_BM))
    reach = math.floor(tail_area(level, M) * (replicates - 1))
    low = min(int(k_B[reach]), first_lasting(band.high_K))
    high = max(int(k_B[-1 - reach]), first_lasting(band.low_K))
    probability = float((k_B <= K).mean())
    verdict = _verdict(band, k)
    within = tuple(x if x <= K else None for x in (k, low, high))
    sentence = _sentence(verdict, band, within, probability, names)
    return Crossover(within[0], within[1], within[2], probability, verdict, sentence)


def _verdict(band: Band, k: int) -> str:
    rl_leads_K, base_leads_K = band.high_K < -ROUNDING, band.low_K > ROUNDING
    if rl_leads_K[: k - 1].any() and base_leads_K[-1]:
        return "resolved"
    if rl_leads_K[-1]:
        return "base never overtakes"
    if abs(band.mean_K[-1]) <= ROUNDING and not (band.mean_K > ROUNDING).any():
        return "tie"
    if k == 1 and base_leads_K.any():
        return "never below"
    return "not resolved"


def _sentence(
    verdict: str, band: Band, within: tuple[int | None, ...], probability: float, names: tuple[str, str]
) -> str:
    base, rl = names
    K, percent = band.mean_K.size, f"{100 * band.level:g} %"
    k, low, high = within
    beyond = f"beyond {K}"
    interval = f"{percent} interval {low or beyond} to {high or beyond}"
    gap = f"{base} minus {rl} at k = {K} is {band.mean_K[-1]:+.3f} ({band.low_K[-1]:+.3f} to {band.high_K[-1]:+.3f})"
    if verdict == "resolved":
        return (
            f"{rl} leads at small k; {base} catches up at k = {k} ({interval}) and is ahead at k = {K}: "
            f"both leads are larger than their {percent} paired band."
        )
    if verdict == "base never overtakes":
        return f"By k = {K} {base} has not overtaken {rl}: {gap}, {percent} paired band."
    if verdict == "never below":
        return (
            f"{base} is not below {rl} at any k up to {K}, so the curves do not cross; at some k its lead is larger "
            f"than the {percent} paired band: {gap}."
        )
    if verdict == "tie":
        if not (np.abs(band.mean_K) > ROUNDING).any():
            return f"{base} and {rl} have the same pass@k at every k up to {K}: a tie; {gap}, {percent} paired band."
        return (
            f"{rl} is ahead at smaller k, and the curves meet from k = {k} on without {base} passing: a tie at k = {K}."
        )
    missing = []
    if not (band.high_K[: k - 1 if k else K] < -ROUNDING).any():
        missing.append(f"that {rl} leads at any smaller k")
    if not band.low_K[-1] > ROUNDING:
        missing.append(f"that {base} leads at k = {K}")
    where = f"{base} is at or above {rl} from k = {k} on" if k else f"{base} stays below {rl} at k = {K}"
    return (
        f"Where the curves cross is not resolved: in this sample {where} ({interval}; {base} is level or ahead at "
        f"k = {K} in {100 * probability:.0f} % of replicates), but the {percent} paired band does not show "
        f"{' nor '.join(missing)}."
    )
