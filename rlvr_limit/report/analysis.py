"""Every number of the report, computed once from the counts: figures, tables and words only read what stands here.

Shape suffixes: M problems; K runs over k = 1..n, n the fewest samples any problem has; B the 11 histogram bins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlvr_limit import passk
from rlvr_limit.report.guessing import ANSWER_ONLY, Chains, Guess, Guessable, chains, guessable, guesses
from rlvr_limit.report.results import Results

ROUNDING = 1e-12
BINS = ("0", *(f"({i / 10:g}, {(i + 1) / 10:g}]" for i in range(10)))


@dataclass(frozen=True)
class Comparison:
    """A paired difference first minus second of two arms, for every k both have; told_by is the arm it is about."""

    first: str
    second: str
    told_by: str
    difference: passk.Band

    def title(self, results: Results) -> str:
        return f"{results.label(self.first)} minus {results.label(self.second)}"

    def leader(self, k: int) -> str | None:
        """The arm that is ahead at this k by more than the band, or None where the band includes 0."""
        if self.difference.low_K[k - 1] > ROUNDING:
            return self.first
        return self.second if self.difference.high_K[k - 1] < -ROUNDING else None


@dataclass(frozen=True)
class AgainstBase:
    """One arm beside the base: where the curves cross, who solves what (None: n differs), and Delta_SE at this k.

    delta_se_band has one column: its interval over problems, the same ones drawn for both arms.
    """

    crossover: passk.Crossover
    support: passk.Support | None
    delta_se: float
    delta_se_band: passk.Band
    delta_se_k: int


@dataclass(frozen=True)
class Findings:
    """curves by arm name; guess_K is None where the task gives no guess rate of its own.

    guesses are empty, guessable and chains (by arm) None and empty, where nothing is known of them. powers: what it
    would take to resolve a pair (first, second): its crossover, or its sign at k = n or else 1, where that is open.
    """

    curves: dict[str, passk.Band]
    guess_K: np.ndarray | None
    guesses: tuple[Guess, ...]
    guessable: Guessable | None
    chains: dict[str, Chains]
    comparisons: tuple[Comparison, ...]
    against_base: dict[str, AgainstBase]
    powers: dict[tuple[str, str], passk.Power]
    headline: str
    coverage: tuple[str, ...]

    def guess(self, arm: str) -> Guess | None:
        """The baseline that stands beside an arm's curve: the task's own, or the arm's answers to other problems."""
        return next((guess for guess in self.guesses if guess.arm == arm and guess.source != ANSWER_ONLY), None)

    def ks(self, *arms: str) -> list[int]:
        """The k of interest: powers of 4, and the largest k these arms have."""
        k_max = min(len(self.curves[arm].mean_K) for arm in arms)
        return powers_of_four(k_max)

    def chain_ks(self, *arms: str) -> list[int]:
        """The k of interest of CoT-Pass@k: judged chains are of the first stage where there are two."""
        return powers_of_four(min(len(self.chains[arm].low_K) for arm in arms))


def powers_of_four(k_max: int) -> list[int]:
    """1, 4, 16 ... and k_max."""
    return [4**i for i in range(k_max.bit_length()) if 4**i < k_max] + [k_max]


def analyse(results: Results) -> Findings:
    """Compute all numbers of a checked results. Raises UserError as passk does (a band needs at least 2 problems)."""
    values = {arm.name: arm.pass_MK for arm in results.arms}
    curves = {name: passk.population_band(value_MK) for name, value_MK in values.items()}
    rates = [guess for _, _, guess in results.problems]
    guess_K = None
    if all(rate is not None for rate in rates):
        guess_K = passk.guess_curve(rates, max(len(curve.mean_K) for curve in curves.values()))
    comparisons = []
    for first, second, told_by in _pairs(results):
        first_MK, second_MK = _same_k(values[first], values[second])
        comparisons.append(Comparison(first, second, told_by, passk.paired_band(first_MK, second_MK)))
    others = [arm for arm in results.arms if arm.name != results.base]
    against_base = {arm.name: _against_base(results, values, arm.name) for arm in others}
    trained = [arm.name for arm in others if arm.group == "rl"]
    sizes = {(len(results.problems), int(arm.reach_M.min())) for arm in results.arms}
    return Findings(
        curves=curves,
        guess_K=guess_K,
        guesses=guesses(results, curves),
        guessable=guessable(results),
        chains={arm.name: judged for arm in results.arms if (judged := chains(arm))},
        comparisons=tuple(comparisons),
        against_base=against_base,
        powers={(c.first, c.second): power for c in comparisons if (power := _power(results, c, against_base))},
        headline=trained[-1] if trained else others[0].name,
        coverage=tuple(dict.fromkeys(line for M, n in sorted(sizes) for line in passk.coverage_caveats(M, n))),
    )


