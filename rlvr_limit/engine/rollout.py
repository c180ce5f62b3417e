"""Engine, problems and grader -> a stream of graded samples. The evaluator and the trainer share it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from rlvr_limit.engine.requests import EngineStats, Request, prompt_key
from rlvr_limit.grading.pool.pool import GradingPool
from rlvr_limit.types import Grader, Problem, Sample, SamplingParams, Verdict


@dataclass(frozen=True)
class Graded:
    """One sample, its text, and what the grader made of it, if it was asked."""

    sample: Sample
    text: str
    verdict: Verdict | None


def rollout(
    generate: Callable[[Iterable[Request], Callable[[EngineStats], None] | None], Iterator[Sample]],
    problems: Iterable[tuple[Problem, Iterable[int]]],
    sampling: Callable[[Problem], SamplingParams],
    seed: int,
    stream: str,
    decode: Callable[[tuple[int, ...]], str],
    grader: Grader | None,
    watch: Callable[[EngineStats], None] | None = None,
) -> Iterator[Graded]:
    """Draws the given sample indices of each problem and grades them as they finish, in no particular order.

    generate is Engine.generate; indices are read one by one, as samples finish. watch is told of every window.
    stream names what the samples are for ("eval/<arm>", "train/<run>/<step>"): other streams draw other numbers.
    Without a grader the verdicts are None, for a later stage to give.
    """
    known: dict[str, Problem] = {}

    def requests() -> Iterator[Request]:
        for problem, indices in problems:
            known[problem.id] = problem
            key = prompt_key(seed, stream, problem.identity)
            yield Request(problem.id, problem.prompt_ids, key, indices, sampling(problem), images=problem.images)

    for sample in generate(requests(), watch):
        text = decode(sample.tokens)
        yield Graded(sample, text, grader(known[sample.problem_id], text) if grader else None)


def graded_beside(drawn: Iterable[Graded], problems: Mapping[str, Problem], pool: GradingPool) -> Iterator[Graded]:
    """Samples with the verdicts of worker processes that grade while the next ones are drawn, in no order."""
    waiting: dict[tuple[str, int], Graded] = {}

    def finished(wait: bool) -> Iterator[Graded]:
        for tag, verdict in pool.finished(wait):
            yield dataclasses.replace(waiting.pop(tag), verdict=verdict)

    for graded in drawn:
        tag = (graded.sample.problem_id, graded.sample.index)
        waiting[tag] = graded
        pool.submit(tag, problems[tag[0]], graded.text)
        yield from finished(wait=False)
    yield from finished(wait=True)


def missing(
    problems: Iterable[Problem], wanted: Callable[[Problem], Iterable[int]], existing: Mapping[str, set[int]]
) -> Iterator[tuple[Problem, list[int]]]:
    """The wanted sample indices that are not there yet; complete problems are left out."""
    for problem in problems:
        have = existing.get(problem.id, set())
        lacking = [i for i in wanted(problem) if i not in have]
        if lacking:
            yield problem, lacking
