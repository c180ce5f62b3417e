"""Which problems each arm can solve at all (arXiv 2507.14843; metrics.md item 8).

Shapes: M problems; n_M samples drawn and c_M of them correct, per arm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlvr_limit.passk.curve import checked_arms, pass_curves, refuse_k_beyond_n, refuse_where
from rlvr_limit.types import UserError


@dataclass(frozen=True)
class Support:
    """Problem positions by who solved them at least once, and the four ratios; None means undefined (0 / 0).

    srr: support retention rate P / (P + S); ndr: net discovery rate E / (P + E); sds: their harmonic mean;
    nscr: net support change rate (E - S) / (P + E + S).
    """

    both: tuple[int, ...]
    base_only: tuple[int, ...]
    rl_only: tuple[int, ...]
    neither: tuple[int, ...]
    srr: float | None
    ndr: float | None
    sds: float | None
    nscr: float | None


def _ratio(top: float, bottom: float) -> float | None:
    return top / bottom if bottom else None


def support(base_n_M: ArrayLike, base_c_M: ArrayLike, rl_n_M: ArrayLike, rl_c_M: ArrayLike) -> Support:
    """Sort problems into both / base only / RL only / neither, a problem being solved where c >= 1.

    Both arms must be cut to the same n first, or the arm with more samples looks more able: raises UserError naming
    the first problem where they differ. "Neither" is a statement about n samples; see unsolved_bound.
    """
    (base_n_M, base_c_M), (rl_n_M, rl_c_M) = checked_arms(base_n_M, base_c_M, rl_n_M, rl_c_M)
    refuse_where(
        base_n_M != rl_n_M,
        lambda i: f"has n = {base_n_M[i]} in base and n = {rl_n_M[i]} in RL: cut both arms to the same samples first",
    )
    base_M, rl_M = base_c_M > 0, rl_c_M > 0
    both, base_only, rl_only, neither = (
        tuple(np.flatnonzero(mask_M).tolist())
        for mask_M in (base_M & rl_M, base_M & ~rl_M, ~base_M & rl_M, ~base_M & ~rl_M)
    )
    p, s, e = len(both), len(base_only), len(rl_only)
    srr, ndr = _ratio(p, p + s), _ratio(e, p + e)
    sds = None if srr is None or ndr is None else _ratio(2 * srr * ndr, srr + ndr)
    return Support(both, base_only, rl_only, neither, srr, ndr, sds, _ratio(e - s, p + e + s))


def expected_support(
    base_n_M: ArrayLike, base_c_M: ArrayLike, rl_n_M: ArrayLike, rl_c_M: ArrayLike, n: int
) -> tuple[float, float, float, float]:
    """Expected problems solved by (both, base only, RL only, neither), both arms cut to n samples of each at random.

    For arms of different or ragged n: a problem is solved by n of its samples with the chance pass@n, independently in
    the two arms. Raises UserError where an arm has fewer than n samples, or the numbers of problems differ.
    """
    (base_n_M, base_c_M), (rl_n_M, rl_c_M) = checked_arms(base_n_M, base_c_M, rl_n_M, rl_c_M)
    for n_M in (base_n_M, rl_n_M):
        refuse_k_beyond_n(n_M, n, f"support at n = {n}")
    base_M, rl_M = (pass_curves(*counts)[:, n - 1] for counts in ((base_n_M, base_c_M), (rl_n_M, rl_c_M)))
    sides = (base_M * rl_M, base_M * (1 - rl_M), (1 - base_M) * rl_M, (1 - base_M) * (1 - rl_M))
    both, base_only, rl_only, neither = (float(chance_M.sum()) for chance_M in sides)
    return both, base_only, rl_only, neither


def unsolved_bound(n: int, level: float = 0.95) -> float:
    """Largest success rate still compatible with 0 of n samples right, at this one-sided level: 1 - (1-level)^(1/n).

    About 3/n at 95 %, the rule of three. Raises UserError where n < 1 or level is not between 0 and 1.
    """
    if n < 1:
        raise UserError(f"the bound was asked for n = {n}: n must be at least 1")
    if not 0 < level < 1:
        raise UserError(f"level is {level}: should be between 0 and 1, such as 0.95")
    return 1.0 - (1.0 - level) ** (1.0 / n)


BINS = ("0", "0 to 5 %", "5 to 20 %", "20 to 50 %", "50 to 100 %")
"""Bins of success rates in transitions; each but the first is open below and closed above."""


def halves(n_M: ArrayLike, c_M: ArrayLike, seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """(n, c) of two halves of each problem's samples, drawn at random: samples of a problem are exchangeable."""
    n_M, c_M = np.asarray(n_M), np.asarray(c_M)
    half_M = n_M // 2
    first_M = np.random.default_rng(seed).hypergeometric(c_M, n_M - c_M, half_M)
    rest_M = np.random.default_rng(seed + 1).hypergeometric(c_M - first_M, n_M - half_M - c_M + first_M, half_M)
    return (half_M, first_M), (half_M, rest_M)


def transitions(first: tuple[ArrayLike, ArrayLike], second: tuple[ArrayLike, ArrayLike]) -> np.ndarray:
    """[5, 5] problems by the bin of the first (n, c) and of the second (metrics.md item 25)."""
    table = np.zeros((len(BINS), len(BINS)), int)
    np.add.at(table, (_bins(*first), _bins(*second)), 1)
    return table


def _bins(n_M: ArrayLike, c_M: ArrayLike) -> np.ndarray:
    """Which of BINS each rate is in, in integers."""
    n_M, c_M = np.asarray(n_M), np.asarray(c_M)
    return (c_M > 0).astype(int) + (20 * c_M > n_M) + (5 * c_M > n_M) + (2 * c_M > n_M)
