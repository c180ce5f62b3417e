"""What a step of reinforcement learns from: fresh prompts, answers drawn from the policy, and their rewards.

An answer whose grader ran out of time or failed has no verdict: it counts as neither right nor wrong, earns nothing,
and is left out of what others are held against and of the loss. The steps' rows count such answers by name. Truncated
answers have verdicts; what becomes of them is the algorithm's choice (overlong).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.rollout import Graded, graded_beside, rollout
from rlvr_limit.grading.pool.pool import GradingPool
from rlvr_limit.rl import overlong_penalty
from rlvr_limit.rl.reward_functions import Reward, called
from rlvr_limit.settings import Reinforced
from rlvr_limit.study import recipes
from rlvr_limit.study.prepared import Study
from rlvr_limit.training.exchange import drawn_by_all
from rlvr_limit.types import Problem, Sample, SamplingParams, Status, Stop, UserError

UNJUDGED = {Status.TIMEOUT: "timeouts", Status.ERROR: "errors"}
"""What says nothing of an answer, and the names under which a step's row counts it."""


@dataclass(frozen=True)
class Source:
    """Where a run's answers come from; reward None is the verdict's, by pool where there is one."""

    study: Study
    arm: str
    recipe: Reinforced
    engine: Engine
    reward: Reward | None
    pool: GradingPool | None = None

    @property
    def where(self) -> str:
        """The recipe's dotted path."""
        return f"config.arms.{self.arm}.rl"


@dataclass(frozen=True)
class Group:
    """Answers to one prompt. earned_G are their rewards (0 without a verdict), reward_G the same with what overlong
    answers lose."""

    problem: Problem
    samples: tuple[Sample, ...]
    earned_G: np.ndarray
    reward_G: np.ndarray
    status: tuple[Status, ...]

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
class Drawn:
    """`prompts` groups; only those of learn_P are learnt from, and of their answers those of judged_PG. greedy_P are
    rewards of greedy answers, if asked for; where one has no verdict, its group has nothing to be held against.

    row is what is worth watching of all answers that were drawn, those left out included.
    """

    groups: tuple[Group, ...]
    learn_P: np.ndarray
    judged_PG: np.ndarray
    greedy_P: np.ndarray | None
    row: dict[str, float]


def check_data(where: str, recipe: Reinforced, problems: Iterable[Problem], max_prompt_len: int) -> None:
    """Raises UserError where the training problems are too few, or a prompt is longer than there are places for."""
    problems = tuple(problems)
    if len(problems) < recipe.prompts:
        raise UserError(f"{where}.prompts: found {recipe.prompts}, but there are {len(problems)} training problems")
    for problem in problems:
        if len(problem.prompt_ids) > max_prompt_len:
            raise UserError(
                f"training problem {problem.id}: its prompt has {len(problem.prompt_ids)} tokens, "
                f"config.engine.max_prompt_len = {max_prompt_len} is the most"
            )


def draw(source: Source, number: int) -> Drawn:
    """The answers of step `number`, under the weights the engine holds now.

    With more than one round, fresh prompts are drawn until `prompts` groups are mixed (Yu et al. 2025, arXiv
    2503.14476, sec. 3.2); where the rounds end before, the others fill the batch and are not learnt from. UserError
    where not one group is mixed. Random streams derive from arm, step and round.
    """
    study, recipe, rounds = source.study, source.recipe, recipes.algorithm(source.recipe).rounds
    training = study.setups[source.arm].training
    rng = random.Random(f"{study.settings.seed}/{source.arm}/{number}")
    chosen = rng.sample(training, min(rounds * recipe.prompts, len(training)))
    groups: list[Group] = []
    used = 0
    for start in range(0, len(chosen), recipe.prompts):
        stream = f"train/{source.arm}/{number}" + (f"/{used}" if used else "")
        groups += _groups(source, chosen[start : start + recipe.prompts], recipe.answers, stream, 1.0)
        used += 1
        if rounds == 1 or sum(group.is_mixed for group in groups) >= recipe.prompts:
            break
    kept = sorted(groups, key=lambda group: not group.is_mixed)[: recipe.prompts] if rounds > 1 else groups
    if rounds > 1 and not kept[0].is_mixed:
        raise UserError(
            f"{source.where}.rounds: step {number} drew {len(groups)} prompts in {used} rounds, and answers to one "
            "prompt always earned the same: easier or harder problems, or another start, would be right"
        )
    learn_P = np.array([rounds == 1 or group.is_mixed for group in kept])
    judged_PG = np.stack([group.judged_G for group in kept])
    if not judged_PG.any():
        raise unjudged(source, number, judged_PG.size)
    row = watched(groups) | {"rounds": used, "groups": int(learn_P.sum())}
    greedy_P = None
    if recipes.algorithm(recipe).advantage == "greedy":
        best = _groups(source, [group.problem for group in kept], 1, f"train/{source.arm}/{number}/greedy", 0.0)
        greedy_P = np.array([group.reward_G[0] for group in best])
        has_P = np.array([group.judged_G[0] for group in best])
        judged_PG &= has_P[:, None]
        row |= {"samples": row["samples"] + len(best), "greedy": float(greedy_P[has_P].mean()) if has_P.any() else 0.0}
    return Drawn(tuple(kept), learn_P, judged_PG, greedy_P, row)


