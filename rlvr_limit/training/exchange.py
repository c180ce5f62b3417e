"""Answers with verdicts, which all hosts of a run draw between them and then all have."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlvr_limit.distributed.hosts import Hosts
from rlvr_limit.distributed.mesh import all_gather_bytes
from rlvr_limit.distributed.work_queue import leased_work
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.rollout import Graded, graded_beside, rollout
from rlvr_limit.grading.pool.pool import GradingPool
from rlvr_limit.types import Grader, Problem, Sample, SamplingParams, Status, Stop, Verdict

Draw = Callable[[Iterable[tuple[Problem, Iterable[int]]]], Iterator[Graded]]
"""Draws the given sample indices of each problem, which are read one by one."""


@dataclass(frozen=True)
class AnswerSource:
    """What answers are drawn from, and who grades them; without either grader they have no verdict."""

    engine: Engine
    decode: Callable[[tuple[int, ...]], str]
    seed: int
    hosts: Hosts
    grader: Grader | None = None
    pool: GradingPool | None = None  # grades in other processes, in place of grader

    def answers(
        self, problems: Sequence[Problem], n: int, sampling: Callable[[Problem], SamplingParams], stream: str
    ) -> Iterator[Graded]:
        """n answers to each problem, on all hosts."""
        by_id = {problem.id: problem for problem in problems}

        def draw(work: Iterable[tuple[Problem, Iterable[int]]]) -> Iterator[Graded]:
            return self.graded(
                rollout(self.engine.generate, work, sampling, self.seed, stream, self.decode, None), by_id
            )

        return drawn_by_all(self.hosts, stream, problems, n, draw)

    def graded(self, answers: Iterator[Graded], problems: Mapping[str, Problem]) -> Iterator[Graded]:
        """The answers with their verdicts, in no order."""
        if self.pool:
            yield from graded_beside(answers, problems, self.pool)
            return
        for answer in answers:
            verdict = self.grader(problems[answer.sample.problem_id], answer.text) if self.grader else None
            yield dataclasses.replace(answer, verdict=verdict)


def drawn_by_all(hosts: Hosts, name: str, problems: Sequence[Problem], n: int, draw: Draw) -> Iterator[Graded]:
    """n answers to each problem; on one host as they are drawn.

    Several hosts share the drawing and then exchange all answers: each has the same ones in the same order.
    """
    if hosts.count == 1:
        yield from draw((problem, range(n)) for problem in problems)
        return
    work = [(problem, list(range(n))) for problem in problems]
    own = to_bytes(list(draw(leased_work(hosts, name, work, lambda _: n))))
    # Waited for here: a collective may not wait for as long as the longest answer takes.
    lengths = [int(length) for length in hosts.exchange(str(len(own)))]
    for data in all_gather_bytes(own, lengths):
        yield from from_bytes(data)


def to_bytes(answers: Sequence[Graded]) -> bytes:
    """Answers as bytes; their log-probs are float32, as the engine gives them."""
    samples = [graded.sample for graded in answers]
    about = [
        (g.sample.problem_id, g.sample.index, g.sample.stop, g.text, g.verdict and dataclasses.astuple(g.verdict))
        for g in answers
    ]
    file = io.BytesIO()
    np.savez(
        file,
        about=np.frombuffer(json.dumps(about).encode(), np.uint8),
        lengths=np.array([len(sample.tokens) for sample in samples], np.int64),
        tokens=np.array([x for sample in samples for x in sample.tokens], np.int32),
        logp=np.array([x for sample in samples for x in sample.logp], np.float32),
        logp_model=np.array([x for sample in samples for x in sample.logp_model], np.float32),
    )
    return file.getvalue()


def from_bytes(data: bytes) -> Iterator[Graded]:
    """What to_bytes was given."""
    with np.load(io.BytesIO(data)) as stored:
        about = json.loads(stored["about"].tobytes())
        ends = np.cumsum(stored["lengths"])[:-1]
        columns = [np.split(stored[name], ends) for name in ("tokens", "logp", "logp_model")]
    # np.split makes one piece even of nothing.
    for (problem_id, index, stop, text, judged), *lists in zip(about, *columns, strict=bool(about)):
        sample = Sample(problem_id, index, *(tuple(values.tolist()) for values in lists), Stop(stop))
        verdict = Verdict(*judged) if judged else None
        yield Graded(sample, text, verdict and dataclasses.replace(verdict, status=Status(verdict.status)))