def _pairs(results: Results) -> list[tuple[str, str, str]]:
    """(first, second, told_by): base minus each arm, but distilled and control minus base; an arm minus its control."""
    pairs = []
    for arm in results.arms:
        if arm.name == results.base:
            continue
        further = arm.group in ("distilled", "control")
        pairs.append((arm.name, results.base, arm.name) if further else (results.base, arm.name, arm.name))
        if arm.name in results.control_of:
            pairs.append((arm.name, results.control_of[arm.name], arm.name))
    return pairs


def _power(results: Results, comparison: Comparison, against_base: dict[str, AgainstBase]) -> passk.Power | None:
    """What would resolve a pair; None where its ends are resolved, and for sampling in two stages."""
    first, second = results.arm(comparison.first), results.arm(comparison.second)
    if first.second or second.second:
        return None
    counts = (first.n_M, first.c_M, second.n_M, second.c_M)
    names = (first.label, second.label)
    beside = against_base.get(second.name)
    if first.name == results.base and beside and beside.crossover.verdict == "not resolved":
        return passk.power_of_crossover(*counts, names=names)
    for k in (len(comparison.difference.mean_K), 1):
        if comparison.leader(k) is None:
            return passk.power_at_k(*counts, k, names=names)
    return None


def _same_k(first_MK: np.ndarray, second_MK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    K = min(first_MK.shape[1], second_MK.shape[1])
    return first_MK[:, :K], second_MK[:, :K]


def _against_base(results: Results, values: dict[str, np.ndarray], name: str) -> AgainstBase:
    base, arm = results.arm(results.base), results.arm(name)
    k = min(results.delta_se_k, values[results.base].shape[1])
    delta_se_band = passk.paired_band(values[results.base][:, k - 1 : k], values[name][:, :1])
    support = None
    if np.array_equal(base.reach_M, arm.reach_M):
        support = passk.support(base.reach_M, base.solved_M.astype(int), arm.reach_M, arm.solved_M.astype(int))
    return AgainstBase(
        crossover=passk.crossover(*_same_k(values[results.base], values[name]), names=(base.label, arm.label)),
        support=support,
        delta_se=float(delta_se_band.mean_K[0]),
        delta_se_band=delta_se_band,
        delta_se_k=k,
    )


def histogram(n_M: np.ndarray, c_M: np.ndarray) -> np.ndarray:
    """[B] problems by share of right answers in BINS; exact at the edges, since ceil(10 c / n) is done in integers."""
    return np.bincount(-(-10 * np.asarray(c_M) // np.asarray(n_M)), minlength=len(BINS))


@dataclass(frozen=True)
class Shares:
    """Of an arm's samples: how many there are, and the shares cut short, without an answer, and without a verdict.

    None where that was not counted.
    """

    samples: int
    truncated: float | None
    no_answer: float | None
    ungraded: float | None


def shares(results: Results) -> dict[str, Shares]:
    """What became of the samples, by arm."""
    return {
        arm.name: Shares(
            total,
            *(
                None if count_M is None else int(count_M.sum()) / total
                for count_M in (arm.truncated_M, arm.no_answer_M, arm.ungraded_M)
            ),
        )
        for arm in results.arms
        for total in [int(arm.n_M.sum())]
    }
