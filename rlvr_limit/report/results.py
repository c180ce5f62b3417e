"""What a report is drawn from: plain frozen records that the caller fills, and one check of them.

Shape suffix: M problems; every *_M array follows the order of Results.problems.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlvr_limit import passk
from rlvr_limit.types import CacheError, UserError

Answers = tuple[tuple[tuple[str, int, int], ...], tuple[int, int]]


@dataclass(frozen=True)
class ArmResults:
    """One model under one set of sampling conditions, reduced to counts per problem.

    group is "base", "rl", "distilled", "control" or a name of the caller's own; it chooses colour and comparisons.
    n_M samples drawn, c_M right, truncated_M ended at the length limit, no_answer_M had nothing to grade, ungraded_M
    got no verdict (the grader ran out of time or failed): integers; the last three are None where nobody counted.
    mean_tokens per answer; duplicate_rate in [0, 1]; entropy is that of the distribution tokens are drawn from (after
    temperature and truncation), a mean over generated tokens, entropy_error its standard error; nats.
    marginal_M: the chance of a right answer among this arm's answers to other problems (passk.marginal_rates).
    answers_M: of each problem the answers read most often, (text, samples, 1 if right else 0), and over those that are
    not listed (how many answers, how many samples).
    votes_M: the samples of each problem by answer; tokens_M: the mean length of its answers.
    chains_right_M and chains_wrong_M: right answers whose chain a person judged right or wrong; None: nobody did.
    second: where sampling was adaptive, the rest of it. It lengthens pass@k and tells which problems are solved; all
    else, and every other field, is of the first stage alone.
    cache_error: where the sampler's cache was in 8 bits, and answers have been scored.
    """

    name: str
    label: str
    group: str
    n_M: np.ndarray
    c_M: np.ndarray
    truncated_M: np.ndarray | None = None
    no_answer_M: np.ndarray | None = None
    ungraded_M: np.ndarray | None = None
    mean_tokens: float | None = None
    duplicate_rate: float | None = None
    entropy: float | None = None
    entropy_error: float | None = None
    conditions: dict[str, str] = field(default_factory=dict)
    weights_sha256: str = ""
    marginal_M: np.ndarray | None = None
    answers_M: tuple[Answers, ...] | None = None
    votes_M: tuple[passk.Votes, ...] | None = None
    tokens_M: np.ndarray | None = None
    chains_right_M: np.ndarray | None = None
    chains_wrong_M: np.ndarray | None = None
    second: passk.SecondStageCounts | None = None
    cache_error: CacheError | None = None

    @property
    def pass_MK(self) -> np.ndarray:
        """pass@k of each problem for every k: [M, K], from both stages where there are two."""
        if self.second is None:
            return passk.pass_curves(self.n_M, self.c_M)
        return passk.two_stage_curves(int(self.n_M[0]), self.c_M, self.second.n_M, self.second.c_M, self.second.n)

    @property
    def reach_M(self) -> np.ndarray:
        """Samples in which a problem has been solved or not: [M]; those of both stages."""
        return np.full(len(self.n_M), self.second.n) if self.second else self.n_M

    @property
    def solved_M(self) -> np.ndarray:
        """Whether a problem has a right sample: [M]."""
        return (self.c_M > 0) | (self.second.c_M > 0) if self.second else self.c_M > 0


@dataclass(frozen=True)
class Example:
    """One stored sample to show. logp is the sum over its tokens under the sampling distribution, in nats.

    status is what became of grading: graded, no_answer, timeout or error.
    """

    problem_id: str
    arm: str
    index: int
    text: str
    correct: bool
    stop: str
    extracted: str = ""
    logp: float | None = None
    status: str = "graded"


@dataclass(frozen=True)
class Results:
    """A whole comparison. problems holds (id, question, guess rate or None); base and control_of name arms.

    perplexity maps (model, whose text) to one PPL per scored response (METRICS.md item 14).
    training maps a run's name to its rows, each with "step" and whatever numbers the run recorded.
    timings are seconds by stage. delta_se_k is the k of Delta_SE, 256 in the paper; n bounds it.
    answer_only names the arm that was asked for the answer without reasoning, where there is one: a guess control.
    """

    title: str
    purpose: str
    caveat: str
    command: str
    problems: tuple[tuple[str, str, float | None], ...]
    arms: tuple[ArmResults, ...]
    base: str
    control_of: dict[str, str] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    perplexity: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    training: dict[str, Sequence[dict[str, Any]]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    seed: int | None = None
    delta_se_k: int = 256
    notes: tuple[str, ...] = ()
    answer_only: str = ""

    def arm(self, name: str) -> ArmResults:
        """The arm of that name; raises KeyError if there is none."""
        return {arm.name: arm for arm in self.arms}[name]

    def label(self, name: str) -> str:
        """An arm's label, or the name itself where it is no arm (such as a ground truth)."""
        return next((arm.label for arm in self.arms if arm.name == name), name)


