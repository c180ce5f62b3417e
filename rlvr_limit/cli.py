"""The command line: --config, overrides, and the job that the config names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from rlvr_limit.distributed.preemption import Preempted
from rlvr_limit.settings import JOBS
from rlvr_limit.settings.command_line import describe_configs, parse_command_line
from rlvr_limit.types import UserError

USAGE = """\
Draw many samples per problem from a base model and from its RL-trained counterpart, verify them, and compare.

usage: python main.py (or rlvr-limit) [--config=configs/NAME.py] [--config.a.b=value ...]
"""

CONFIGS = Path(__file__).parents[1] / "configs"


def main(argv: list[str] | None = None) -> int:
    """Runs config.job with the config and overrides in `argv`; returns the exit code: 2 bad input, 130 interrupted."""
    argv = sys.argv if argv is None else argv
    # An installed package has no configs beside it: then they are those of the folder one stands in.
    configs = CONFIGS if CONFIGS.is_dir() else Path("configs")
    try:
        if {"--help", "-h"} & set(argv[1:]):
            jobs = "\n".join(f"  {name:8} {purpose}" for name, purpose in JOBS.items())
            print(f"{USAGE}\n{describe_configs(configs)}\n\njobs (--config.job=NAME):\n{jobs}")
            return 0
        settings = parse_command_line(argv, configs / "countdown.py")
        importlib.import_module(f"rlvr_limit.commands.{settings.job}").run(settings)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except Preempted as notice:
        print(notice, file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: everything drawn so far is kept; run the same command to go on", file=sys.stderr)
        return 130
    return 0
