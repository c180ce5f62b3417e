"""How often do the bands of rlvr_limit.passk hold the truth? Simulated where it is known in closed form.

    nice -n 10 python -m tests.benchmarks.coverage

prints a table and writes rlvr_limit/passk/coverage.json, which coverage_caveats reads. A few minutes on one core.

Worlds: a problem's base success rate p is 0 with probability z, else Beta(a, b). The RL arm forgets a problem with
probability (1-p)^m, and otherwise solves with one sample what base solves with s: p_RL = 1 - (1-p)^s. So RL is ahead at
small k and base at large k, and with E(t) = E[(1-p)^t] every expectation is closed: base pass@k = 1 - E(k) and
RL pass@k = 1 - E(m) - E(sk) + E(m + sk).

Shapes: R simulations, M problems, K columns (values of k).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlvr_limit import passk

N = 256
KS = (1, N // 16, N // 4, N)
MS = (8, 30, 96, 500)
LEVEL = 0.95
SIMULATIONS = 2000
CROSSOVER_SIMULATIONS = 400
CROSSOVER_REPLICATES = 400


@dataclass(frozen=True)
class Difficulty:
    """Law of the base success rate: 0 with probability z, else Beta(a, b)."""

    name: str
    z: float
    a: float
    b: float

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        return rng.beta(self.a, self.b, shape) * (rng.random(shape) >= self.z)

    def fail(self, t: float) -> float:
        """E[(1-p)^t]."""
        a, b = self.a, self.b
        log_ratio = math.lgamma(b + t) - math.lgamma(a + b + t) - math.lgamma(b) + math.lgamma(a + b)
        return self.z + (1 - self.z) * math.exp(log_ratio)


@dataclass(frozen=True)
class Sharpening:
    """What RL does to a problem: forgotten with probability (1-p)^m, else one sample is worth s of base's."""

    name: str
    s: int
    m: float

    def draw(self, rng: np.random.Generator, p: np.ndarray) -> np.ndarray:
        return np.where(rng.random(p.shape) < (1 - p) ** self.m, 0.0, 1 - (1 - p) ** self.s)

    def pass_at_k(self, law: Difficulty, k: int) -> float:
        if math.isinf(self.m):
            return 1 - law.fail(self.s * k)
        return 1 - law.fail(self.m) - law.fail(self.s * k) + law.fail(self.m + self.s * k)


LAWS = (
    Difficulty("mostly solvable, Beta(.5, .5)", 0.0, 0.5, 0.5),
    Difficulty("hard, Beta(.25, 3)", 0.0, 0.25, 3.0),
    Difficulty("30 % unsolvable, else Beta(1, 3)", 0.3, 1.0, 3.0),
)
CROSSING = Sharpening("crossing", 4, 8)
WORLDS = (CROSSING, Sharpening("base ahead at every k", 1, 64), Sharpening("equal arms", 1, math.inf))


def covered(band: passk.Band, truth_RK: np.ndarray) -> np.ndarray:
    """[K] share of simulations whose band holds the truth."""
    low_RK, high_RK = band.low_K.reshape(truth_RK.shape), band.high_K.reshape(truth_RK.shape)
    return ((low_RK <= truth_RK) & (truth_RK <= high_RK)).mean(axis=0)


