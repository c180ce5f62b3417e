"""The embedded default over several seeds: every seed's numbers beside what the project aims at, one JSON line each.

    python -m tests.benchmarks.seeds --seeds 11 12 13 14 15 [--runs runs]

Runs that are finished are only read. The aims are those a reader of the page would look for: GRPO far above the base
at k = 1, the base above it at the largest k with a resolved crossover, later steps of GRPO further along on both, and
distillation above base and control, none of it explained by guessing.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def run(seed: int, runs: str, config: str) -> tuple[Path, float]:
    """(report folder, seconds) of one seed."""
    command = [sys.executable, "main.py", f"--config={config}", f"--config.seed={seed}", f"--config.runs={runs}"]
    began = time.monotonic()
    done = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    page = re.search(r"^report: (.+)$", done.stdout, re.MULTILINE)[1]
    return Path(page).parent, time.monotonic() - began


def aims(folder: Path) -> dict[str, Any]:
    """The numbers of one report and which aims they meet."""
    summary = json.loads((folder / "summary.json").read_text())
    arms = summary["arms"]
    value = {name: {int(k): v["value"] for k, v in arm["pass@k"].items()} for name, arm in arms.items()}
    largest = max(value["base"])
    steps = [name for name, arm in arms.items() if arm["group"] == "rl"]
    last = steps[-1]
    bands = {}
    with (folder / "differences.csv").open() as file:
        for row in csv.DictReader(file):
            bands[row["first"], row["second"], int(row["k"])] = float(row["low"]), float(row["high"])

    def over(first: str, second: str, k: int) -> tuple[float, float]:
        if (first, second, k) in bands:
            return bands[first, second, k]
        low, high = bands[second, first, k]
        return -high, -low

    rivals = ("base", "control")
    met = {
        "rl_at_1_is_1.8x": value[last][1] >= 1.8 * value["base"][1],
        "base_over_rl_at_largest": over("base", last, largest)[0] > 0,
        "crossover_resolved": arms[last]["crossover"]["verdict"] == "resolved",
        "later_steps_higher_at_1": all(value[a][1] < value[b][1] for a, b in zip(steps, steps[1:], strict=False)),
        "later_steps_lower_at_largest": all(
            value[a][largest] > value[b][largest] for a, b in zip(steps, steps[1:], strict=False)
        ),
        "distilled_over_both_somewhere": all(
            any(over("distilled", rival, k)[0] > 0 for k in (1, 4, 16)) for rival in rivals
        ),
        "distilled_never_below": all(
            over("distilled", rival, k)[1] >= 0 for rival in rivals for k in range(1, largest + 1)
        ),
        "guess_at_most_half": summary["guess"][str(largest)] <= 0.5 * value["base"][largest],
        "no_arm_above_.97": max(v[largest] for v in value.values()) <= 0.97,
    }
    shown = {name: {k: round(v, 3) for k, v in curve.items()} for name, curve in value.items()}
    shown["guess"] = {int(k): round(v, 3) for k, v in summary["guess"].items()}
    low, high = over("base", last, largest)
    return {
        "pass@k": shown,
        "crossover": arms[last]["crossover"],
        "base_minus_rl_at_largest": [round(x, 3) for x in (value["base"][largest] - value[last][largest], low, high)],
        "all_met": all(met.values()),
        "not_met": [name for name, ok in met.items() if not ok],
    }


def main() -> None:
    """Runs the seeds one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--config", default="configs/countdown.py")
    arguments = parser.parse_args()
    for seed in arguments.seeds:
        folder, seconds = run(seed, arguments.runs, arguments.config)
        print(json.dumps({"seed": seed, "seconds": round(seconds), **aims(folder)}), flush=True)


if __name__ == "__main__":
    main()
