"""Every number of the report, computed once from the counts: figures, tables and words only read what stands here.

Guessing and judged chains of thought are metrics.md items 6 and 7.
Shape suffixes: M problems; K runs over k = 1..n, n the fewest samples any problem has; B the 12 histogram bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlvr_limit import passk
from rlvr_limit.report.results import ArmResults, Results

BINS = ("0", *(f"({i / 10:g}, {(i + 1) / 10:g}]" for i in range(9)), "(0.9, 1)", "1")
RULES = "the rules of the task"
MARGINAL = "own answers to other problems"
ANSWER_ONLY = "answers without reasoning"

METRICS = {
    "loss": "loss",
    "reward": "mean reward",
    "length": "answer length, tokens",
    "entropy": "token entropy, nats",
    "kl": "KL(sampler \u2016 trainer), nats",
    "kl_sampler": "KL(sampler \u2016 trainer), nats",
    "grad_norm": "gradient norm",
    "truncated": "truncated answers, share",
    "no_answer": "answers without a result, share",
}
"""What is drawn of a training run, and its name."""


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
        return {1: self.first, -1: self.second, 0: None}[self.difference.sign(k)]


@dataclass(frozen=True)
class AgainstBase:
    """One arm beside the base: where the curves cross, who solves what, and Delta_SE."""

    crossover: passk.Crossover
    support: passk.Support | None  # None: n differs
    delta_se: float
    delta_se_band: passk.Band  # one column: over problems, the same ones drawn for both arms
    delta_se_k: int


@dataclass(frozen=True)
class GuessBaseline:
    """Guessing beside one arm: by which rates, pass@k of guessing, and the arm's pass@k corrected for it."""

    arm: str
    source: str
    guess_K: np.ndarray
    corrected_K: np.ndarray


@dataclass(frozen=True)
class GuessableProblems:
    """Problems that the answer-only arm gets right at a rate in (0, 5 %), and pass@k of every arm without them."""

    asked: str
    problems: tuple[str, ...]
    curves: dict[str, np.ndarray]  # empty where no problem is left
    bands: dict[str, passk.Band]  # empty where fewer than two are left


@dataclass(frozen=True)
class ChainReview:
    """An arm's right answers by what a person said of their chains, and CoT-Pass@k from below and from above."""

    right: int
    wrong: int
    unjudged: int
    low_K: np.ndarray
    high_K: np.ndarray


@dataclass(frozen=True)
class Findings:
    """What the counts say. Dicts are by the name of an arm where nothing else is said."""

    curves: dict[str, passk.Band]
    guess_K: np.ndarray | None  # None where the task gives no guess rate of its own
    guesses: tuple[GuessBaseline, ...]
    guessable: GuessableProblems | None
    chains: dict[str, ChainReview]
    judged: dict[str, tuple[int, passk.JudgedCurves]]  # (problems, CoT-Pass@k over them) by a judge model
    rare: dict[str, passk.RareWins]
    comparisons: tuple[Comparison, ...]
    against_base: dict[str, AgainstBase]
    powers: dict[tuple[str, str], passk.Power]  # what would resolve a pair: its crossover, or its sign at n or else 1
    algorithms: dict[str, passk.AlgorithmRuns]  # by its name
    headline: str  # the base where it is alone
    coverage: tuple[str, ...]

    def guess(self, arm: str) -> GuessBaseline | None:
        """The baseline that stands beside an arm's curve: the task's own, or the arm's answers to other problems."""
        return next((guess for guess in self.guesses if guess.arm == arm and guess.source != ANSWER_ONLY), None)

    def ks(self, *arms: str) -> list[int]:
        """The k of interest: powers of 4, and the largest k that these arms have, or else all arms."""
        return powers_of_four(min(len(self.curves[arm].mean_K) for arm in arms or self.curves))

    def chain_ks(self, *arms: str) -> list[int]:
        """The k of interest of CoT-Pass@k: judged chains are of the first stage where there are two."""
        return powers_of_four(min(len(self.chains[arm].low_K) for arm in arms or self.chains))

    @property
    def delta_se_k(self) -> int:
        return next(iter(self.against_base.values())).delta_se_k


def powers_of_four(k_max: int) -> list[int]:
    """1, 4, 16 ... and k_max."""
    return [4**i for i in range(k_max.bit_length()) if 4**i < k_max] + [k_max]


