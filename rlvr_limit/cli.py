"""The command line: --config, overrides, and the job that the config names."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from rlvr_limit.distributed.host_memory import bound_heaps
from rlvr_limit.distributed.preemption import Preempted
from rlvr_limit.settings import JOBS
from rlvr_limit.settings.command_line import describe_configs, parse_command_line
from rlvr_limit.types import UserError, first_line, is_out_of_memory

USAGE = """\
Draw many samples per problem from a base model and from its RL-trained counterpart, verify them, and compare.

usage: python main.py (or rlvr-limit) [--config=configs/NAME.py] [--config.a.b=value ...]
"""

LESS_MEMORY = (
    "a smaller engine.max_num_seqs, engine.cache_tokens, training.tokens or sampling.max_tokens takes less; everything "
    "written so far is kept"
)

CONFIGS = Path(__file__).parents[1] / "configs"


def main(argv: list[str] | None = None) -> int:
    """Runs config.job with the config and overrides in `argv`; returns the exit code: 2 bad input, 130 interrupted."""
    argv = sys.argv if argv is None else argv
    # An installed package has no configs beside it: then they are those of the folder one stands in.
    configs = CONFIGS if CONFIGS.is_dir() else Path("configs")
    # Of a GPU's memory JAX takes three quarters by itself, as if others were there too.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
    bound_heaps()
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
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        print(f"error: out of memory: {first_line(error)}; {LESS_MEMORY}", file=sys.stderr)
        return 2
    except Preempted as notice:
        print(notice, file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted: everything drawn so far is kept; run the same command to go on", file=sys.stderr)
        return 130
    return 0