def unjudged(source: Source, number: int, answers: int) -> UserError:
    """What is to be said where a step's answers have no verdict."""
    return UserError(
        f"{source.where}: step {number} has no verdict on any of {answers} answers (timeouts or errors of the grader): "
        "more config.grading.seconds, or another grader, would be right"
    )


def _groups(source: Source, problems: list[Problem], answers: int, stream: str, temperature: float) -> list[Group]:
    study, setup = source.study, source.study.setups[source.arm]

    def sampling(problem: Problem) -> SamplingParams:
        # Rollouts are drawn from the policy itself (no truncation), whatever the evaluation samples at.
        asked = study.sampling_params(setup, problem)
        return replace(asked, temperature=temperature, top_p=1.0, top_k=0, min_p=0.0)

    judged = source.reward is None
    grade = study.task.grade if judged and not source.pool else None
    seed, decode = study.settings.seed, setup.tokenizer.decode
    by_id = {problem.id: problem for problem in problems}

    def draw(asked: Iterable[tuple[Problem, Iterable[int]]]) -> Iterator[Graded]:
        drawn = rollout(source.engine.generate, asked, sampling, seed, stream, decode, grade)
        return graded_beside(drawn, by_id, source.pool) if judged and source.pool else drawn

    drawn = drawn_by_all(study.hosts, stream, problems, answers, draw)
    found = {(g.sample.problem_id, g.sample.index): g for g in drawn}
    groups = [(problem, [found[problem.id, i] for i in range(answers)]) for problem in problems]
    earned = _earned_by_all(source, groups)
    return [group_of(source, *group, e) for group, e in zip(groups, earned, strict=True)]


def _earned_by_all(source: Source, groups: list[tuple[Problem, list[Graded]]]) -> list[list[float]]:
    """What the answers of each group earn. A function of one's own, which may not say the same twice, is asked of each
    group on one host."""
    hosts = source.study.hosts
    if source.reward is None or hosts.count == 1:
        return [earned(source, *group) for group in groups]
    own = [earned(source, *group) for group in groups[hosts.index :: hosts.count]]
    said = [json.loads(text) for text in hosts.exchange(json.dumps(own))]
    return [said[i % hosts.count][i // hosts.count] for i in range(len(groups))]


def earned(source: Source, problem: Problem, answers: list[Graded]) -> list[float]:
    """Rewards of all answers to a prompt, 0 without a verdict."""
    if source.reward is None:
        return [float(g.verdict.correct and g.verdict.status not in UNJUDGED) for g in answers]
    return called(source.reward, f"{source.where}.reward", problem, [g.text for g in answers])


def group_of(source: Source, problem: Problem, answers: list[Graded], earned: list[float]) -> Group:
    """All answers to a prompt with their rewards."""
    recipe, samples = source.recipe, tuple(g.sample for g in answers)
    status = (Status.GRADED,) * len(answers)
    if source.reward is None:
        status = tuple(g.verdict.status for g in answers)
    earned_G = reward_G = np.array(earned, np.float64)
    if recipes.algorithm(recipe).overlong == "shape":
        length_G = np.array([len(s.tokens) for s in samples])
        cut_G = np.array([s.stop == Stop.LENGTH for s in samples])
        most = source.study.settings.sampling.max_tokens
        reward_G = earned_G + overlong_penalty(length_G, cut_G, most, recipe.overlong_cache)
    return Group(problem, samples, earned_G, reward_G, status)


def watched(groups: list[Group]) -> dict[str, float]:
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
