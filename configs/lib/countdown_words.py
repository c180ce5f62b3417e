"""Makes the problems of configs/real/countdown_words.py: python -m configs.lib.countdown_words

Three numbers from 2 to 10 and a target from 10 to 40 that they reach.
"""

import json
from pathlib import Path

from rlvr_limit.settings import CountdownConfig
from rlvr_limit.tasks import countdown

FOLDER = Path(__file__).parent.parent / "real"
TASK = CountdownConfig(
    numbers=3,
    low=2,
    high=10,
    targets=tuple(range(10, 41)),
    guess_max=1.0,
    eval_problems=64,
    train_problems=512,
)


def rows() -> tuple[list[dict], list[dict]]:
    """Rows of the test file and of the training file."""
    return tuple([_row(problem) for problem in part] for part in countdown.problems(countdown.Game(TASK), seed=0))


def _row(problem: countdown.Problem) -> dict:
    numbers, target = problem.answer.numbers, problem.answer.target
    return {
        "problem": f"Numbers: {', '.join(map(str, numbers))}. Target: {target}.",
        "answer": f"{' '.join(map(str, numbers))} -> {target}",
        "guess_rate": problem.guess_rate,
    }


if __name__ == "__main__":
    for name, part in zip(("test", "train"), rows(), strict=True):
        lines = "".join(json.dumps(row) + "\n" for row in part)
        (FOLDER / f"countdown_words_{name}.jsonl").write_text(lines, encoding="utf-8")
