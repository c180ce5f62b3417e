"""The arms of a config: which are evaluated, whose weights they have, how they are sampled."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

from rlvr_limit.settings import GROUPS, TOKEN_SAMPLING, Arm, Sampling
from rlvr_limit.types import UserError, not_allowed


@dataclass(frozen=True)
class EvaluatedArm:
    """One set of weights to sample in one way: an arm, or one saved step of an arm that is trained by reinforcement."""

    name: str
    label: str
    group: str
    arm: str
    step: int | None = None
    panel: str = ""
    weights_of: str = ""  # the evaluated arm whose weights these are, "" where they are its own
    algorithm: str = ""  # what it is one of several runs of, "" where it is the only one


def with_runs(arms: dict[str, Arm]) -> dict[str, Arm]:
    """Arms and, behind each of several seeds, one for every further run: grpo, grpo_seed1, grpo_seed2 and so on.

    A run's random numbers derive from its arm's name, so that nothing else has to differ, and the first run is what it
    is alone. UserError where an arm has only one way to come about, or another one has the name already.
    """
    runs = dict(arms)
    for name, arm in arms.items():
        if arm.seeds > 1 and (arm.weights or not arm.rl):
            raise not_allowed(f"config.arms.{name}.seeds", arm.seeds, "1, as only an rl recipe has several runs")
        for run in _runs(name, arm)[1:]:
            if runs.setdefault(run, replace(arm, seeds=1)) != replace(arm, seeds=1):
                raise UserError(f"config.arms.{run}: a name that config.arms.{name}.seeds = {arm.seeds} needs")
    return runs


def _runs(name: str, arm: Arm) -> list[str]:
    return [name, *(f"{name}_seed{seed}" for seed in range(1, arm.seeds))]


def seed_index(arm: str) -> int:
    """Which run of its recipe an arm is, by its name; 0 is the first."""
    named = re.search(r"_seed(\d+)$", arm)
    return int(named[1]) if named else 0


def expand(arms: dict[str, Arm]) -> list[EvaluatedArm]:
    """Arms by panel, in the order of GROUPS; a reinforced arm becomes one for each of its saved steps."""
    evaluated = []
    runs = {run: (name, i) for name, arm in arms.items() if arm.seeds > 1 for i, run in enumerate(_runs(name, arm))}
    places = {name: (arm.panel, GROUPS.index(arm.group), *runs.get(name, (name, 0))) for name, arm in arms.items()}
    for name, arm in sorted(arms.items(), key=lambda item: places[item[0]]):
        where = {"group": arm.group, "arm": name, "panel": arm.panel}
        if arm.rl and not arm.weights:
            seed = f", seed {runs[name][1]}" if name in runs else ""
            for step in arm.rl.save_at:
                at = f", step {step}" if len(arm.rl.save_at) > 1 else ""
                algorithm = arm.label + at if name in runs else ""
                label = arm.label + seed + at
                evaluated.append(EvaluatedArm(f"{name}-{step}", label, step=step, algorithm=algorithm, **where))
        else:
            evaluated.append(EvaluatedArm(name, arm.label, weights_of=arm.weights_of, **where))
    return evaluated


def runs_of_algorithms(evaluated: Iterable[EvaluatedArm]) -> dict[str, tuple[str, ...]]:
    """Evaluated arms that are runs of one algorithm, at one of its steps; those of two or more."""
    runs: dict[str, tuple[str, ...]] = {}
    for entry in evaluated:
        if entry.algorithm:
            runs[entry.algorithm] = (*runs.get(entry.algorithm, ()), entry.name)
    return {algorithm: names for algorithm, names in runs.items() if len(names) > 1}


def sampling_of(common: Sampling, arm: Arm) -> Sampling:
    """config.sampling with what the arm says otherwise."""
    said = {name: getattr(arm.sampling, name) for name in TOKEN_SAMPLING}
    return replace(common, **{name: value for name, value in said.items() if value is not None})


def lender(arms: dict[str, Arm], name: str) -> str:
    """The arm that holds the weights of `name`: itself, or the one that its weights_of belongs to."""
    wanted = arms[name].weights_of
    return next(e.arm for e in expand(arms) if e.name == wanted) if wanted else name


def views_asked_as_lenders(arms: dict[str, Arm]) -> dict[str, Arm]:
    """Arms where another view of an arm's weights is asked as that arm is, unless it has a prompt of its own."""

    def asked(name: str, arm: Arm) -> Arm:
        if not arm.weights_of or arm.prompt:
            return arm
        own = arms[lender(arms, name)]
        return replace(arm, prompt=own.prompt, prompt_of=own.prompt_of, stop=arm.stop or own.stop)

    return {name: asked(name, arm) for name, arm in arms.items()}


def origin(arms: dict[str, Arm], name: str) -> Arm:
    """The arm whose given weights a recipe starts from in the end. UserError where there is none."""
    path = [lender(arms, name)]
    while not arms[path[-1]].weights:
        recipe = arms[path[-1]].recipe
        path.append(recipe.start if recipe else "")
        if path[-1] not in arms or path[-1] in path[:-1]:
            raise UserError(f"config.arms.{name}: {' starts from '.join(path)}: an arm with weights must come last")
    return arms[path[-1]]
