"""What a report is drawn from: plain frozen records that the caller fills, and one check of them.

Shape suffix: M problems; every *_M array follows the order of Results.problems.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlvr_limit import passk
from rlvr_limit.passk.entropy import Sharpened
from rlvr_limit.types import UserError

Answers = tuple[tuple[tuple[str, int, int], ...], tuple[int, int]]
"""A problem's most frequent answers, (text, samples, 1 if right else 0); of the rest (how many answers, samples)."""


@dataclass(frozen=True)
class SecondOpinion:
    """Samples by whether the grader that counts and a second one take them for right (metrics.md 22)."""

    grader: str  # the second one's version
    both: int
    only_first: int
    only_second: int
    neither: int
    pass_1: float  # by the second one

    @property
    def agreement(self) -> float:
        """Share of samples of which both say the same."""
        same = self.both + self.neither
        return same / (same + self.only_first + self.only_second)


@dataclass(frozen=True)
class ArmResults:
    """One model under one set of sampling conditions, reduced to counts per problem.

    With adaptive sampling everything but `second` is of the first stage alone.
    """

    name: str
    label: str
    group: str  # "base", "rl", "distilled", "control" or the caller's own: chooses colour and comparisons
    n_M: np.ndarray  # samples, integers as the five below
    c_M: np.ndarray  # right ones
    truncated_M: np.ndarray | None = None  # ended at the length limit; None: not counted, here and below
    no_answer_M: np.ndarray | None = None  # held nothing to grade
    uses_given_M: np.ndarray | None = None  # used what the problem gives, all of it and nothing else
    ungraded_M: np.ndarray | None = None  # without a verdict: the grader ran out of time, or could not read it
    unreadable_M: np.ndarray | None = None  # those of them that it could not read
    mean_tokens: float | None = None  # of an answer
    duplicate_rate: float | None = None  # in [0, 1]
    entropy: float | None = None  # of the distribution that tokens are drawn from, mean over generated tokens, nats
    entropy_error: float | None = None  # its standard error, nats
    conditions: dict[str, str] = field(default_factory=dict)
    weights_sha256: str = ""
    marginal_M: np.ndarray | None = None  # chance of a right answer among answers to others: passk.marginal_rates
    answers_M: tuple[Answers, ...] | None = None
    votes_M: tuple[passk.Votes, ...] | None = None  # samples by answer
    tokens_M: np.ndarray | None = None  # mean length of an answer
    drawn_M: np.ndarray | None = None  # tokens drawn for one, a mean, where others were thrown away; None: tokens_M
    chains_right_M: np.ndarray | None = None  # right answers whose chain a person judged right
    chains_wrong_M: np.ndarray | None = None  # and wrong
    judge_yes_M: np.ndarray | None = None  # that a judge model took for right; -1: not asked about all of a problem's
    base_tests_M: np.ndarray | None = None  # right on base tests, of a benchmark that adds its own to another's
    asked_first: float = 0.0  # share of each question that was asked, of an audit; 0: all
    completed_M: np.ndarray | None = None  # answers of an audit that begin with the rest of the question
    second: passk.SecondStageCounts | None = None  # lengthens pass@k, and counts for which problems are solved
    second_opinion: SecondOpinion | None = None  # None: there is no second grader, or it has not seen all samples
    own_opinion: SecondOpinion | None = None  # of those who drew the samples, where that was others and they judged
    sharpened: tuple[Sharpened, ...] = ()  # where nothing was cut off the distribution that answers are drawn from

    @property
    def pass_MK(self) -> np.ndarray:
        """pass@k of each problem for every k: [M, K], from both stages where there are two."""
        if self.second is None:
            return passk.pass_curves(self.n_M, self.c_M)
        return passk.two_stage_curves(int(self.n_M[0]), self.c_M, self.second.n_M, self.second.c_M, self.second.n)

    @property
    def spent_M(self) -> np.ndarray | None:
        """Tokens that an answer costs, mean of each problem: [M]; None where nobody counted them."""
        return self.tokens_M if self.drawn_M is None else self.drawn_M

    @property
    def reach_M(self) -> np.ndarray:
        """Samples in which a problem was solved or not: [M]; those of both stages."""
        return np.full(len(self.n_M), self.second.n) if self.second else self.n_M

    @property
    def solved_M(self) -> np.ndarray:
        """Whether a problem has a right sample: [M]."""
        return (self.c_M > 0) | (self.second.c_M > 0) if self.second else self.c_M > 0


