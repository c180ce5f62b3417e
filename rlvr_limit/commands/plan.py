"""The plan job: what every program of a config needs on config.target, without weights or accelerator."""

from __future__ import annotations

from ml_collections import ConfigDict

from rlvr_limit.planning.updates import print_plan


def run(config: ConfigDict) -> None:
    """Prints the plan. Raises UserError, one line, for what fits nowhere."""
    print_plan(config)
