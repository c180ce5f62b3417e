"""What the engine is asked for, and what it tells of itself while it draws."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np

from rlvr_limit.settings.schema import check_ranges
from rlvr_limit.types import SamplingParams, UserError, not_allowed

MAX_STOP_TOKENS = 4


@dataclass(frozen=True)
class Request:
    """Draw samples `indices` of one prompt."""

    problem_id: str
    prompt_ids: tuple[int, ...]
    key: tuple[int, int]  # from prompt_key
    indices: Iterable[int]
    sampling: SamplingParams
    # Sees a sample's tokens after each call; says how many of them to keep, or None to go on.
    stop: Callable[[tuple[int, ...]], int | None] | None = None
    limits: Mapping[int, int] = field(default_factory=dict)  # max_tokens of single samples, where it is less
    images: tuple[Any, ...] = ()  # of rlvr_limit.images, in the order of their tokens in the prompt
    drawn: int = 0  # last tokens of prompt_ids that are an answer's: none of them is an image's

    def limit(self, index: int) -> int:
        """Most tokens of a sample."""
        return self.limits.get(index, self.sampling.max_tokens)


class EngineStats(NamedTuple):
    """The engine at the start of a call."""

    running: int  # samples
    rows: int  # of the programs that they run in
    pages: int  # in use
    tokens: int  # whose keys and values are in use; a prompt's count once
    attended: int  # the same, but a prompt's count for each of its samples
    # So far:
    prefills: int  # prompts
    preempted: int  # samples
    encoded: int = 0  # images


def prompt_key(seed: int, stream: str, prompt: str) -> tuple[int, int]:
    """The random key of a Problem.identity in a stream: what a sample is decides its numbers, never where it ran."""
    digests = hashlib.sha256(stream.encode()).digest()[:8] + hashlib.sha256(prompt.encode()).digest()[:8]
    key = jax.random.key(seed, impl="threefry2x32")
    for word in np.frombuffer(digests, ">u4"):
        key = jax.random.fold_in(key, int(word))
    first, second = np.asarray(jax.random.key_data(key))
    return int(first), int(second)


def check(request: Request, max_prompt_len: int, max_tokens: int, vocab_size: int) -> None:
    """Raises UserError, naming the problem, where the engine cannot draw what is asked."""
    where, s = f"problem {request.problem_id}", request.sampling
    if not 1 <= len(request.prompt_ids) <= max_prompt_len:
        raise UserError(
            f"{where}: the prompt has {len(request.prompt_ids)} tokens, the engine takes 1 to {max_prompt_len} "
            "(engine.max_prompt_len)"
        )
    for token in request.prompt_ids:
        if not 0 <= token < vocab_size:
            raise not_allowed(f"{where}: prompt token", token, f"in the model's vocabulary, 0 to {vocab_size - 1}")
    check_ranges(s, f"{where}: ")
    if not 1 <= s.max_tokens <= max_tokens:
        raise not_allowed(f"{where}: max_tokens", s.max_tokens, f"in [1, {max_tokens}]")
    if len(s.stop_tokens) > MAX_STOP_TOKENS:
        raise not_allowed(f"{where}: stop_tokens", s.stop_tokens, f"{MAX_STOP_TOKENS} tokens or fewer")
    for index, limit in request.limits.items():
        if not 1 <= limit <= s.max_tokens:
            raise not_allowed(f"{where}: the limit of sample {index}", limit, f"in [1, {s.max_tokens}]")
