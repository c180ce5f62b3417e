"""How far answers can be guessed without solving the problem; right answers by a wrong chain (metrics.md 6, 7, 21).

Shapes: M problems, R samples; K the largest k of a curve.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rlvr_limit.passk.curve import checked_counts, pass_curve, refuse_where
from rlvr_limit.types import UserError

RARE_PERCENT = 5
"""Yue et al. 2025, v5: a problem answered without a chain of thought at a rate in (0, 5 %) is guessable (Fig. 13), and
the chains of one that is solved at such a rate are read by a person (app. C.2)."""


def rarely_right(n_M: ArrayLike, c_M: ArrayLike) -> np.ndarray:
    """Whether each problem is answered right at times, but rarely: 0 < c/n < 5 %, in integers; [M] bool.

    Raises UserError on counts that cannot be.
    """
    n_M, c_M = checked_counts(n_M, c_M)
    return (c_M > 0) & (100 * c_M < RARE_PERCENT * n_M)


class RareWins(NamedTuple):
    """Problems that an arm solves rarely, by what a person said of the chains behind their right answers."""

    problems: int
    valid: int  # one chain at least is right
    invalid: int  # every chain is wrong; the rest: not known


def rare_wins(n_M: ArrayLike, c_M: ArrayLike, right_M: ArrayLike, wrong_M: ArrayLike) -> RareWins:
    """Of a problem's c right answers right_M have a chain judged right, wrong_M one judged wrong (metrics.md 21)."""
    rare_M, right_M = rarely_right(n_M, c_M), np.asarray(right_M) > 0
    all_wrong_M = np.asarray(wrong_M) == np.asarray(c_M)
    return RareWins(*(int(np.sum(rare_M & kind_M)) for kind_M in (True, right_M, all_wrong_M)))


def marginal_rates(
    accepted_M: Sequence[Collection[str]], problem_R: Sequence[int], answer_R: Sequence[str]
) -> np.ndarray:
    """The chance of a right answer among the answers to the other problems: [M], the guess rate of an average answer.

    accepted_M: the texts that are right for each problem, in one normal form with the answers; problem_R are places in
    it; samples without an answer are given as "" and count as drawn. 0 where no other problem has samples. Raises
    UserError on a place that is none.
    """
    if len(problem_R) != len(answer_R):
        raise UserError(f"{len(problem_R)} problems and {len(answer_R)} answers: every sample needs one of each")
    if any(not 0 <= problem < len(accepted_M) for problem in problem_R):
        raise UserError(f"a sample belongs to none of the {len(accepted_M)} problems")
    drawn, given = Counter(problem_R), Counter(answer_R)
    own = Counter(zip(problem_R, answer_R, strict=True))
    rates = np.zeros(len(accepted_M))
    for i, accepted in enumerate(accepted_M):
        others = len(problem_R) - drawn[i]
        if others:
            rates[i] = sum(given[text] - own[i, text] for text in {*accepted} - {""}) / others
    return rates


def chain_bounds(
    n_M: ArrayLike, c_M: ArrayLike, right_M: ArrayLike, wrong_M: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """CoT-Pass@k (arXiv 2506.14245) for every k <= min(n), from below and from above: two [K] curves.

    Of a problem's c right answers right_M have a chain judged right and wrong_M one judged wrong; the others are taken
    for wrong in the lower curve and for right in the upper one. Raises UserError where more are judged than are there.
    """
    n_M, c_M = checked_counts(n_M, c_M)
    right_M, wrong_M = np.asarray(right_M, np.int64), np.asarray(wrong_M, np.int64)
    refuse_where(
        (right_M < 0) | (wrong_M < 0) | (right_M + wrong_M > c_M),
        lambda i: f"has {right_M[i]} chains judged right and {wrong_M[i]} wrong, but {c_M[i]} right answers",
    )
    return pass_curve(n_M, right_M), pass_curve(n_M, c_M - wrong_M)
