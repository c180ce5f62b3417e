"""What the engine is asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import jax
import numpy as np

from rlvr_limit.settings.schema import check_ranges
from rlvr_limit.types import SamplingParams, UserError

STOP_TOKENS = 4


@dataclass(frozen=True)
class Request:
    """Draw samples `indices` of one prompt. key comes from prompt_key.

    limits are the max_tokens of single samples, by index, where they are fewer than the others'.
    stop, if given, looks at the drained tokens of a sample and returns how many of them to keep, or None to go on.
    """

    problem_id: str
    prompt_ids: tuple[int, ...]
    key: tuple[int, int]
    indices: Iterable[int]
    sampling: SamplingParams
    stop: Callable[[tuple[int, ...]], int | None] | None = None
    limits: Mapping[int, int] = field(default_factory=dict)

    def limit(self, index: int) -> int:
        """Most tokens of a sample."""
        return self.limits.get(index, self.sampling.max_tokens)


def prompt_key(seed: int, stream: str, prompt: str) -> tuple[int, int]:
    """The random key of a rendered prompt in a stream: what a sample is decides its numbers, never where it ran."""
    digests = hashlib.sha256(stream.encode()).digest()[:8] + hashlib.sha256(prompt.encode()).digest()[:8]
    key = jax.random.key(seed, impl="threefry2x32")
    for word in np.frombuffer(digests, ">u4"):
        key = jax.random.fold_in(key, int(word))
    first, second = np.asarray(jax.random.key_data(key))
    return int(first), int(second)


def check(request: Request, max_prompt_len: int, max_tokens: int, vocab_size: int) -> None:
    """Raises UserError, naming the problem, where the engine cannot draw what is asked."""
    where, sampling = f"problem {request.problem_id}", request.sampling
    if not 1 <= len(request.prompt_ids) <= max_prompt_len:
        raise UserError(
            f"{where}: the prompt has {len(request.prompt_ids)} tokens, the engine holds 1 to {max_prompt_len} "
            "(engine.max_prompt_len)"
        )
    unknown = next((token for token in request.prompt_ids if not 0 <= token < vocab_size), None)
    if unknown is not None:
        raise UserError(f"{where}: prompt token {unknown} is not in the model's vocabulary, 0 to {vocab_size - 1}")
    if not 1 <= sampling.max_tokens <= max_tokens:
        raise UserError(f"{where}: max_tokens {sampling.max_tokens} is not in 1 to {max_tokens}")
    wrong = next((i for i, limit in request.limits.items() if not 1 <= limit <= sampling.max_tokens), None)
    if wrong is not None:
        raise UserError(
            f"{where}: sample {wrong} is limited to {request.limits[wrong]} tokens, not to 1 to {sampling.max_tokens}"
        )
    if len(sampling.stop_tokens) > STOP_TOKENS:
        raise UserError(f"{where}: more than {STOP_TOKENS} stop tokens")
    check_ranges(sampling, f"{where}: ")
