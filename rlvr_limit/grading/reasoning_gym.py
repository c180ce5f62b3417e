"""Problems of reasoning-gym (arXiv 2505.24760), an optional package, and its own verifiers.

A benchmark "reasoning_gym_NAME" is its data set NAME, drawn with a seed. Its problems' ids,
"reasoning_gym_NAME/SEED-INDEX", are all that the verifier needs to draw an entry once more.
"""

from __future__ import annotations

import functools
import importlib
import re
from typing import Any

from rlvr_limit.grading.math.extract import extract
from rlvr_limit.types import Problem, Status, UserError, Verdict

PREFIX, PROBLEMS = "reasoning_gym_", 128
GRADER = f"{__name__}:grade"
_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)  # the package's own tags; \boxed and others count without


@functools.lru_cache(maxsize=16)
def entries(benchmark: str, seed: int) -> Any:
    """The data set of a benchmark, a sequence of entries. UserError without the package, and for a name it lacks."""
    try:
        package = importlib.import_module("reasoning_gym")
    except ImportError as error:
        advice = "pip install 'rlvr_limit[reasoning-gym]'"
        raise UserError(f"benchmark {benchmark!r} needs the reasoning-gym package: {advice}") from error
    try:
        return package.create_dataset(benchmark.removeprefix(PREFIX), seed=seed, size=PROBLEMS)
    except ValueError as error:
        raise UserError(f"benchmark {benchmark!r}: reasoning-gym says: {error}") from error


@functools.lru_cache(maxsize=PROBLEMS)
def _entry(benchmark: str, seed: int, index: int) -> Any:
    """Drawing one may take as long as a puzzle does, and its samples are graded one after another."""
    return entries(benchmark, seed)[index]


def grade(problem: Problem, text: str) -> Verdict:
    """Right where the data set's verifier gives the full score; what it gives in part stands in detail."""
    tagged = _ANSWER.findall(text)
    answer = tagged[-1].strip() if tagged else extract(text).text
    if not answer:
        return Verdict(False, Status.NO_ANSWER, detail="no <answer>, \\boxed{} or `Answer:`")
    benchmark, _, place = problem.id.partition("/")
    seed, _, index = place.partition("-")
    score = entries(benchmark, int(seed)).score_answer(answer, _entry(benchmark, int(seed), int(index)))
    return Verdict(score == 1, Status.GRADED, answer, f"score {score:g}" if 0 < score < 1 else "")
