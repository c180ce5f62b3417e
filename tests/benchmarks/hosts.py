"""Processes of unequal speed share one run: how close its time comes to the ideal split of the work.

    python -m tests.benchmarks.hosts [--hosts 4] [--slower 5] [--n 8192]

Once all have begun to sample, the last process is stopped for all but 1/slower of the time. A host's rate is what it
drew between its first and its last sample; the ideal is the time in which all samples are drawn at these rates, each
host from its own start on. One JSON line: seconds, ideal seconds, their ratio, samples and shares of each host.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from tests.support import smoke
from tests.support.host_runs import start_hosts

CYCLE = 0.25
"""Seconds from stop to stop: short beside the heartbeat's patience."""


SUMMARY = r"([\d,]+) samples, .* in (\d+) shares, from ([\d.]+) to ([\d.]+)"


def slow_down(process: subprocess.Popen, log: Path, factor: float) -> None:
    """Lets a process run for 1/factor of the time, from the first samples on until it ends."""
    while process.poll() is None and "sample base" not in log.read_text():
        time.sleep(0.05)
    while process.poll() is None:
        process.send_signal(signal.SIGSTOP)
        time.sleep(CYCLE * (1 - 1 / factor))
        process.send_signal(signal.SIGCONT)
        time.sleep(CYCLE / factor)


def measure(count: int, slower: float, n: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        # Programs are compiled here once, or the slow process would spend its time on them.
        done = smoke.run(runs, "job=sample")
        assert done.returncode == 0, done.stderr
        processes = start_hosts(runs, count, "job=sample", f"sampling.n={n}", "flush_seconds=0.2")
        slowed = (processes[-1], runs / "host-0.log", slower)
        threading.Thread(target=slow_down, args=slowed, daemon=True).start()
        assert [process.wait() for process in processes] == [0] * count
        said = [(runs / f"host-{i}.log").read_text() for i in range(count)]
    found = [re.findall(SUMMARY, text)[-1] for text in said]
    drawn = np.array([int(samples.replace(",", "")) for samples, *_ in found])
    starts, ends = np.array([[float(first), float(last)] for *_, first, last in found]).T
    rates = drawn / (ends - starts)
    ideal = (drawn.sum() + rates @ starts) / rates.sum()
    seconds = ends.max() - starts.min()
    return {
        "seconds": round(float(seconds), 2),
        "ideal_seconds": round(float(ideal - starts.min()), 2),
        "ratio": round(float(seconds / (ideal - starts.min())), 3),
        "samples": drawn.tolist(),
        "shares": [int(shares) for _, shares, *_ in found],
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hosts", type=int, default=4)
    parser.add_argument("--slower", type=float, default=5)
    parser.add_argument("--n", type=int, default=8192)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.hosts, arguments.slower, arguments.n)))