def is_of_run(arm: str, run: str) -> bool:
    """Whether an arm bears a training run's name, alone or with a step: "grpo-40" is of "grpo", "grpo_kl-40" is not."""
    return run in (arm, arm.rpartition("-")[0])


def check(results: Results) -> None:
    """Raise UserError with one line where the records contradict themselves."""
    names = [arm.name for arm in results.arms]
    ids = [problem_id for problem_id, _, _ in results.problems]
    _no_doubles("problem id", ids)
    _no_doubles("arm", names)
    _no_doubles("arm label", [arm.label for arm in results.arms])
    if not ids:
        raise UserError("results.problems: empty; a report needs at least one problem")
    for problem_id, _, guess in results.problems:
        if guess is not None and not 0 <= guess <= 1:
            raise UserError(f"problem {problem_id}: guess rate {guess}, should lie in [0, 1]")
    if len(names) < 2:
        raise UserError(f"results.arms: {len(names)} arm(s); a comparison needs the base and at least one other")
    asked = (results.answer_only,) if results.answer_only else ()
    for name in (results.base, *results.control_of, *results.control_of.values(), *asked):
        if name not in names:
            raise UserError(f"study names the arm {name!r}, but the arms are {', '.join(names)}")
    for name, control in results.control_of.items():
        if name == control or results.base in (name, control):
            raise UserError(f"results.control_of: {name!r} with {control!r}; name two different arms, neither the base")
    for arm in results.arms:
        _check_counts(arm, ids)
    if len({arm.marginal_M is None for arm in results.arms}) > 1:
        raise UserError("results.arms: some have marginal_M and some do not; a baseline is for all of them")
    for example in results.examples:
        if example.arm not in names or example.problem_id not in ids:
            raise UserError(f"example {example.index}: no arm {example.arm!r} or no problem {example.problem_id!r}")
    for (model, text), values in results.perplexity.items():
        if not np.all(np.isfinite(values) & (np.asarray(values) > 0)):
            raise UserError(f"perplexity ({model}, {text}): not finite and above 0; PPL is exp of a finite mean")
    for run, rows in results.training.items():
        if any("step" not in row for row in rows):
            raise UserError(f"training run {run}: a row has no 'step'")


def _no_doubles(what: str, names: Sequence[str]) -> None:
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise UserError(f"study: {what} {doubles[0]!r} occurs more than once; names must be unique")


def _check_counts(arm: ArmResults, ids: Sequence[str]) -> None:
    counted = [name for name in ("truncated_M", "no_answer_M", "ungraded_M") if getattr(arm, name) is not None]
    for column in ("n_M", "c_M", *counted):
        values = np.asarray(getattr(arm, column))
        if values.shape != (len(ids),) or not np.issubdtype(values.dtype, np.integer):
            found = f"{values.dtype} of shape {values.shape}"
            raise UserError(f"arm {arm.name}: {column} is {found}, should be integers of shape ({len(ids)},)")
        for i in np.flatnonzero((values < 0) | (values > np.asarray(arm.n_M)))[:1]:
            raise UserError(f"arm {arm.name}, problem {ids[i]}: {column} is {values[i]} of n = {arm.n_M[i]} samples")
    for column in ("answers_M", "votes_M", "tokens_M"):
        values = getattr(arm, column)
        if values is not None and len(values) != len(ids):
            raise UserError(f"arm {arm.name}: {column} has {len(values)} entries, should be {len(ids)}")
    if arm.second is not None:
        _check_second(arm, arm.second, ids)
    if arm.marginal_M is not None and np.shape(arm.marginal_M) != (len(ids),):
        raise UserError(f"arm {arm.name}: marginal_M has shape {np.shape(arm.marginal_M)}, should be ({len(ids)},)")
    if (arm.chains_right_M is None) != (arm.chains_wrong_M is None):
        raise UserError(f"arm {arm.name}: chains_right_M without chains_wrong_M, or the reverse; give both or neither")
    if np.min(arm.n_M) < 1:
        raise UserError(f"arm {arm.name}, problem {ids[int(np.argmin(arm.n_M))]}: n is 0; every problem needs a sample")
    for name in ("mean_tokens", "duplicate_rate", "entropy", "entropy_error"):
        value = getattr(arm, name)
        if value is not None and not math.isfinite(value):
            raise UserError(f"arm {arm.name}: {name} is {value}, should be finite, or None where it is not known")


def _check_second(arm: ArmResults, second: passk.SecondStageCounts, ids: Sequence[str]) -> None:
    if len(set(np.asarray(arm.n_M).tolist())) > 1:
        raise UserError(f"arm {arm.name}: n_M differs between problems, but a second stage follows one of equal n")
    for i, problem_id in enumerate(ids):
        rest = 0 if arm.c_M[i] else second.n - int(arm.n_M[i])
        if second.n_M[i] != rest or not 0 <= second.c_M[i] <= second.n_M[i]:
            raise UserError(
                f"arm {arm.name}, problem {problem_id}: {second.c_M[i]} of {second.n_M[i]} in the second stage, should "
                f"be of {rest}"
            )
