"""Draw many samples per problem from a base model and from its RL-trained counterpart, verify them, and compare.

usage: python main.py [--config=configs/NAME.py] [--config.a.b=value ...]
"""

import importlib
import sys
from pathlib import Path

from rlvr_limit.distributed.preemption import Preempted
from rlvr_limit.study import schema
from rlvr_limit.types import UserError

JOBS = {
    "compare": "train what is missing, then sample, grade, score and report",
    "sample": "draw the samples that the run folder still lacks",
    "grade": "give a verdict on every stored sample that has none",
    "score": "log-likelihoods of stored samples under each arm",
    "train": "train the arms that are recipes, not weights",
    "report": "draw the page, figures and tables from the records",
    "counts": "draw the page from a file of counts (problem,arm,n,correct): no samples, no models",
    "plan": "what the config takes on config.target, without weights or accelerator",
}


def main(argv: list[str]) -> int:
    """Runs config.job with the config and overrides in `argv`; returns the exit code: 2 bad input, 130 interrupted."""
    default = Path(__file__).resolve().parent / "configs" / "countdown.py"
    try:
        if {"--help", "-h"} & set(argv[1:]):
            jobs = "\n".join(f"  {name:8} {purpose}" for name, purpose in JOBS.items())
            print(f"{__doc__}\n{schema.describe_configs(default.parent)}\n\njobs (--config.job=NAME):\n{jobs}")
            return 0
        config = schema.parse_command_line(argv, default)
        if config.get("job") not in JOBS:
            raise UserError(f"config.job: found {config.get('job')!r}, but one of {', '.join(JOBS)} is right")
        importlib.import_module(f"rlvr_limit.commands.{config.job}").run(config)
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
