"""The plan job: what every program of a config needs on config.target, without weights or accelerator."""

from __future__ import annotations

from rlvr_limit.planning.updates import print_plan
from rlvr_limit.settings import Settings


def run(settings: Settings) -> None:
    """Prints the plan. Raises UserError, one line, for what fits nowhere."""
    print_plan(settings)