def band_rows(law: Difficulty, M: int, rng: np.random.Generator) -> list[dict]:
    """Coverage of the three kinds of band. Bands work column by column, so simulations lie side by side as columns."""
    p_RM = law.draw(rng, (SIMULATIONS, M))
    c_RM = rng.binomial(N, p_RM)
    rl_c_RM = rng.binomial(N, CROSSING.draw(rng, p_RM))
    curve_CK = passk.pass_curves(np.full(N + 1, N), np.arange(N + 1))[:, np.array(KS) - 1]
    base_MK, rl_MK = (curve_CK[x_RM].transpose(1, 0, 2).reshape(M, -1) for x_RM in (c_RM, rl_c_RM))
    base_K = np.array([1 - law.fail(k) for k in KS])
    gap_K = base_K - [CROSSING.pass_at_k(law, k) for k in KS]
    fixed_ks = KS[:-1]
    fixed = [passk.fixed_band(np.full(M, N), c_M, fixed_ks, level=LEVEL) for c_M in c_RM]
    truth_RK = np.stack([1 - ((1 - p_RM) ** k).mean(axis=1) for k in fixed_ks], axis=1)
    low_RK, high_RK = np.stack([band.low_K for band in fixed]), np.stack([band.high_K for band in fixed])
    found = {
        "population": covered(passk.population_band(base_MK, level=LEVEL), np.tile(base_K, (SIMULATIONS, 1))),
        "paired difference": covered(passk.paired_band(base_MK, rl_MK, level=LEVEL), np.tile(gap_K, (SIMULATIONS, 1))),
        "fixed problems": ((low_RK <= truth_RK) & (truth_RK <= high_RK)).mean(axis=0),
    }
    return [
        {"kind": kind, "M": M, "k": k, "distribution": law.name, "coverage": round(float(share), 4)}
        for kind, share_K in found.items()
        for k, share in zip(KS, share_K, strict=False)
    ]


def crossover_row(law: Difficulty, M: int, world: Sharpening, rng: np.random.Generator) -> dict:
    """How often k* lies in its interval (where the curves truly cross), and how often the verdict is "resolved"."""
    gap_K = np.array([1 - law.fail(k) - world.pass_at_k(law, k) for k in range(1, N + 1)])
    truth = 2 + int(np.flatnonzero(gap_K < 0)[-1]) if world is CROSSING else None
    n_M, held, resolved = np.full(M, N), 0, 0
    for _ in range(CROSSOVER_SIMULATIONS):
        p_M = law.draw(rng, (M,))
        base_MK, rl_MK = (passk.pass_curves(n_M, rng.binomial(N, x_M)) for x_M in (p_M, world.draw(rng, p_M)))
        found = passk.crossover(base_MK, rl_MK, level=LEVEL, replicates=CROSSOVER_REPLICATES)
        resolved += found.verdict == "resolved"
        if truth is not None:
            held += (found.low or math.inf) <= truth <= (found.high or math.inf)
    return {
        "world": world.name,
        "M": M,
        "distribution": law.name,
        "k": truth,
        "coverage": None if truth is None else held / CROSSOVER_SIMULATIONS,
        "resolved": resolved / CROSSOVER_SIMULATIONS,
    }


def main() -> None:
    rows, crossings = [], []
    for i, law in enumerate(LAWS):
        for M in MS:
            rng = np.random.default_rng([2024, i, M])
            new = band_rows(law, M, rng)
            rows += new
            for kind in dict.fromkeys(row["kind"] for row in new):
                shares = "  ".join(f"k={row['k']}: {row['coverage']:.3f}" for row in new if row["kind"] == kind)
                print(f"{law.name:34s} M={M:3d}  {kind:17s}  {shares}", flush=True)
    for i, law in enumerate(LAWS):
        for M in MS[1:3]:
            for j, world in enumerate(WORLDS):
                row = crossover_row(law, M, world, np.random.default_rng([2025, i, M, j]))
                crossings.append(row)
                held = "" if row["k"] is None else f"  k* = {row['k']} held in {row['coverage']:.3f}"
                print(f"{law.name:34s} M={M:3d}  {world.name:22s}  resolved {row['resolved']:.3f}{held}", flush=True)
    head = {"n": N, "level": LEVEL, "simulations": SIMULATIONS, "crossover_simulations": CROSSOVER_SIMULATIONS}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    for name, table in (("rows", rows), ("crossover", crossings)):
        lines.append(f'"{name}": [\n' + ",\n".join(json.dumps(row) for row in table) + "\n]")
    path = Path(passk.__file__).with_name("coverage.json")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
