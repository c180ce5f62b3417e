"""A curve of pass@k in one number, and against what it costs (metrics.md item 12).

Shapes: M problems; K runs over k = 1..n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlvr_limit.passk.curve import checked_counts, pass_curves, refuse_where
from rlvr_limit.types import UserError


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
