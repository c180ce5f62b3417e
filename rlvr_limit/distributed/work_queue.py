"""Which host draws which samples. A sample's key derives from what it is, so it is the same whoever draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from rlvr_limit.distributed.hosts import Hosts
from rlvr_limit.types import Problem

Work = Sequence[tuple[Problem, list[int]]]
"""(problem, sample indices that are still to be drawn)."""

SHARES = 8
"""A problem's samples are leased in so many shares for each host: few calls, and little to wait for in the end."""


def leased_work(
    hosts: Hosts, name: str, work: Work, n: Callable[[Problem], int]
) -> Iterator[tuple[Problem, Iterable[int]]]:
    """The work of this host's replica: of every problem those of its lacking samples that the replica leases.

    Replicas begin at different problems, so that the samples of one share their prompt's cache for as long as may be.
    """
    first = hosts.replica * len(work) // hosts.replicas
    for problem, lacking in [*work[first:], *work[:first]]:
        yield problem, leased_indices(hosts, f"{name}/{problem.id}", lacking, n(problem))


def leased_indices(hosts: Hosts, name: str, lacking: list[int], n: int) -> Iterator[int]:
    """Those of the lacking indices below n that this host's replica leases.

    Hosts may have read the records at different moments: what a share stands for does not depend on what is lacking.
    """
    size = -(-n // (SHARES * hosts.count))
    wanted = set(lacking)
    for share in hosts.lease_shares(name, -(-n // size)):
        yield from sorted(wanted.intersection(range(share * size, (share + 1) * size)))