@dataclass(frozen=True)
class Example:
    """One stored sample to show."""

    problem_id: str
    arm: str
    index: int
    text: str
    correct: bool
    stop: str
    extracted: str = ""
    logp: float | None = None  # summed over its tokens, under the sampling distribution, nats
    status: str = "graded"  # what became of grading: graded, no_answer, timeout or error


@dataclass(frozen=True)
class ArmProgress:
    """How far an arm is with the problems of a page."""

    label: str
    wanted: int  # samples
    drawn: int  # that are on record
    graded: int  # of these, that have a verdict: only they are counted
    fewest: int  # of a problem
    most: int
    without: int  # problems without one

    @property
    def is_shown(self) -> bool:
        """Whether there is a curve: pass@1 at least."""
        return not self.without


@dataclass(frozen=True)
class Interim:
    """What a page lacks that is written before a study is complete."""

    title: str
    purpose: str
    problems: int
    arms: tuple[ArmProgress, ...]
    written: str  # when
    refresh: int = 0  # seconds after which a browser is to load the page again; 0: never


@dataclass(frozen=True)
class Results:
    """A whole comparison of arms on the same problems."""

    title: str
    purpose: str
    caveat: str
    command: str
    problems: tuple[tuple[str, str, float | None], ...]  # (id, question, guess rate if known)
    arms: tuple[ArmResults, ...]
    base: str  # names an arm, as do control_of and answer_only
    control_of: dict[str, str] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    images: dict[str, tuple[str, ...]] = field(default_factory=dict)  # by problem, as small data: URLs
    perplexity: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)  # (model, text by): PPL by answer
    training: dict[str, Sequence[dict[str, Any]]] = field(default_factory=dict)  # rows by run, each with a "step"
    versions: dict[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)  # seconds by stage
    seed: int | None = None
    delta_se_k: int = 256  # k of Delta_SE, as in Yue et al. 2025; n bounds it
    notes: tuple[str, ...] = ()
    study: str = ""  # the config's name, and the benchmark's: what the paper's numbers are found by
    benchmark: str = ""
    answer_only: str = ""  # the arm that was asked for the answer without reasoning: a control for guessing
    judge: passk.JudgeCounts | None = None  # the judge model on chains that a person has judged; None: there is none
    exact_chains: bool = False  # the task's verifier has judged every step; else a person some chains
    algorithms: dict[str, tuple[str, ...]] = field(default_factory=dict)  # arms that are runs of one, two or more
    interim: Interim | None = None  # None: nothing is lacking

    def arm(self, name: str) -> ArmResults:
        """The arm of that name; raises KeyError if there is none."""
        return {arm.name: arm for arm in self.arms}[name]

    def label(self, name: str) -> str:
        """An arm's label, or the name itself where it is no arm (such as a ground truth)."""
        return next((arm.label for arm in self.arms if arm.name == name), name)

    @property
    def trained(self) -> list[ArmResults]:
        """Arms that were trained by reinforcement; of an algorithm's runs the first."""
        later = {name for runs in self.algorithms.values() for name in runs[1:]}
        return [arm for arm in self.arms if arm.group == "rl" and arm.name not in {self.base, *later}]


def is_of_run(arm: str, run: str) -> bool:
    """Whether an arm bears a training run's name, alone or with a step: "grpo-40" is of "grpo", "grpo_kl-40" is not."""
    return run in (arm, arm.rpartition("-")[0])


def check(results: Results) -> None:
    """Raise UserError with one line where the records contradict themselves."""
    wrong = next(_contradictions(results), None)
    if wrong:
        raise UserError(wrong)


