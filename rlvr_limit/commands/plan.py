"""The plan job: the shapes, memory and hours of a config on config.target, another machine or this one."""

from __future__ import annotations

import dataclasses

from rlvr_limit import planning
from rlvr_limit.planning.prepare import are_files_here, assumed, wanted_by
from rlvr_limit.settings import Settings
from rlvr_limit.study.arms import views_asked_as_lenders, with_runs
from rlvr_limit.study.checks import check
from rlvr_limit.study.setups import task_and_setups
from rlvr_limit.types import UserError


def run(settings: Settings) -> None:
    """Prints the plan; for another machine it needs neither weights nor data. Raises UserError where nothing fits."""
    settings = dataclasses.replace(settings, arms=with_runs(settings.arms))
    check(settings)
    local = {name: arm for name, arm in settings.arms.items() if not arm.endpoint}
    if not local:
        raise UserError("config.arms: all of them are endpoints, which take no machine; there is nothing to plan")
    if there := settings.arms.keys() - local:
        print(f"{', '.join(sorted(there))}: drawn by endpoints, no part of this plan")
        settings = dataclasses.replace(settings, arms=local)
    target = planning.find_target(settings.target)
    settings = dataclasses.replace(settings, arms=views_asked_as_lenders(settings.arms))
    # Here the data and the weights' config are at hand, as they are for the run that the plan foretells.
    is_read = target.name == "here" or are_files_here(settings)
    wanted = wanted_by(settings, task_and_setups(settings)[1]) if is_read else assumed(settings)
    print(planning.render(planning.make_plan(wanted, target)))
    if not is_read and not settings.engine.max_prompt_len:
        print(
            f"config.engine.max_prompt_len = 0 leaves it to the prompts: {wanted.engine.max_prompt_len:,} were assumed"
        )
