"""What a step of reinforcement learns from: fresh prompts, answers drawn from the policy, and their rewards.

An answer whose grader ran out of time or failed has no verdict: it is neither right nor wrong, earns nothing, and is
left out of the group's mean and of the loss. A step's row counts such answers by name. Truncated answers have verdicts;
what becomes of them is the algorithm's choice (overlong).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from rlvr_limit import rl
from rlvr_limit.engine.rollout import Graded
from rlvr_limit.records.storage import Place
from rlvr_limit.rl.reward_functions import Reward, call_reward, named_reward
from rlvr_limit.settings import Reinforced
from rlvr_limit.training.exchange import AnswerSource
from rlvr_limit.types import Problem, Sample, SamplingParams, Status, Stop, UserError, not_allowed

UNJUDGED = {Status.TIMEOUT: "timeouts", Status.ERROR: "errors"}
"""What says nothing of an answer, and the names under which a step's row counts it."""


@dataclass(frozen=True)
class RolloutSource:
    """What the answers of a run are drawn from, and what they earn."""

    arm: str  # part of the random streams
    recipe: Reinforced
    algorithm: rl.Algorithm
    problems: Sequence[Problem]
    answers: AnswerSource
    sampling: Callable[[Problem], SamplingParams]  # from the policy itself: temperature 1, nothing cut off
    max_tokens: int
    folder: Place  # train/<arm> of the run
    reward: Reward | None = None  # None: the rule of rl/reward_functions.py that the recipe names

    @property
    def where(self) -> str:
        """The recipe's dotted path."""
        return f"config.arms.{self.arm}.rl"


@dataclass(frozen=True)
class AnswerGroup:
    """Answers to one prompt."""

    problem: Problem
    samples: tuple[Sample, ...]
    status: tuple[Status, ...]
    earned_G: np.ndarray  # rewards; 0 without a verdict
    reward_G: np.ndarray  # the same with what overlong answers lose

    @property
    def judged_G(self) -> np.ndarray:
        """Which answers have a verdict."""
        return np.array([status not in UNJUDGED for status in self.status])

    @property
    def is_mixed(self) -> bool:
        """Whether some answers earned more than others."""
        earned = self.earned_G[self.judged_G]
        return bool(earned.size and np.ptp(earned) > 0)


@dataclass(frozen=True)
class Rollout:
    """The answers of one step: recipe.prompts groups, P in number."""

    groups: tuple[AnswerGroup, ...]
    learn_P: np.ndarray  # the groups that are learnt from
    judged_PG: np.ndarray  # the answers with a verdict, and something to be compared with
    row: dict[str, float]  # metrics of all answers that were drawn, those left out included
    greedy_P: np.ndarray | None = None  # rewards of greedy answers, if asked for


def check_data(where: str, prompts: int, problems: Sequence[Problem], max_prompt_len: int) -> None:
    """Raises UserError where the training problems are too few, or a prompt is too long for the engine."""
    if len(problems) < prompts:
        raise not_allowed(f"{where}.prompts", prompts, f"at most {len(problems)}, the number of training problems")
    for problem in problems:
        if len(problem.prompt_ids) > max_prompt_len:
            length, allowed = len(problem.prompt_ids), f"at most config.engine.max_prompt_len = {max_prompt_len}"
            raise not_allowed(f"training problem {problem.id}: the length of its prompt", length, allowed)


def draw(source: RolloutSource, number: int) -> Rollout:
    """The answers of step `number`, under the weights the engine holds now.

    With more than one round, fresh prompts are drawn until recipe.prompts groups are mixed (Yu et al. 2025, arXiv
    2503.14476, sec. 3.2); where the rounds end before, the others fill the batch and are not learnt from. UserError
    where not one group is mixed. Random streams derive from arm, step and round.
    """
    recipe, rounds, stream = source.recipe, source.algorithm.rounds, f"train/{source.arm}/{number}"
    rng = random.Random(f"{source.answers.seed}/{source.arm}/{number}")
    chosen = rng.sample(source.problems, min(rounds * recipe.prompts, len(source.problems)))
    groups: list[AnswerGroup] = []
    used = 0
    for start in range(0, len(chosen), recipe.prompts):
        problems = chosen[start : start + recipe.prompts]
        groups += _groups(source, problems, recipe.answers, source.sampling, stream + (f"/{used}" if used else ""))
        used += 1
        if rounds == 1 or sum(group.is_mixed for group in groups) >= recipe.prompts:
            break
    kept = groups
    if rounds > 1:
        kept = sorted(groups, key=lambda group: not group.is_mixed)[: recipe.prompts]
        if not kept[0].is_mixed:
            raise UserError(
                f"{source.where}.rounds: step {number} drew {len(groups)} prompts in {used} rounds, and answers to one "
                "prompt always earned the same: take easier or harder problems, or another start"
            )
    learn_P = np.array([rounds == 1 or group.is_mixed for group in kept])
    judged_PG = judged_answers(source, number, kept)
    row = metrics_of(groups) | {"rounds": used, "groups": int(learn_P.sum())}
    greedy_P = None
    if source.algorithm.advantage == "greedy":
        best = _groups(
            source,
            [group.problem for group in kept],
            1,
            lambda problem: replace(source.sampling(problem), temperature=0.0),
            f"{stream}/greedy",
        )
        greedy_P = np.array([group.reward_G[0] for group in best])
        has_P = np.array([group.judged_G[0] for group in best])
        judged_PG &= has_P[:, None]
        row |= {"samples": row["samples"] + len(best), "greedy": float(greedy_P[has_P].mean()) if has_P.any() else 0.0}
    return Rollout(tuple(kept), learn_P, judged_PG, row, greedy_P)


