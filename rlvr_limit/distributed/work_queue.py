"""Which host draws which samples, and in which round: a sample's key derives from what it is, whoever draws it when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from rlvr_limit.distributed.hosts import Hosts
from rlvr_limit.types import Problem

Round = Callable[[int], range]
"""Of a problem that is to have n samples, the indices of those that are drawn in this round."""

Work = Sequence[tuple[Problem, list[int]]]
"""(problem, sample indices that are still to be drawn)."""

SHARES = 8
"""A problem's samples are leased in so many shares for each host: few calls, and little to wait for in the end."""

SHARE, LEAST = 16, 4
"""One in SHARE of a problem's samples, LEAST at least, is drawn in the first of two rounds."""

LONG = 50_000
"""Steps of decoding, eight minutes at 10 ms each: a study that takes fewer keeps one round."""


def rounds(arms: int, samples: int, sequences: int, max_tokens: int) -> list[Round]:
    """One round or two, so that all arms have a small share of their samples before any has the rest.

    samples: of an arm, over all problems; sequences: that are drawn at once. A round ends in a tail of few sequences
    and then other weights are loaded, so there are two only where the first fills the engine once, and where all arms
    together take LONG steps at most tokens.
    """
    if arms == 1 or samples < SHARE * sequences or arms * samples * max_tokens < LONG * sequences:
        return [range]
    return [lambda n: range(_first_share(n)), lambda n: range(_first_share(n), n)]


def _first_share(n: int) -> int:
    return min(n, max(LEAST, n // SHARE))


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
