"""The arms of a config: which are evaluated, whose weights they have, how they are sampled."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rlvr_limit.settings import GROUPS, TOKEN_SAMPLING, Arm, Sampling
from rlvr_limit.types import UserError


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


def expand(arms: dict[str, Arm]) -> list[EvaluatedArm]:
    """Arms by panel, in the order of GROUPS; a reinforced arm becomes one for each of its saved steps."""
    evaluated = []
    by_place = sorted(arms.items(), key=lambda item: (item[1].panel, GROUPS.index(item[1].group), item[0]))
    for name, arm in by_place:
        where = {"group": arm.group, "arm": name, "panel": arm.panel}
        if arm.rl and not arm.weights:
            several = len(arm.rl.save_at) > 1
            for step in arm.rl.save_at:
                label = f"{arm.label}, step {step}" if several else arm.label
                evaluated.append(EvaluatedArm(f"{name}-{step}", label, step=step, **where))
        else:
            evaluated.append(EvaluatedArm(name, arm.label, weights_of=arm.weights_of, **where))
    return evaluated


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
