"""How often do bands over training runs and problems hold an algorithm's true mean? Simulated, known by quadrature.

    nice -n 10 python -m tests.benchmarks.runs_coverage

Worlds: coverage.py's problems; each training run has a strength and a forgetting of its own, s = 4 exp(spread z) and
m = 8 exp(spread z'), z and z' standard normal, and forgets problems of its own. Beside the shipped bands stand three
that are not: over problems of one run, over problems of the runs' mean, and the bootstrap that draws runs and problems
(Owen 2007, arXiv 0712.1111), its tails cut as of S values. Minutes on one core.

Shapes: R simulations, S runs, M problems, K columns (values of k).
"""

from __future__ import annotations

import numpy as np

from rlvr_limit import passk
from rlvr_limit.passk.bands import tail_area
from tests.benchmarks.coverage import KS, LAWS, LEVEL, Difficulty, N, Sharpening

SIMULATIONS, REPLICATES = 500, 400
RUNS, PROBLEMS = (3, 5, 10), (32, 96)
SPREADS = {"alike": 0.0, "unlike": 0.3, "very unlike": 1.0}
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(24)


def algorithm_at_k(law: Difficulty, spread: float, k: int) -> float:
    """Mean pass@k over runs and problems."""
    strength, forgetting = (x * np.exp(spread * NODES) for x in (4, 8))
    values = [[Sharpening("", s, m).pass_at_k(law, k) for m in forgetting] for s in strength]
    return float(WEIGHTS @ np.array(values) @ WEIGHTS) / WEIGHTS.sum() ** 2


def simulated(law: Difficulty, spread: float, S: int, M: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """([M, R K] of the base, [S, M, R K] of the runs): simulations side by side, as bands go column by column."""
    p_RM = law.draw(rng, (SIMULATIONS, M))
    strength, forgetting = (x * np.exp(spread * rng.normal(size=(SIMULATIONS, S, 1))) for x in (4, 8))
    p_RSM = 1 - (1 - p_RM[:, None]) ** strength
    p_RSM[rng.random(p_RSM.shape) < (1 - p_RM[:, None]) ** forgetting] = 0.0
    curve_CK = passk.pass_curves(np.full(N + 1, N), np.arange(N + 1))[:, np.array(KS) - 1]
    base_RMK, run_RSMK = (curve_CK[rng.binomial(N, p)] for p in (p_RM, p_RSM))
    return base_RMK.transpose(1, 0, 2).reshape(M, -1), run_RSMK.transpose(1, 2, 0, 3).reshape(S, M, -1)


def bootstrapped(value_SMK: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    S, M, K = value_SMK.shape
    tail = tail_area(LEVEL, S)
    runs_BS, problems_BM = (rng.multinomial(x, np.full(x, 1 / x), REPLICATES) / x for x in (S, M))
    weights = np.einsum("bs,bm->bsm", runs_BS, problems_BM).reshape(REPLICATES, -1)
    return tuple(np.quantile(weights @ value_SMK.reshape(S * M, K), [tail, 1 - tail], axis=0))


def shares(law: Difficulty, spread: float, S: int, M: int, rng: np.random.Generator) -> dict[str, list[float]]:
    """Coverage and mean width of every kind of band, at each of KS: (coverage, width) in turn."""
    base_MK, run_SMK = simulated(law, spread, S, M, rng)
    algorithm_K = np.array([algorithm_at_k(law, spread, k) for k in KS])
    gap_K = np.array([1 - law.fail(k) for k in KS]) - algorithm_K
    mean_MK = run_SMK.mean(axis=0)
    some = {"replicates": REPLICATES}
    bands = {
        "curve": (_ends(passk.algorithm_band(run_SMK)), algorithm_K),
        "curve, problems of the mean": (_ends(passk.population_band(mean_MK, **some)), algorithm_K),
        "curve, one run": (_ends(passk.population_band(run_SMK[0], **some)), algorithm_K),
        "difference": (_ends(passk.algorithm_paired_band(base_MK, run_SMK)), gap_K),
        "difference, bootstrap": (bootstrapped(base_MK - run_SMK, rng), gap_K),
        "difference, problems of the mean": (_ends(passk.paired_band(base_MK, mean_MK, **some)), gap_K),
        "difference, one run": (_ends(passk.paired_band(base_MK, run_SMK[0], **some)), gap_K),
    }
    found = {}
    for name, ((low_RK, high_RK), truth_K) in bands.items():
        low_RK, high_RK = low_RK.reshape(-1, len(KS)), high_RK.reshape(-1, len(KS))
        held_K = ((low_RK <= truth_K) & (truth_K <= high_RK)).mean(axis=0)
        found[name] = list(zip(held_K, (high_RK - low_RK).mean(axis=0), strict=True))
    return found


def _ends(band: passk.Band) -> tuple[np.ndarray, np.ndarray]:
    return band.low_K, band.high_K


def main() -> None:
    for spread_name, spread in SPREADS.items():
        for i, law in enumerate(LAWS):
            for S in RUNS:
                for M in PROBLEMS:
                    rng = np.random.default_rng([2026, i, S, M, int(10 * spread)])
                    for name, cells in shares(law, spread, S, M, rng).items():
                        by_k = zip(KS, cells, strict=True)
                        said = "  ".join(f"k={k}: {held:.3f} ({100 * width:.0f})" for k, (held, width) in by_k)
                        print(f"{spread_name:12s} {law.name:32s} S={S:2d} M={M:2d} {name:34s} {said}", flush=True)


if __name__ == "__main__":
    main()
