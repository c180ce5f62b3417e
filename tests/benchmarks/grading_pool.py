"""The grading pool at work: 128,000 verdicts, 200 expressions made to hang a grader, and the sampler beside it.

    python -m tests.benchmarks.grading_pool [--part stream|pathological|beside] [--workers 2] [--rounds 5]

stream: 500 problems x 256 responses of about 2,000 signs, exactly 20 distinct answers a problem.
pathological: power towers, nested radicals, LaTeX of 10,000 signs, unbalanced braces, null bytes ...; 1 s of CPU time.
beside: tokens a second of the real engine on one core with grading on the others, over those without; the same beside
a process that has nothing to do with it; and its CPU time a token, which says the same on a busy machine.
Prints one JSON line a part; beside comes last, since it binds this process to one core.
"""

from __future__ import annotations

import argparse
import collections
import functools
import itertools
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rlvr_limit.grading.math import grade as mathematics
from rlvr_limit.grading.pool.pool import GradingPool, map_verdicts
from rlvr_limit.types import Problem, Status

PROBLEMS, SAMPLES, DISTINCT = 500, 256, 20


def main() -> int:
    """The command."""
    parts = {"stream": stream, "pathological": pathological, "beside": beside}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=parts)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    parts["beside"] = functools.partial(beside, rounds=arguments.rounds)
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


def beside(workers: int, rounds: int) -> dict:
    """What the engine on one core keeps of its rate and of its CPU time a token while others grade, in rounds.

    The engine draws from a model of 3.5 M parameters with random weights; for every sample that it hands out, one
    response is submitted, and verdicts are taken, as the sample job does. Cores are set before jax starts, so that it
    has one thread. What the machine takes, whoever works on its other cores, is seen beside a process that has nothing
    to do with the sampler and grades for the same share of the time.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit(f"beside: {len(cores)} core, two are needed: one for the sampler, one for grading")
    os.sched_setaffinity(0, cores[1:])
    # The server that all graders fork from is started here, and with it their cores.
    with GradingPool(mathematics.grade, 1, 10.0, mathematics.shorten) as pool:
        pool.submit("first", *next(responses(1)))
        list(pool.finished(wait=True))
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), cores[:1])
    items = list(responses(100))
    random.Random(0).shuffle(items)
    draw = sampler()
    draw(lambda sample: None)
    kinds = ("alone", "grading", "unrelated")
    found: dict[str, list[dict]] = {kind: [] for kind in kinds}
    busy = 0.1
    for number in range(rounds):
        for kind in kinds if number % 2 else kinds[::-1]:
            found[kind].append(phase(draw, items, max(1, workers - 1), kind, busy))
            busy = found["grading"][-1]["busy"] if found["grading"] else busy

    def share(key: str, kind: str, other: str) -> float:
        pairs = zip(found[kind], found[other], strict=True)
        return round(statistics.median(a[key] / b[key] for a, b in pairs), 3)

    return {
        "load": round(os.getloadavg()[0], 1),
        **{f"tokens_per_second_{kind}": [round(p["rate"]) for p in found[kind]] for kind in kinds},
        **{f"cpu_us_a_token_{kind}": [round(p["cpu"], 1) for p in found[kind]] for kind in kinds},
        "rate_grading_over_alone": share("rate", "grading", "alone"),
        "rate_unrelated_over_alone": share("rate", "unrelated", "alone"),
        "rate_grading_over_unrelated": share("rate", "grading", "unrelated"),
        "cpu_alone_over_grading": share("cpu", "alone", "grading"),
        "verdicts": sum(p["verdicts"] for p in found["grading"]),
        "seconds_of_grading_after_sampling": [round(p["late"], 2) for p in found["grading"]],
        "busy_share_of_other_cores": {kind: [round(p["busy"], 2) for p in found[kind]] for kind in kinds},
    }  # fmt: skip


def sampler() -> Callable[[Callable[[Any], None]], int]:
    """A function that draws the same samples again, tells of each, and returns the number of their tokens."""
    # jax must not start before the cores are set.
    import jax

    from rlvr_limit.engine.engine import Engine
    from rlvr_limit.models.decoder import init_params
    from rlvr_limit.settings import EngineConfig
    from tests.benchmarks.sampler import TINY, Workload, requests

    work = Workload(TINY, prompts=8, samples=64, long=64, new=32, slots=128, window=16)
    config = EngineConfig(
        max_num_seqs=work.slots,
        steps_per_call=work.window,
        page_size=work.page,
        max_prompt_len=work.long,
        prefill_rows=4,
        prefix_rows=8,
    )
    engine = Engine(init_params(TINY, jax.random.key(0)), TINY, config, work.new)

    def draw(tell: Callable[[Any], None]) -> int:
        tokens = 0
        for sample in engine.generate(requests(work, 0)):
            tokens += len(sample.tokens)
            tell(sample)
        return tokens

    return draw


def phase(draw: Callable, items: list, workers: int, kind: str, busy: float) -> dict:
    """One measurement: tokens a second and microseconds of this process's CPU time a token.

    The pool is there in all kinds, at rest where nothing is graded.
    """
    queue, given = itertools.cycle(items), itertools.count()
    other = multiprocessing.get_context("forkserver").Process(target=grade_alone, args=(busy,), daemon=True)
    with GradingPool(mathematics.grade, workers, 10.0, mathematics.shorten) as pool:
        pool.submit("first", *items[0])
        list(pool.finished(wait=True))
        if kind == "unrelated":
            other.start()
            time.sleep(1.0)
        verdicts = 0

        def tell(_: Any) -> None:
            nonlocal verdicts
            if kind == "grading":
                pool.submit(next(given), *next(queue))
                verdicts += sum(1 for _ in pool.finished())

        others, cpu, began = cpu_of_workers(), time.process_time(), time.monotonic()
        tokens = draw(tell)
        cpu, sampled = time.process_time() - cpu, time.monotonic()
        others = cpu_of_workers() - others
        if kind == "unrelated":
            other.kill()
            other.join()
        verdicts += sum(1 for _ in pool.finished(wait=True))
        late = time.monotonic() - sampled
    seconds = sampled - began
    found = {"rate": tokens / seconds, "cpu": 1e6 * cpu / tokens, "busy": others / seconds}
    return found | {"verdicts": verdicts, "late": late}


def grade_alone(busy: float) -> None:
    """Grades for that share of the time, for ever, and talks to nobody."""
    began, used = time.monotonic(), time.process_time()
    for item in itertools.cycle(list(responses(10))):
        while time.process_time() - used > busy * (time.monotonic() - began):
            time.sleep(0.001)
        mathematics.grade(*item)


def cpu_of_workers() -> float:
    """CPU seconds that the processes below this one have used."""
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = path.read_text().rpartition(")")
        except OSError:
            continue
        stats[int(path.parent.name)] = rest.split()
    used, new = 0, {os.getpid()}
    while new := {pid for pid in stats if int(stats[pid][1]) in new}:
        used += sum(int(stats[pid][11]) + int(stats[pid][12]) for pid in new)
    return used / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    sys.exit(main())