def analyse(results: Results) -> Findings:
    """Compute all numbers of checked results. Raises UserError as passk does (a band needs at least 2 problems)."""
    values = {arm.name: arm.pass_MK for arm in results.arms}
    curves = {name: passk.population_band(value_MK) for name, value_MK in values.items()}
    rates = [guess for _, _, guess in results.problems]
    known = all(rate is not None for rate in rates)
    comparisons = tuple(
        Comparison(first, second, told_by, passk.paired_band(*_common_k(values[first], values[second])))
        for first, second, told_by in _pairs(results)
    )
    others = [arm for arm in results.arms if arm.name != results.base]
    against_base = {arm.name: _against_base(results, values, arm) for arm in others}
    trained = [arm.name for arm in results.trained]
    sizes = {(len(results.problems), int(arm.reach_M.min())) for arm in results.arms}
    caveats = (line for M, n in sorted(sizes) for line in passk.coverage_caveats(M, n))
    return Findings(
        curves=curves,
        guess_K=passk.guess_curve(rates, max(len(curve.mean_K) for curve in curves.values())) if known else None,
        guesses=_guesses(results, curves, rates if known else None),
        guessable=_guessable(results),
        chains={arm.name: review for arm in results.arms if (review := _chain_review(arm))},
        judged={arm.name: judged for arm in results.arms if (judged := _judged(arm, results.judge))},
        rare={arm.name: _rare_wins(arm) for arm in results.arms},
        comparisons=comparisons,
        against_base=against_base,
        powers={(c.first, c.second): power for c in comparisons if (power := _power(results, c, against_base))},
        algorithms={name: _algorithm(results, values, name) for name in results.algorithms},
        headline=trained[-1] if trained else (others or results.arms)[0].name,
        # Of an arm alone no difference has a band.
        coverage=tuple(line for line in dict.fromkeys(caveats) if comparisons or "paired difference" not in line),
    )


def _algorithm(results: Results, values: dict[str, np.ndarray], name: str) -> passk.AlgorithmRuns:
    base, runs = results.base, results.algorithms[name]
    K = min(values[arm].shape[1] for arm in (base, *runs))
    run_SMK, names = np.stack([values[run][:, :K] for run in runs]), (results.label(base), name, results.label(runs[0]))
    return passk.algorithm(values[base][:, :K], run_SMK, names)


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


