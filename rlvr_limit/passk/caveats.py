"""What simulation says about the bands' honesty, in words for the page.

coverage.json lies beside this file; tests/benchmarks/coverage.py writes it.
"""

from __future__ import annotations

import importlib.resources
import json
import math

from rlvr_limit.types import UserError

ACCEPTED = (0.92, 0.98)


def coverage_caveats(M: int, n: int) -> list[str]:
    """One sentence for each kind of band and each k whose simulated coverage leaves .92-.98 at the nearest M.

    M problems with n samples each; the simulation has n = 256 and is carried over by k / n. An empty list means that
    every simulated coverage lies inside. Raises UserError where M or n is not at least 1.
    """
    if M < 1 or n < 1:
        raise UserError(f"coverage was asked for M = {M} problems and n = {n} samples: both must be at least 1")
    table = json.loads(importlib.resources.files("rlvr_limit.passk").joinpath("coverage.json").read_text())
    nearest = min({row["M"] for row in table["rows"]}, key=lambda m: abs(math.log(m / M)))
    misses: dict[tuple[str, int], list[dict]] = {}
    for row in table["rows"]:
        if row["M"] == nearest and not ACCEPTED[0] <= row["coverage"] <= ACCEPTED[1]:
            misses.setdefault((row["kind"], row["k"]), []).append(row)
    caveats = []
    for (kind, k), rows in misses.items():
        share = table["n"] // k
        here = 1 if k == 1 else n // share
        if not here:
            continue
        ratio = "" if k == 1 else " = n" if share == 1 else f" = n/{share}"
        found = " and ".join(f"{100 * row['coverage']:.1f} % for {row['distribution']} problems" for row in rows)
        sides = {"too narrow" if row["coverage"] < ACCEPTED[0] else "too wide" for row in rows}
        caveats.append(
            f"The {100 * table['level']:g} % {kind} band at k{ratio} ({here} here) is {' or '.join(sorted(sides))}: "
            f"simulated with M = {nearest} problems it holds the truth in {found}."
        )
    return caveats
