"""References of math benchmarks against themselves, against rewritings, and against each other.

    python -m tests.benchmarks.math_verdicts DATA_DIR [--pairs 2000] [--seed 0] [--misses 20]

DATA_DIR holds the benchmarks' files. Prints, per kind of rewriting, how many were accepted of how many, and lists every
verdict that is not as it should be; pairs of different references that are called equal are listed for a look.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import random
import sys
from collections.abc import Iterator

from rlvr_limit.grading.math import grade as mathematics
from rlvr_limit.grading.pool.pool import map_verdicts
from rlvr_limit.tasks.benchmarks import BENCHMARKS, load
from rlvr_limit.tasks.questions import Question
from rlvr_limit.types import Problem, UserError, Verdict
from tests.benchmarks.math_rewriting import CHANGE, KEEP

SECONDS = 10.0


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--misses", type=int, default=20, help="listed of each kind")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    questions = dict(read(arguments.data_dir))
    rows = [row for name, found in questions.items() for row in rewritten(name, found, arguments.seed)]
    rows += [row for row in pairs(questions, arguments.pairs, arguments.seed)]
    verdicts = graded([(question, answer) for _, _, question, answer, _ in rows], arguments.workers)
    return report(rows, verdicts, arguments.misses)


def read(data_dir: str) -> Iterator[tuple[str, tuple[Question, ...]]]:
    """Every benchmark of mathematics that the folder has, split ones whole."""
    for benchmark in BENCHMARKS:
        if benchmark.part or benchmark.several:
            continue
        try:
            yield benchmark.name, load(benchmark.name, data_dir)[0]
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)


def text_of(question: Question) -> str:
    """The reference as one answer would give it."""
    return question.answer if isinstance(question.answer, str) else ", ".join(question.answer)


Row = tuple[str, str, Question, str, bool | None]
"""(benchmark, kind, question, answer, whether it is right; None: to be looked at)."""


def rewritten(name: str, questions: tuple[Question, ...], seed: int) -> Iterator[Row]:
    """Each reference once as it stands, and once in every kind of rewriting that applies to it."""
    for question in questions:
        text = text_of(question)
        yield name, "itself", question, text, True
        for group, kinds, right in (("keeps", KEEP, True), ("changes", CHANGE, False)):
            for kind, rewrite in kinds.items():
                other = rewrite(text, random.Random(f"{seed}/{question.id}/{kind}"))
                if other is not None and other != text:
                    yield name, f"{group} {kind}", question, other, right


def pairs(questions: dict[str, tuple[Question, ...]], count: int, seed: int) -> Iterator[Row]:
    """Different references of one benchmark as answers to each other's question, half of them neighbours in length."""
    rng = random.Random(f"{seed}/pairs")
    share = max(1, count // max(1, len(questions)))
    for number, (name, found) in enumerate(questions.items()):
        distinct = list({text_of(question): question for question in found}.values())
        near = sorted(distinct, key=lambda q: (len(text_of(q)), text_of(q)))
        wanted = count - share * (len(questions) - 1) if number == 0 else share
        candidates = list(itertools.pairwise(near)) if wanted else []
        chosen = rng.sample(candidates, min(len(candidates), wanted // 2))
        while len(chosen) < wanted and len(distinct) > 1:
            chosen.append(tuple(rng.sample(distinct, 2)))
        for a, b in chosen:
            yield name, "another reference", a, text_of(b), None


def graded(items: list[tuple[Question, str]], workers: int) -> Iterator[Verdict]:
    """The verdict on each answer, written into a box as a response would."""
    problems = ((Problem(q.id, q.question, "", (), q.answer), rf"so \boxed{{{answer}}}") for q, answer in items)
    return map_verdicts(mathematics.grade, problems, workers, SECONDS, mathematics.shorten)


def report(rows: list[Row], verdicts: Iterator[Verdict], misses: int) -> int:
    """Prints counts and misses; 1 where something that must not be accepted was, or a reference fails itself."""
    counts, accepted = collections.Counter(), collections.Counter()
    wrong: dict[str, list[str]] = collections.defaultdict(list)
    for (name, kind, question, answer, right), verdict in zip(rows, verdicts, strict=True):
        counts[kind] += 1
        accepted[kind] += verdict.correct
        if verdict.correct is not bool(right):
            said = "" if verdict.correct else f" [{verdict.status}: {verdict.detail}]"
            wrong[kind].append(f"{name}: {text_of(question)!r} as {answer!r}{said}")
    for kind in counts:
        share = 100 * accepted[kind] / counts[kind]
        print(f"{kind:26} accepted {accepted[kind]:6} of {counts[kind]:6}  {share:7.2f} %")
    for group, done in (("keeps", "kept"), ("changes", "changed")):
        total, yes = (sum(n for k, n in c.items() if k.startswith(group)) for c in (counts, accepted))
        print(f"all whose value is {done}: accepted {yes} of {total} ({100 * yes / max(1, total):.2f} %)")
    for kind, found in wrong.items():
        print(f"\n{kind}: {len(found)} to look at")
        print("\n".join(f"  {line}" for line in found[:misses]))
    return int(any(k == "itself" or k.startswith("changes") for k in wrong))


if __name__ == "__main__":
    sys.exit(main())
