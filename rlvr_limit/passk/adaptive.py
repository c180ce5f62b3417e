"""pass@k where problems that a first stage left unsolved were given more samples, without bias.

Shapes: M problems; K the largest k of the curve.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlvr_limit.passk.curve import checked_counts, pass_curves
from rlvr_limit.types import UserError


@dataclass(frozen=True, eq=False)
class SecondStageCounts:
    """Further samples of the problems of which the first stage holds no right one; 0 of 0 for the others."""

    n: int  # samples that such a problem is to have in both stages together, set before sampling
    n_M: np.ndarray  # drawn in the second stage
    c_M: np.ndarray  # right ones of these


def two_stage_curves(
    first: int, first_c_M: ArrayLike, second_n_M: ArrayLike, second_c_M: ArrayLike, K: int
) -> np.ndarray:
    """pass@k of each problem for k = 1..K from two-stage samples: [M, K] in [0, 1].

    Every problem has `first` samples, first_c_M of them right; where that is none, second_n_M more were drawn, and
    second_c_M of these are right. With n0 = first and c0 = first_c:

        k <= n0:  1 - C(n0-c0, k) / C(n0, k), the first stage alone
        k > n0:   1 if c0 > 0, else pass@(k - n0) of the second stage alone

    Unbiased for 1 - (1-p)^k: up to n0 because the first stage was drawn whatever it showed, and beyond because the
    second stage does not depend on the first but for its size, so that the expectation is
    P(c0 > 0) + P(c0 = 0) (1 - (1-p)^(k-n0)) = 1 - (1-p)^n0 + (1-p)^n0 (1 - (1-p)^(k-n0)) = 1 - (1-p)^k.
    Counting both stages together would not be: its pass@1, c/n, has the expectation
    p (1 + (1-p)^n0 (n-n0)/n) where an unsolved problem gets n samples in all, because only bad luck is given another
    chance. A second stage of a problem with c0 > 0 is not looked at.
    K must be set before sampling. Raises UserError on impossible counts, and where an unsolved problem has fewer than
    K samples.
    """
    first_c_M, second_n_M, second_c_M = (np.asarray(x_M) for x_M in (first_c_M, second_n_M, second_c_M))
    first_n_M, first_c_M = checked_counts(np.full(first_c_M.shape, first), first_c_M)
    if K < 1:
        raise UserError(f"the two-stage curve was asked for K = {K}: K must be at least 1")
    curve_MK = np.ones((first_c_M.size, K))
    curve_MK[:, :first] = pass_curves(first_n_M, first_c_M)[:, :K]
    unsolved_M = first_c_M == 0
    if K <= first or not unsolved_M.any():
        return curve_MK
    if second_n_M.shape != first_c_M.shape or second_c_M.shape != first_c_M.shape:
        raise UserError(
            f"the second stage has {second_n_M.size} n and {second_c_M.size} c: give both for each of "
            f"{first_c_M.size} problems, 0 where none was drawn"
        )
    short_i = np.flatnonzero(unsolved_M & (first + second_n_M < K))
    if short_i.size:
        i = short_i[0]
        raise UserError(
            f"problem {i} (counting from 0) has no right sample among its first {first} and {second_n_M[i]} more: "
            f"K = {K} needs {K - first} more"
        )
    second_MK = pass_curves(second_n_M[unsolved_M], second_c_M[unsolved_M])
    curve_MK[unsolved_M, first:] = second_MK[:, : K - first]
    return curve_MK
