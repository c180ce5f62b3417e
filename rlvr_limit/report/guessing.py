"""What guessing alone would reach, and how far right answers stand on right chains (METRICS items 6 and 7).

Shape suffixes: M problems; K runs over k = 1..n.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlvr_limit import passk
from rlvr_limit.report.results import ArmResults, Results

RULES = "the rules of the task"
MARGINAL = "own answers to other problems"
ANSWER_ONLY = "answers without reasoning"


@dataclass(frozen=True)
class Guess:
    """Guessing beside one arm: by which rates, pass@k of guessing, and the arm's pass@k corrected for it."""

    arm: str
    source: str
    guess_K: np.ndarray
    corrected_K: np.ndarray


@dataclass(frozen=True)
class Guessable:
    """Problems that the answer-only arm gets right at a rate in (0, 5 %), and pass@k of every arm without them.

    curves is empty where no problem would be left, bands (95 %, population) where fewer than two would be.
    """

    asked: str
    problems: tuple[int, ...]
    curves: dict[str, np.ndarray]
    bands: dict[str, passk.Band]


@dataclass(frozen=True)
class Chains:
    """An arm's right answers by what a person said of their chains, and CoT-Pass@k from below and from above."""

    right: int
    wrong: int
    unjudged: int
    low_K: np.ndarray
    high_K: np.ndarray


def guesses(results: Results, curves: dict[str, passk.Band]) -> tuple[Guess, ...]:
    """Per arm: the task's own rates or else the marginal-answer baseline, then the answer-only rates where asked for.

    None for an arm of which nothing is known. The answer-only arm is not held against itself.
    """
    own_M = [guess for _, _, guess in results.problems]
    own = None if any(guess is None for guess in own_M) else own_M
    found = []
    for arm in results.arms:
        rates = [(RULES, own)] if own is not None else [(MARGINAL, arm.marginal_M)]
        if results.answer_only and arm.name != results.answer_only:
            asked = results.arm(results.answer_only)
            rates.append((ANSWER_ONLY, asked.c_M / asked.n_M))
        mean_K = curves[arm.name].mean_K
        for source, rate_M in rates:
            if rate_M is not None:
                guess_K = passk.guess_curve(rate_M, len(mean_K))
                found.append(Guess(arm.name, source, guess_K, passk.guess_corrected(mean_K, guess_K)))
    return tuple(found)


def guessable(results: Results) -> Guessable | None:
    """The filter of Yue et al. 2025, Fig. 12; None where no arm was asked for the answer alone."""
    if not results.answer_only:
        return None
    asked = results.arm(results.answer_only)
    dropped_M = passk.guessable(asked.n_M, asked.c_M)
    kept = ~dropped_M
    values = {arm.name: arm.pass_MK[kept] for arm in results.arms} if kept.any() else {}
    curves = {name: value_MK.mean(axis=0) for name, value_MK in values.items()}
    bands = {name: passk.population_band(value_MK) for name, value_MK in values.items() if len(value_MK) > 1}
    return Guessable(asked.name, tuple(np.flatnonzero(dropped_M).tolist()), curves, bands)


def chains(arm: ArmResults) -> Chains | None:
    """The bounds that a person's judgments leave; None where no chain of the arm was judged."""
    if arm.chains_right_M is None or arm.chains_wrong_M is None:
        return None
    low_K, high_K = passk.chain_bounds(arm.n_M, arm.c_M, arm.chains_right_M, arm.chains_wrong_M)
    right, wrong = int(arm.chains_right_M.sum()), int(arm.chains_wrong_M.sum())
    return Chains(right, wrong, int(arm.c_M.sum()) - right - wrong, low_K, high_K)
