"""How much of an arm's gain a control reaches that was not rewarded for being right (metrics.md item 23)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlvr_limit.passk.bands import student_quantile


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
