"""Kills training in mid-rollout, mid-update and mid-checkpoint, again and again, and compares what it ends with.

python -m tests.benchmarks.killed_training [--seed 0] [--kills 5] [--arms ppo dapo_lora ppo_segments]
For each arm, from the smoke config's base: one run that nothing disturbs, and one that is killed (SIGKILL to itself, at
a seeded moment after a seeded call) `kills` times, each in the next phase. Prints a JSON line an arm: how often it was
killed in each phase, the step of the newest state after each kill, and whether weights (SHA-256) and every step's row
are the same bits. Ends with code 1 where they are not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from rlvr_limit.settings import command_line

REPOSITORY = Path(__file__).resolve().parents[2]
PHASES = ("rollout", "update", "checkpoint")
ARMS: dict[str, dict[str, Any]] = {
    "ppo": {"algorithm": "ppo", "gae_lambda": 0.95},
    "dapo_lora": {"algorithm": "dapo", "overlong_cache": 2, "lora_rank": 2, "lora_alpha": 4.0},
    "ppo_segments": {"algorithm": "ppo", "lora_rank": 2, "segment": 3, "importance_cap": 2.0},
}
STEPS = 30

CONFIG = """
from configs.toy import countdown_smoke
def get_config():
    config = countdown_smoke.get_config()
    rl = config.arms.grpo.rl.to_dict()
    more = {"steps": STEPS, "save_at": (STEPS,), "prompts": 4, "answers": 8, "minibatches": 2}
    more["optimizer"] = rl["optimizer"] | {"warmup": 0}
    if CHANGES.get("algorithm") == "ppo":
        more["value_optimizer"] = more["optimizer"]
    config.arms.base.pretrain.right = 1.0
    config.arms = {"base": config.arms.base, "arm": {
        "label": "arm", "group": "rl", "weights": "", "rl": rl | more | CHANGES}}
    config.checkpoint_seconds = 0.0
    return config
"""


def killed_in(phase: str, call: int, delay: float) -> None:
    """Arranges that this process is killed `delay` seconds after the call-th call of what the phase is made of."""
    from rlvr_limit import checkpoint, rl
    from rlvr_limit.training import rollouts, segments

    calls = [0]

    def armed(function: Any) -> Any:
        def called(*args: Any, **options: Any) -> Any:
            calls[0] += 1
            if calls[0] == call:
                threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return function(*args, **options)

        return called

    if phase == "rollout":
        rollouts.draw, segments.draw = armed(rollouts.draw), armed(segments.draw)
    elif phase == "update":
        rl.train_step = armed(rl.train_step)
    else:
        checkpoint.TrainCheckpoints.save = armed(checkpoint.TrainCheckpoints.save)


def run(config: Path, root: Path, kill: str = "") -> bool:
    """Trains in a process of its own; whether it was killed. Raises RuntimeError where it failed otherwise."""
    words = [sys.executable, "-m", "tests.benchmarks.killed_training", "--child", str(config), str(root), kill]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(done.stderr[-2000:])
    return done.returncode != 0


def child(config: Path, root: Path, kill: str) -> None:
    """The process that may be killed."""
    from rlvr_limit.planning.prepare import prepare
    from rlvr_limit.training import loop

    if kill:
        phase, call, delay = kill.split()
        killed_in(phase, int(call), float(delay))
    line = ["main.py", f"--config={config}", "--config.job=train", f"--config.runs={root.parent}"]
    study = prepare(command_line.parse_command_line([*line, f"--config.run_dir={root}"], config))
    loop.train_missing(study)


def ended_with(root: Path) -> tuple[dict[str, Any], list[str]]:
    """Hashes of weights, and the rows of all steps."""
    facts = json.loads((root / "manifest.json").read_text())["facts"]
    return facts, (root / "train/arm/metrics.jsonl").read_text().splitlines()


def main() -> None:
    """All arms, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child:
        child(Path(a.child[0]), Path(a.child[1]), a.child[2])
        return
    is_same = True
    with tempfile.TemporaryDirectory() as folder:
        for name in a.arms:
            rng, began = random.Random(f"{a.seed}/{name}"), time.monotonic()
            config = Path(folder) / f"{name}.py"
            config.write_text(f"STEPS, CHANGES = {STEPS}, {ARMS[name]!r}\n{CONFIG}")
            whole, battered = Path(folder) / name / "whole", Path(folder) / name / "battered"
            run(config, whole)
            # The base is the same and is not what is killed here.
            shutil.copytree(whole, battered)
            shutil.rmtree(battered / "train" / "arm")
            shutil.rmtree(battered / "weights" / f"arm-{STEPS}")
            killed, steps = dict.fromkeys(PHASES, 0), []
            for phase in (PHASES * a.kills)[: a.kills]:
                # The next process begins where this one got to, which a run of so many steps must not be the end of.
                call = rng.randint(2, 5) * (2 if phase == "update" else 1)
                kill = f"{phase} {call} {rng.uniform(0, 0.05):.4f}"
                killed[phase] += run(config, battered, kill)
                states = battered / "train/arm/states"
                kept = [int(p.name) for p in states.iterdir() if p.name.isdigit()] if states.is_dir() else []
                steps.append(max(kept, default=0))
            run(config, battered)
            same = ended_with(whole) == ended_with(battered)
            is_same &= same
            seconds = round(time.monotonic() - began)
            row = {"arm": name, "killed": killed, "kept": steps, "same_bits": same, "seconds": seconds}
            print(json.dumps(row), flush=True)
    sys.exit(not is_same)


if __name__ == "__main__":
    main()