def _common_k(first_MK: np.ndarray, second_MK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    K = min(first_MK.shape[1], second_MK.shape[1])
    return first_MK[:, :K], second_MK[:, :K]


def _against_base(results: Results, values: dict[str, np.ndarray], arm: ArmResults) -> AgainstBase:
    base, base_MK = results.arm(results.base), values[results.base]
    k = min(results.delta_se_k, base_MK.shape[1])
    delta_se_band = passk.paired_band(base_MK[:, k - 1 : k], values[arm.name][:, :1])
    support = None
    if np.array_equal(base.reach_M, arm.reach_M):
        support = passk.support(base.reach_M, base.solved_M.astype(int), arm.reach_M, arm.solved_M.astype(int))
    crossover = passk.crossover(*_common_k(base_MK, values[arm.name]), names=(base.label, arm.label))
    return AgainstBase(crossover, support, float(delta_se_band.mean_K[0]), delta_se_band, k)


def _guesses(
    results: Results, curves: dict[str, passk.Band], own: list[float | None] | None
) -> tuple[GuessBaseline, ...]:
    """Per arm: the task's own rates or else the marginal-answer baseline, then the answer-only rates where asked for.

    None for an arm of which nothing is known. The answer-only arm is not held against itself.
    """
    baselines = []
    for arm in results.arms:
        rates = [(MARGINAL, arm.marginal_M) if own is None else (RULES, own)]
        if results.answer_only and arm.name != results.answer_only:
            asked = results.arm(results.answer_only)
            rates.append((ANSWER_ONLY, asked.c_M / asked.n_M))
        mean_K = curves[arm.name].mean_K
        for source, rate_M in rates:
            if rate_M is not None:
                guess_K = passk.guess_curve(rate_M, len(mean_K))
                baselines.append(GuessBaseline(arm.name, source, guess_K, passk.guess_corrected(mean_K, guess_K)))
    return tuple(baselines)


def _guessable(results: Results) -> GuessableProblems | None:
    """The filter of Yue et al. 2025, v5, Fig. 13; None where no arm was asked for the answer alone."""
    if not results.answer_only:
        return None
    asked = results.arm(results.answer_only)
    dropped_M = passk.rarely_right(asked.n_M, asked.c_M)
    values = {arm.name: arm.pass_MK[~dropped_M] for arm in results.arms if not dropped_M.all()}
    curves = {name: value_MK.mean(axis=0) for name, value_MK in values.items()}
    bands = {name: passk.population_band(value_MK) for name, value_MK in values.items() if len(value_MK) > 1}
    dropped = tuple(results.problems[i][0] for i in np.flatnonzero(dropped_M))
    return GuessableProblems(asked.name, dropped, curves, bands)


def _chain_review(arm: ArmResults) -> ChainReview | None:
    """The bounds that a person's judgments leave; None where no chain of the arm was judged."""
    if arm.chains_right_M is None or arm.chains_wrong_M is None:
        return None
    low_K, high_K = passk.chain_bounds(arm.n_M, arm.c_M, arm.chains_right_M, arm.chains_wrong_M)
    right, wrong = int(arm.chains_right_M.sum()), int(arm.chains_wrong_M.sum())
    return ChainReview(right, wrong, int(arm.c_M.sum()) - right - wrong, low_K, high_K)


def _judged(arm: ArmResults, counts: passk.JudgeCounts | None) -> tuple[int, passk.JudgedCurves] | None:
    """Of the problems of which a judge model was asked about all right answers; None where there are none."""
    if counts is None or arm.judge_yes_M is None or not (asked_M := arm.judge_yes_M >= 0).any():
        return None
    arrays = (x_M[asked_M] for x_M in (arm.n_M, arm.c_M, arm.judge_yes_M))
    return int(asked_M.sum()), passk.judged_curves(*arrays, counts)


def _rare_wins(arm: ArmResults) -> passk.RareWins:
    none_M = np.zeros_like(arm.c_M)
    judged = (none_M if said_M is None else said_M for said_M in (arm.chains_right_M, arm.chains_wrong_M))
    return passk.rare_wins(arm.n_M, arm.c_M, *judged)


def histogram(n_M: np.ndarray, c_M: np.ndarray) -> np.ndarray:
    """[B] problems by share of right answers in BINS (metrics.md item 20): ceil(10 c / n) in integers, and c = n."""
    n_M, c_M = np.asarray(n_M), np.asarray(c_M)
    return np.bincount(np.where(c_M == n_M, 11, -(-10 * c_M // n_M)), minlength=len(BINS))


def share_of_samples(arm: ArmResults, count_M: np.ndarray | None) -> float | None:
    """A count as a share of all of an arm's samples; None where nobody counted."""
    return None if count_M is None else int(count_M.sum()) / int(arm.n_M.sum())


def share_and_wilson(arm: ArmResults, count_M: np.ndarray) -> tuple[float, float, float]:
    """A count as a share of an arm's samples, one a problem, with its 95 % interval."""
    count, n = int(count_M.sum()), int(arm.n_M.sum())
    return count / n, *passk.wilson(count, n)


def fewest_samples(arms: tuple[ArmResults, ...], samples: Callable[[ArmResults], np.ndarray] = lambda a: a.n_M) -> int:
    return min(int(samples(arm).min()) for arm in arms)


def condition_fields(results: Results) -> dict[str, bool]:
    """All recorded conditions in the order in which they first appear, and whether the arms differ in them."""
    fields = dict.fromkeys(field for arm in results.arms for field in arm.conditions)
    return {field: len({arm.conditions.get(field) for arm in results.arms}) > 1 for field in fields}


def saved_steps(results: Results) -> dict[str, list[tuple[int, ArmResults]]]:
    """(step, arm) in order of steps, by training run: "grpo-40" is step 40 of "grpo". Only runs of two or more."""
    runs: dict[str, list[tuple[int, ArmResults]]] = {}
    for arm in results.arms:
        run, _, step = arm.name.rpartition("-")
        if run and step.isascii() and step.isdigit() and arm.name != results.base:
            runs.setdefault(run, []).append((int(step), arm))
    return {run: sorted(saved, key=lambda pair: pair[0]) for run, saved in runs.items() if len(saved) > 1}


def same_weights(results: Results) -> list[list[ArmResults]]:
    """Arms that are alike but for the temperature, weights included, and whose entropy is known; by entropy."""
    groups: dict[tuple[object, ...], list[ArmResults]] = {}
    for arm in results.arms:
        if arm.weights_sha256 and arm.entropy is not None:
            rest = sorted(pair for pair in arm.conditions.items() if pair[0] != "temperature")
            groups.setdefault((arm.weights_sha256, *rest), []).append(arm)
    return [
        sorted(group, key=lambda arm: arm.entropy or 0.0)
        for group in groups.values()
        if len({arm.conditions.get("temperature") for arm in group}) > 1
    ]


def training_panels(results: Results) -> list[tuple[str, list[str]]]:
    """(metric, runs drawn together): runs share a panel if their last steps lie within a factor of two."""
    panels: list[tuple[str, list[str]]] = []
    last = {run: max((row["step"] for row in rows), default=0) for run, rows in results.training.items()}
    for metric in METRICS:
        groups: list[list[str]] = []
        for run in sorted(results.training, key=lambda run: -last[run]):
            if sum(is_number(row.get(metric)) for row in results.training[run]) < 2:
                continue
            if groups and last[run] * 2 >= last[groups[-1][0]]:
                groups[-1].append(run)
            else:
                groups.append([run])
        panels += [(metric, group) for group in groups]
    return panels


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and math.isfinite(value)
