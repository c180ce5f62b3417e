"""Answers from p^alpha by Metropolis-Hastings over suffixes (Karan and Du 2025, arXiv 2510.14901, alg. 1).

A step keeps an answer up to a cut, uniform over its tokens, and draws the rest anew from q, the model at temperature
1 / alpha; `log_ratio` decides which of both answers stays. At each cut as many chains go from one answer to another as
back, so p^alpha over answers of at most so many tokens stays as it is, and chains that begin elsewhere come closer with
every step. With blocks, answers of one block first take their steps, then grow by another block and take as many again.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from rlvr_limit.engine.requests import EngineStats, Request
from rlvr_limit.settings import Sharpen
from rlvr_limit.types import Sample, Stop

Generate = Callable[[Iterable[Request], Callable[[EngineStats], None] | None], Iterator[Sample]]
"""Engine.generate, and what stands in its place."""


CHAINS = 8
"""Chains that take their steps together, for each sequence of the engine: more wait longer to be put on record."""


class _Proposal(NamedTuple):
    """What a chain is asked next: to keep so many tokens, and to draw others up to a limit of all."""

    request: Request
    index: int
    kept: int
    limit: int
    patience: float  # -log of a uniform number: it is accepted where log_ratio is above -patience


def sharpened(generate: Generate, how: Sharpen, max_num_seqs: int) -> Generate:
    """generate, but of each sample the last state of a chain, which depends on nothing but its key and index.

    Requests ask for temperature 1 / alpha and cut nothing off. A step of chains that take it together is requests of
    prompts with what is kept; they are yielded once all have taken the last one.
    """

    def chains(requests: Iterable[Request], watch: Callable[[EngineStats], None] | None = None) -> Iterator[Sample]:
        pairs = ((request, index) for request in requests for index in request.indices)
        while together := list(itertools.islice(pairs, CHAINS * max_num_seqs)):
            yield from _last_states(generate, how, together, watch)

    return chains


def log_ratio(old: Sample, new: Sample, kept: int, alpha: float) -> float:
    """log of p(new)^alpha q(old | kept) len(old) / p(old)^alpha q(new | kept) len(new).

    1 / len is the chance of the cut: answers end by themselves, so lengths differ.
    """
    model, drawn = (
        math.fsum(getattr(new, name)[kept:]) - math.fsum(getattr(old, name)[kept:]) for name in ("logp_model", "logp")
    )
    return alpha * model - drawn + math.log(len(old.tokens) / len(new.tokens))


def _last_states(
    generate: Generate,
    how: Sharpen,
    chains: list[tuple[Request, int]],
    watch: Callable[[EngineStats], None] | None,
) -> Iterable[Sample]:
    longest = max(request.sampling.max_tokens for request, _ in chains)
    block = how.block or longest
    states = {(r.problem_id, i): Sample(r.problem_id, i, (), (), (), Stop.LENGTH) for r, i in chains}
    for number in range(-(-longest // block) * (how.steps + 1)):
        at, step = divmod(number, how.steps + 1)
        proposals = {}
        for request, index in chains:
            state, most = states[request.problem_id, index], request.sampling.max_tokens
            # The first of each block lets an answer grow that has not ended.
            if at * block >= most or (step == 0 and state.stop != Stop.LENGTH):
                continue
            rng = random.Random(f"{request.key}/{index}/{number}")
            kept = rng.randrange(len(state.tokens)) if step else len(state.tokens)
            limit = min((at + 1) * block, most)
            proposals[state.problem_id, index] = _Proposal(request, index, kept, limit, rng.expovariate(1.0))
        for drawn in generate(_requests(proposals.values(), states, number), watch):
            key = drawn.problem_id, drawn.index
            old, proposal = states[key], proposals[key]
            new = _joined(old, drawn, proposal.kept)
            is_accepted = step == 0 or log_ratio(old, new, proposal.kept, how.alpha) > -proposal.patience
            states[key] = new if is_accepted else replace(old, drawn=new.drawn)
    return states.values()


def _requests(proposals: Iterable[_Proposal], states: dict[tuple[str, int], Sample], number: int) -> Iterator[Request]:
    """One for all chains of a problem that keep the same."""
    alike: dict[tuple[str, tuple[int, ...]], list[_Proposal]] = defaultdict(list)
    for proposal in proposals:
        name = proposal.request.problem_id
        alike[name, states[name, proposal.index].tokens[: proposal.kept]].append(proposal)
    for (_, kept), members in alike.items():
        request, limit = members[0].request, members[0].limit
        yield replace(
            request,
            prompt_ids=(*request.prompt_ids, *kept),
            key=_key(request.key, number),
            indices=tuple(proposal.index for proposal in members),
            sampling=replace(request.sampling, max_tokens=limit - len(kept)),
            drawn=len(kept),
        )


def _key(key: tuple[int, int], number: int) -> tuple[int, int]:
    """The random key of a chain's proposals of that number."""
    first, second = np.frombuffer(hashlib.sha256(f"{key}/{number}".encode()).digest()[:8], ">u4")
    return int(first), int(second)


def _joined(old: Sample, drawn: Sample, kept: int) -> Sample:
    """What is kept of an answer with what was drawn behind it."""
    columns = {name: getattr(old, name)[:kept] + getattr(drawn, name) for name in ("tokens", "logp", "logp_model")}
    return replace(drawn, **columns, drawn=old.drawn + len(drawn.tokens))
