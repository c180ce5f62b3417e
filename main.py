"""Draw many samples per problem from a base model and from its RL-trained counterpart, verify them, and compare.

usage: python main.py [--config=configs/NAME.py] [--config.a.b=value ...]
"""

import importlib
import sys
from pathlib import Path

from rlvr_limit.distributed.preemption import Preempted
from rlvr_limit.settings import JOBS
from rlvr_limit.settings.command_line import describe_configs, parse_command_line
from rlvr_limit.types import UserError


def main(argv: list[str]) -> int:
    """Runs config.job with the config and overrides in `argv`; returns the exit code: 2 bad input, 130 interrupted."""
    default = Path(__file__).resolve().parent / "configs" / "countdown.py"
    try:
        if {"--help", "-h"} & set(argv[1:]):
            jobs = "\n".join(f"  {name:8} {purpose}" for name, purpose in JOBS.items())
            print(f"{__doc__}\n{describe_configs(default.parent)}\n\njobs (--config.job=NAME):\n{jobs}")
            return 0
        settings = parse_command_line(argv, default)
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


if __name__ == "__main__":
    sys.exit(main(sys.argv))
