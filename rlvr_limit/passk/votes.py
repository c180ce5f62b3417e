"""Answers that agree: majority voting and diversity (metrics.md items 4 and 13).

Shapes: M problems, R samples of all of them, K values of k; D random subsets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlvr_limit.types import UserError


@dataclass(frozen=True)
class Votes:
    """A problem's samples by answer: `right` in the class of the gold answer, `wrong` holds the sizes of the others.

    `silent` samples gave no answer and do not vote.
    """

    right: int
    wrong: tuple[int, ...]
    silent: int

    @property
    def n(self) -> int:
        """All samples of the problem."""
        return self.right + sum(self.wrong) + self.silent

    @property
    def distinct(self) -> int:
        """Distinct answers of the problem, the gold one among them where it was given."""
        return len(self.wrong) + (self.right > 0)


def count_votes(M: int, problem_R: Sequence[int], answer_R: Sequence[str], correct_R: Sequence[bool]) -> list[Votes]:
    """Sort the samples of M problems into classes of equal answers; "" is none.

    answer_R: texts in a normal form, so that equivalent answers are equal. Where the grader takes several texts for
    right they are one class, the gold one, and so is a text that it took for right in any sample. Raises UserError on
    unequal lengths and on a place that is none.
    """
    if not len(problem_R) == len(answer_R) == len(correct_R):
        raise UserError(
            f"{len(problem_R)} problems, {len(answer_R)} answers and {len(correct_R)} verdicts: "
            "every sample needs one of each"
        )
    if any(not 0 <= problem < M for problem in problem_R):
        raise UserError(f"a sample belongs to none of the {M} problems")
    gold = {(p, text) for p, text, correct in zip(problem_R, answer_R, correct_R, strict=True) if correct and text}
    right, silent = [0] * M, [0] * M
    wrong: list[Counter[str]] = [Counter() for _ in range(M)]
    for problem, text, correct in zip(problem_R, answer_R, correct_R, strict=True):
        if correct or (problem, text) in gold:
            right[problem] += 1
        elif text:
            wrong[problem][text] += 1
        else:
            silent[problem] += 1
    return [Votes(right[i], tuple(wrong[i].values()), silent[i]) for i in range(M)]


def maj_at_k(votes_M: Sequence[Votes], ks: Sequence[int], *, draws: int = 1000, seed: int = 0) -> np.ndarray:
    """maj@k of each problem: [M, K] in [0, 1], the largest class among k samples answers, ties share the point.

    A mean over `draws` random k-subsets of the problem's samples without replacement, so each entry has a standard
    error of at most 0.5 / sqrt(draws); the same seed gives the same numbers. 0 where none of the k samples votes.
    The mean over problems may be given a band by population_band. Raises UserError where k > n, naming the problem.
    """
    if draws < 1:
        raise UserError(f"maj@k was asked for {draws} draws: at least 1 is needed")
    if not votes_M or not len(ks):
        raise UserError(f"maj@k was asked for {len(votes_M)} problems and k = {list(ks)}: give one of each")
    for i, votes in enumerate(votes_M):
        if min(ks) < 1 or max(ks) > votes.n:
            raise UserError(
                f"maj@k was asked for k = {list(ks)}, but problem {i} (counting from 0) has n = {votes.n} samples: "
                f"every k should be within 1..{votes.n}"
            )
    value_MK = np.empty((len(votes_M), len(ks)))
    for i, votes in enumerate(votes_M):
        rng = np.random.default_rng([seed, i])
        sizes = [votes.right, *votes.wrong, votes.silent]
        for column, k in enumerate(ks):
            drawn_DC = rng.multivariate_hypergeometric(sizes, k, size=draws, method="marginals")[:, :-1]
            most_D = drawn_DC.max(axis=1)
            tied_D = (drawn_DC == most_D[:, None]).sum(axis=1)
            won_D = (drawn_DC[:, 0] == most_D) & (most_D > 0)
            value_MK[i, column] = (won_D / tied_D).mean()
    return value_MK