def _groups(
    source: RolloutSource,
    problems: list[Problem],
    n: int,
    sampling: Callable[[Problem], SamplingParams],
    stream: str,
) -> list[AnswerGroup]:
    drawn = source.answers.answers(problems, n, sampling, stream)
    by_index = {(graded.sample.problem_id, graded.sample.index): graded for graded in drawn}
    return rewarded_groups(source, [(p, [by_index[p.id, i] for i in range(n)]) for p in problems])


def rewarded_groups(source: RolloutSource, groups: list[tuple[Problem, list[Graded]]]) -> list[AnswerGroup]:
    """All answers to each prompt with their rewards."""
    rewards = _rewards(source, groups)
    return [_group(source, *group, earned) for group, earned in zip(groups, rewards, strict=True)]


def _group(source: RolloutSource, problem: Problem, answers: list[Graded], earned: list[float]) -> AnswerGroup:
    samples, status = tuple(g.sample for g in answers), (Status.GRADED,) * len(answers)
    if source.reward is None:
        status = tuple(g.verdict.status for g in answers)
    earned_G = reward_G = np.array(earned, np.float64)
    if source.algorithm.overlong == "shape":
        length_G = np.array([len(s.tokens) for s in samples])
        cut_G = np.array([s.stop == Stop.LENGTH for s in samples])
        reward_G = earned_G + rl.overlong_penalty(length_G, cut_G, source.max_tokens, source.recipe.overlong_cache)
    return AnswerGroup(problem, samples, status, earned_G, reward_G)


def _rewards(source: RolloutSource, groups: list[tuple[Problem, list[Graded]]]) -> list[list[float]]:
    """What the answers of each group earn. A function of one's own, which may not say the same twice, is asked of each
    group on one host."""
    reward, hosts = source.reward, source.answers.hosts
    if reward is None:
        earns = partial(named_reward, source.recipe.reward, f"{source.answers.seed}/{source.arm}")
        return [
            [0.0 if g.verdict.status in UNJUDGED else earns(problem, g.sample, g.verdict) for g in group]
            for problem, group in groups
        ]
    asked = groups[hosts.index :: hosts.count]
    own = [call_reward(reward, f"{source.where}.reward", problem, [g.text for g in group]) for problem, group in asked]
    said = [json.loads(text) for text in hosts.exchange(json.dumps(own))]
    return [said[i % hosts.count][i // hosts.count] for i in range(len(groups))]


def judged_answers(source: RolloutSource, number: int, groups: Sequence[AnswerGroup]) -> np.ndarray:
    """Which answers of a step have verdicts, [P, G]. UserError where none has."""
    judged_PG = np.stack([group.judged_G for group in groups])
    if not judged_PG.any():
        raise UserError(
            f"{source.where}: step {number} has no verdict on any of {judged_PG.size} answers (timeouts or errors of "
            "the grader): raise config.grading.seconds, or take another grader"
        )
    return judged_PG


def metrics_of(groups: Sequence[AnswerGroup]) -> dict[str, float]:
    """What a step's row says of its answers."""
    samples = [sample for group in groups for sample in group.samples]
    judged = np.stack([group.judged_G for group in groups])
    earned = np.stack([group.earned_G for group in groups])[judged]
    statuses = [status for group in groups for status in group.status]
    return {
        "reward": float(earned.mean()) if earned.size else 0.0,
        "mixed_groups": float(np.mean([group.is_mixed for group in groups])),
        "length": float(np.mean([len(s.tokens) for s in samples])),
        "truncated": float(np.mean([s.stop == Stop.LENGTH for s in samples])),
        "samples": len(samples),
        **{name: statuses.count(status) for status, name in UNJUDGED.items()},
    }
