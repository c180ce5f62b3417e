"""Results of arms of which little but the counts is known."""

from __future__ import annotations

import numpy as np

from rlvr_limit.report import ArmResults, Results

M, N = 24, 16


def arm(name: str, c_M: np.ndarray, group: str = "rl", n: int = N, **fields) -> ArmResults:
    zeros = np.zeros(len(c_M), dtype=int)
    counts = {"truncated_M": zeros, "no_answer_M": zeros, "ungraded_M": zeros, "unreadable_M": zeros, **fields}
    return ArmResults(name, f"{name} arm", group, np.full(len(c_M), n), np.asarray(c_M), **counts)


def study(arms: list[ArmResults], **fields) -> Results:
    problems = tuple((f"p{i}", f"question {i}", 0.01) for i in range(len(arms[0].c_M)))
    return Results(
        "A title",
        "A purpose.",
        "A caveat.",
        "python main.py",
        **{"problems": problems, **fields},
        arms=tuple(arms),
        base="base",
    )


WIDE = np.array([1] * 20 + [0] * 4)
HALF = np.array([1] * 12 + [0] * 12)
SHARP = np.array([16] * 8 + [0] * 16)
BASE, RL = arm("base", WIDE, "base"), arm("rl", SHARP)