def _contradictions(results: Results) -> Iterator[str]:
    names, ids = [arm.name for arm in results.arms], [problem_id for problem_id, _, _ in results.problems]
    for what, values in (("problem id", ids), ("arm", names), ("arm label", [arm.label for arm in results.arms])):
        for name in sorted({name for name in values if values.count(name) > 1}):
            yield f"study: {what} {name!r} occurs more than once; names must be unique"
    if not ids:
        yield "results.problems: empty; a report needs at least one problem"
    for problem_id, _, guess in results.problems:
        if guess is not None and not 0 <= guess <= 1:
            yield f"problem {problem_id}: guess rate {guess} is not in [0, 1]"
    asked = (results.answer_only,) if results.answer_only else ()
    runs = [name for names in results.algorithms.values() for name in names]
    for name in (results.base, *results.control_of, *results.control_of.values(), *asked, *runs):
        if name not in names:
            yield f"study names the arm {name!r}, but the arms are {', '.join(names)}"
    for name, control in results.control_of.items():
        if name == control or results.base in (name, control):
            yield f"results.control_of: {name!r} with {control!r}; name two different arms, neither the base"
    for arm in results.arms:
        yield from (f"arm {arm.name}{wrong}" for wrong in _wrong_counts(arm, ids))
    if len({arm.marginal_M is None for arm in results.arms}) > 1:
        yield "results.arms: some have marginal_M and some do not; a baseline is for all of them"
    for example in results.examples:
        if example.arm not in names or example.problem_id not in ids:
            yield f"example {example.index}: no arm {example.arm!r} or no problem {example.problem_id!r}"
    for (model, text), values in results.perplexity.items():
        if not np.all(np.isfinite(values) & (np.asarray(values) > 0)):
            yield f"perplexity ({model}, {text}): not finite and above 0; PPL is exp of a finite mean"
    for run, rows in results.training.items():
        if any("step" not in row for row in rows):
            yield f"training run {run}: a row has no 'step'"


def _wrong_counts(arm: ArmResults, ids: Sequence[str]) -> Iterator[str]:
    """What is wrong with an arm's columns, from behind its name on."""
    counted = "truncated_M no_answer_M uses_given_M ungraded_M unreadable_M base_tests_M completed_M".split()
    for column in ("n_M", "c_M", *counted):
        values = np.asarray(getattr(arm, column))
        if getattr(arm, column) is None and column not in ("n_M", "c_M"):
            continue
        if values.shape != (len(ids),) or not np.issubdtype(values.dtype, np.integer):
            yield f": {column} is {values.dtype} of shape {values.shape}, should be integers of shape ({len(ids)},)"
        for i in np.flatnonzero((values < 0) | (values > np.asarray(arm.n_M))):
            yield f", problem {ids[i]}: {column} is {values[i]} of n = {arm.n_M[i]} samples"
    for column in ("answers_M", "votes_M", "tokens_M", "drawn_M", "marginal_M"):
        values = getattr(arm, column)
        if values is not None and len(values) != len(ids):
            yield f": {column} has {len(values)} entries, should be {len(ids)}"
    if (arm.chains_right_M is None) != (arm.chains_wrong_M is None):
        yield ": chains_right_M without chains_wrong_M, or the reverse; give both or neither"
    if np.min(arm.n_M) < 1:
        yield f", problem {ids[int(np.argmin(arm.n_M))]}: n is 0; every problem needs a sample"
    for name in ("mean_tokens", "duplicate_rate", "entropy", "entropy_error"):
        value = getattr(arm, name)
        if value is not None and not math.isfinite(value):
            yield f": {name} is {value}, should be finite, or None where it is not known"
    if arm.second is None:
        return
    if len(set(np.asarray(arm.n_M).tolist())) > 1:
        yield ": n_M differs between problems, but a second stage follows one of equal n"
    for i, problem_id in enumerate(ids):
        drawn, right = arm.second.n_M[i], arm.second.c_M[i]
        rest = 0 if arm.c_M[i] else arm.second.n - int(arm.n_M[i])
        if drawn != rest or not 0 <= right <= drawn:
            yield f", problem {problem_id}: {right} of {drawn} in the second stage, should be of {rest}"
