"""The plan job: what every program of a config needs on config.target, without weights or accelerator."""

from __future__ import annotations

from rlvr_limit import planning
from rlvr_limit.settings import Settings
from rlvr_limit.study.checks import check


def run(settings: Settings) -> None:
    """Prints the plan. Raises UserError, one line, for what fits nowhere."""
    check(settings)
    plan = planning.plan_of(settings)
    print(planning.render(plan))
    if not settings.engine.max_prompt_len:
        print(f"config.engine.max_prompt_len = 0 leaves it to the prompts: {plan.engine.max_prompt_len:,} were assumed")
