"""The grading pool at work: 128,000 verdicts, 200 expressions made to hang a grader, and a busy thread beside it.

    python -m tests.benchmarks.grading_pool [--part stream|pathological|beside] [--workers 2]

stream: 500 problems x 256 responses of about 2,000 signs, exactly 20 distinct answers a problem.
pathological: power towers, nested radicals, LaTeX of 10,000 signs, unbalanced braces, null bytes ...; 1 s of CPU time.
beside: turns of a loop of small matrix products, as a sampler on one thread would make, while grading runs and not.
Prints one JSON line a part.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import random
import sys
import time
from collections.abc import Iterator

import numpy as np

from rlvr_limit.grading import math as mathematics
from rlvr_limit.grading.pool import GradingPool, map_verdicts
from rlvr_limit.types import Problem, Status

PROBLEMS, SAMPLES, DISTINCT = 500, 256, 20


def main() -> int:
    """The command."""
    parts = {"stream": stream, "pathological": pathological, "beside": beside}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=parts)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    for name, run in parts.items():
        if arguments.part in (None, name):
            print(json.dumps({"part": name} | run(arguments.workers)), flush=True)
    return 0


REFERENCES = (
    "{n}", r"\frac{{{n}}}{{7}}", r"{n}\sqrt{{3}}", r"\frac{{\sqrt{{{n}}}}}{{2}}", "({n}, -{n})", r"{n}x^2 + 3x - 1",
    r"{n}, {m}, -{n}", r"[{n}, \infty)", r"\frac{{{n}\pi}}{{6}}", r"{n} - {m}i",
)  # fmt: skip
SPELLINGS = (
    "{0}", "{0} + 0", "x = {0}", r"\left( {0} \right)", "{1}", "-({0})", "2 ({0})", "{0} + 1", "{1} - 2",
    r"\sqrt{{{n}}}", "{n}.5", r"{n} / 3", r"\frac{{{n}}}{{11}} \text{{ cm}}", r"{n}^\circ", r"{m}\pi", "({m}, {n})",
    r"\{{{n}, {m}\}}", "x^2 + {n}", r"\text{{none}}", r"{n}\sqrt{{2}} + \sqrt{{{m}}}",
)  # fmt: skip


def problem_of(number: int) -> tuple[Problem, list[str]]:
    """A problem and 20 answers to it that differ as text; some are right in other spelling."""
    n, m = 1000 + number, 3001 + number
    reference = REFERENCES[number % len(REFERENCES)].format(n=n, m=m)
    other = REFERENCES[(number + 1) % len(REFERENCES)].format(n=n, m=m)
    answers = [spelling.format(reference, other, n=n, m=m) for spelling in SPELLINGS]
    assert len({*answers}) == DISTINCT
    return Problem(f"p/{number}", "What is it?", r"put it in \boxed{}", (1,) * 200, reference), answers


def responses(problems: int, seed: int = 0) -> Iterator[tuple[Problem, str]]:
    """256 responses to each problem, every answer among them, in random order."""
    rng = random.Random(seed)
    for number in range(problems):
        problem, answers = problem_of(number)
        chosen = answers + rng.choices(answers, k=SAMPLES - len(answers))
        rng.shuffle(chosen)
        for answer in chosen:
            reasoning = f"Let $x = {rng.randrange(10**6)}$. Then \\boxed{{{rng.randrange(9)}}} is not it, but "
            yield problem, reasoning * 30 + rf"the answer is $\boxed{{{answer}}}$."


def stream(workers: int) -> dict:
    """Verdicts by status, seconds and rate of the whole stream."""
    items = list(responses(PROBLEMS))
    started = time.monotonic()
    counts: collections.Counter[str] = collections.Counter()
    right = 0
    for verdict in map_verdicts(mathematics.grade, items, workers, 10.0, mathematics.shorten):
        counts[verdict.status] += 1
        right += verdict.correct
    seconds = time.monotonic() - started
    length = sum(len(response) for _, response in items) / len(items)
    return {
        "verdicts": len(items), "status": dict(counts), "correct": right, "signs_a_response": round(length),
        "seconds": round(seconds, 1), "per_second": round(len(items) / seconds),
    }  # fmt: skip


def expressions(seed: int = 0) -> list[str]:
    """200 answers that are made to hang, exhaust or confuse a reader of mathematics."""
    rng = random.Random(seed)

    def several(make, count: int = 10) -> list[str]:
        return [make(rng.randrange(5, 60)) for _ in range(count)]

    return [
        *several(lambda n: "^".join("9" * 4) if n % 2 else "9^{9^{9^{9}}}"),
        *several(lambda n: "".join(f"{n}^{{" for _ in range(n)) + "2" + "}" * n),
        *several(lambda n: r"\sqrt{1+" * n + "2" + "}" * n),
        *several(lambda n: r"\sqrt{" * 12 * n + "x" + "}" * 12 * n),
        *several(lambda n: (r"\frac{x^{" + str(n) + r"}+1}{2}+") * 420 + "1"),
        *several(lambda n: "x" * 10_000 if n % 2 else "(" + "x+" * 4_999 + "1)"),
        *several(lambda n: "{" * n + "3"),
        *several(lambda n: "3" + "}" * n),
        *several(lambda n: r"\frac{1}{" * n),
        *several(lambda n: "\0" * n + "5" + "\0"),
        *several(lambda n: f"({n}00000!)!"),
        *several(lambda n: rf"\binom{{{n}0000000}}{{{n}000000}}"),
        *several(lambda n: rf"e^{{e^{{e^{{e^{{{n}}}}}}}}}"),
        *several(lambda n: rf"(x+y+z+1)^{{{n}00}} - (x+y+z+2)^{{{n}00}}"),
        *several(lambda n: rf"\sum_{{k=1}}^{{10^{{{n}}}}} \frac{{1}}{{k^k}}"),
        *several(lambda n: rf"\prod_{{k=1}}^{{{n}000000}} \sin(k)"),
        *several(lambda n: rf"\int_0^{{{n}}} e^{{\sin(x^{{{n}}})}} dx"),
        *several(lambda n: r"\sin(" * n + "x" + ")" * n),
        *several(lambda n: rf"\cos(10^{{{n}000}}) + \tan(7^{{{n}00}})"),
        *several(lambda n: "".join(rng.choices("\\{}[]()^_!|$%&~#.,0123456789abcxyz \n", k=300))),
    ]


def pathological(workers: int) -> dict:
    """Verdicts by status, seconds, and the slowest kinds."""
    found = expressions()
    problem = Problem("p", "", "", (), r"\frac{\sqrt{2}+x}{3}")
    forms = (r"so \boxed{{{}}}", "<answer>{}</answer>")
    items = [(problem, forms[i % 2].format(text)) for i, text in enumerate(found)]
    started = time.monotonic()
    verdicts = list(map_verdicts(mathematics.grade, items, workers, 1.0, mathematics.shorten))
    counts = collections.Counter(verdict.status for verdict in verdicts)
    late = collections.Counter(t[:9] for t, v in zip(found, verdicts, strict=True) if v.status == Status.TIMEOUT)
    return {
        "expressions": len(found), "verdicts": len(verdicts), "status": dict(counts),
        "correct": sum(v.correct for v in verdicts), "seconds": round(time.monotonic() - started, 1), "late": late,
    }  # fmt: skip


def beside(workers: int, seconds: float = 8.0) -> dict:
    """Turns a second of a loop that takes 4 responses a turn, by turns without and with grading beside it."""
    weights = np.random.default_rng(0).normal(size=(512, 512)).astype(np.float32)
    state = np.ones((64, 512), np.float32)
    items = itertools.cycle(responses(40))

    def turns(pool: GradingPool | None) -> float:
        count, started = 0, time.monotonic()
        while time.monotonic() < started + seconds:
            for _ in range(20):
                np.tanh(state @ weights)
            for item in itertools.islice(items, 4):
                if pool:
                    pool.submit(count, *item)
            if pool:
                collections.deque(pool.finished(), maxlen=0)
            count += 1
        return count / (time.monotonic() - started)

    rates: dict[bool, list[float]] = {False: [], True: []}
    for grading in (False, True) * 3:
        with GradingPool(mathematics.grade, max(1, workers - 1), 10.0, mathematics.shorten) as pool:
            pool.submit("first", *next(items))
            list(pool.finished(wait=True))
            rates[grading].append(turns(pool if grading else None))
    off, on = (sorted(rates[grading])[1] for grading in (False, True))
    return {"turns_per_second_without": round(off), "with": round(on), "share": round(on / off, 3)}


if __name__ == "__main__":
    sys.exit(main())
