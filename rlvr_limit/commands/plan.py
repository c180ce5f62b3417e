"""The plan job: the shapes, memory and hours of a config on config.target, another machine or this one."""

from __future__ import annotations

import dataclasses

from rlvr_limit import planning
from rlvr_limit.planning.prepare import assumed, wanted_by
from rlvr_limit.settings import Settings
from rlvr_limit.study.arms import with_runs
from rlvr_limit.study.checks import check
from rlvr_limit.study.setups import task_and_setups
from rlvr_limit.types import UserError


def run(settings: Settings) -> None:
    """Prints the plan; for another machine it reads neither weights nor data. Raises UserError where nothing fits."""
    settings = dataclasses.replace(settings, arms=with_runs(settings.arms))
    check(settings)
    local = {name: arm for name, arm in settings.arms.items() if not arm.endpoint}
    if not local:
        raise UserError("config.arms: all of them are endpoints, which take no machine; there is nothing to plan")
    if there := settings.arms.keys() - local:
        print(f"{', '.join(sorted(there))}: drawn by endpoints, no part of this plan")
        settings = dataclasses.replace(settings, arms=local)
    target = planning.find_target(settings.target)
    # Here the data and the weights' config are at hand, as they are for the run that the plan foretells.
    wanted = wanted_by(settings, task_and_setups(settings)[1]) if target.name == "here" else assumed(settings)
    print(planning.render(planning.make_plan(wanted, target)))
    if target.name != "here" and not settings.engine.max_prompt_len:
        print(
            f"config.engine.max_prompt_len = 0 leaves it to the prompts: {wanted.engine.max_prompt_len:,} were assumed"
        )
