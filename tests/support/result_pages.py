"""Results of two arms on a few problems, to be shown."""

from __future__ import annotations

import numpy as np

from rlvr_limit.report import ArmResults, Example, Results

M, N = 4, 8


HOSTILE = '</script><b>"\\u2028\u2028'


def example(problem: int, arm: str, index: int, text: str = "text", **fields) -> Example:
    values = {"correct": False, "stop": "eos", "extracted": "7", "logp": -1.234, **fields}
    return Example(f"p{problem}", arm, index, text, **values)


def study(examples: list[Example], **fields) -> Results:
    c_M = np.array([3, 0, 8, 0])
    zeros = np.zeros(M, int)
    answers = ((("7", 5, 0), (HOSTILE, 3, 1)), (0, 0))
    arms = tuple(
        ArmResults(name, f"{name} arm", name, np.full(M, N), c_M, zeros, zeros, zeros, answers_M=(answers,) * M)
        for name in ("base", "rl")
    )
    problems = tuple((f"p{i}", f"question {i} {HOSTILE}", None) for i in range(M))
    return Results(
        "t", "p", "c", "x", problems, **{"arms": arms, "base": "base", "examples": tuple(examples), **fields}
    )
