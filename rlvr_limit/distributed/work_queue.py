"""Answers that several hosts draw between them: who draws which, and how all of them get all.

A sample's key derives from what it is, so it is the same whoever draws it.
"""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from rlvr_limit.distributed.hosts import Hosts
from rlvr_limit.distributed.mesh import gathered
from rlvr_limit.engine.rollout import Graded
from rlvr_limit.types import Problem, Sample, Status, Stop, Verdict

Work = Sequence[tuple[Problem, list[int]]]
"""(problem, sample indices that are still to be drawn)."""

Draw = Callable[[Iterable[tuple[Problem, Iterable[int]]]], Iterator[Graded]]
"""Draws the given sample indices of each problem, which are read one by one."""

SHARES = 8
"""A problem's samples are leased in so many shares for each host: few calls, and little to wait for in the end."""


def leased(hosts: Hosts, name: str, work: Work, n: Callable[[Problem], int]) -> Iterator[tuple[Problem, Iterable[int]]]:
    """The work of this host's replica: every problem, and of its samples below n(problem) what no other one has leased.

    Replicas begin at different problems, so that the samples of one share their prompt's cache for as long as may be.
    """
    first = hosts.replica * len(work) // hosts.replicas
    for problem, lacking in [*work[first:], *work[:first]]:
        yield problem, leased_of(hosts, f"{name}/{problem.id}", lacking, n(problem))


def leased_of(hosts: Hosts, name: str, lacking: list[int], n: int) -> Iterator[int]:
    """Those of the lacking indices below n that this host's replica leases.

    Hosts may have read the records at different moments: what a share stands for does not depend on what is lacking.
    """
    size = -(-n // (SHARES * hosts.count))
    wanted = set(lacking)
    for share in hosts.shares(name, -(-n // size)):
        yield from sorted(wanted.intersection(range(share * size, (share + 1) * size)))


def drawn_by_all(hosts: Hosts, name: str, problems: Sequence[Problem], n: int, draw: Draw) -> Iterator[Graded]:
    """n answers to each problem; on one host as they are drawn. Several share them out and then exchange all of them,
    so that each has the same ones in the same order, whoever drew and judged them."""
    if hosts.count == 1:
        yield from draw((problem, range(n)) for problem in problems)
        return
    everything = [(problem, list(range(n))) for problem in problems]
    mine = packed(list(draw(leased(hosts, name, everything, lambda _: n))))
    # Waited for here: a collective may not wait for as long as the longest answer takes.
    lengths = [int(said) for said in hosts.exchange(str(len(mine)))]
    for theirs in gathered(mine, lengths):
        yield from unpacked(theirs)


def packed(answers: Sequence[Graded]) -> bytes:
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


def unpacked(data: bytes) -> Iterator[Graded]:
    """What packed was given."""
    with np.load(io.BytesIO(data)) as held:
        about = json.loads(held["about"].tobytes())
        ends = np.cumsum(held["lengths"])[:-1]
        columns = [np.split(held[name], ends) for name in ("tokens", "logp", "logp_model")]
    # np.split makes one piece even of nothing.
    for (problem_id, index, stop, text, judged), *lists in zip(about, *columns, strict=bool(about)):
        sample = Sample(problem_id, index, *(tuple(values.tolist()) for values in lists), Stop(stop))
        verdict = Verdict(*judged) if judged else None
        yield Graded(sample, text, verdict and dataclasses.replace(verdict, status=Status(verdict.status)))
