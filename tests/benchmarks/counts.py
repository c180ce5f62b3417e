"""How long everything that counts alone can tell takes: 500 problems, 1,024 samples, 10,000 paired replicates.

    python -m tests.benchmarks.counts

prints one JSON line: wall and CPU seconds of the second pass, in which nothing is compiled any more, and of its parts.
The aim is 5 s on two cores.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator

import numpy as np

from rlvr_limit import passk

M, N, REPLICATES = 500, 1024, 10_000


def stages(seed: int) -> Iterator[str]:
    """Does one stage after another and yields its name: curves and bands of both arms, their difference, crossover."""
    rng = np.random.default_rng(seed)
    p_M = rng.beta(0.3, 1.0, M)
    n_M, base_M = np.full(M, N), rng.binomial(N, p_M)
    rl_M = rng.binomial(N, np.where(rng.random(M) < (1 - p_M) ** 8, 0.0, 1 - (1 - p_M) ** 4))
    base_MK, rl_MK = passk.pass_curves(n_M, base_M), passk.pass_curves(n_M, rl_M)
    yield "curves"
    for value_MK in (base_MK, rl_MK):
        passk.population_band(value_MK, replicates=REPLICATES)
    yield "population bands"
    passk.paired_band(base_MK, rl_MK, replicates=REPLICATES)
    yield "paired band"
    passk.crossover(base_MK, rl_MK, replicates=REPLICATES)
    yield "crossover"


def main() -> None:
    for _ in stages(0):
        pass
    parts, began, cpu = {}, time.perf_counter(), time.process_time()
    last = began
    for stage in stages(1):
        now = time.perf_counter()
        parts[stage], last = round(now - last, 2), now
    row = {
        "problems": M,
        "samples": N,
        "replicates": REPLICATES,
        "cores": len(os.sched_getaffinity(0)),
        "seconds": round(last - began, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "parts": parts,
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main()
