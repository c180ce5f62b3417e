"""What the engine is asked for, and its shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import jax
import numpy as np

from rlvr_limit.types import SamplingParams, UserError

STOP_TOKENS = 4


@dataclass(frozen=True)
class EngineConfig:
    """Shapes of the compiled programs.

    slots samples are alive at once; a window is the number of steps between two looks of the host; prompts hold at
    most prompt_places tokens and are prefilled prefill_rows at a time.
    Keys and values lie in pages of `page` tokens (16 or more, rounded up to whole windows). cache_tokens is what all
    pages hold; 0 leaves room for every slot's longest sample and for prefix_rows prompts. cache_dtype "int8" keeps
    them in 8 bits (cache.py), in about half the memory, which changes what is sampled; "" is the model's dtype.
    buckets are the numbers of rows that programs are compiled for, the smallest that holds all live samples is taken;
    () means one of all slots. Prompts of group_from tokens or more are attended to by all of their rows together,
    on accelerators those of any length.
    draft switches speculation on: in buckets of up to draft / window rows, a whole window can be guessed from other
    samples of the same problem and verified at once, where that is faster. It is about the number of tokens that the
    machine computes in the time in which it reads the weights; 0 is off, since what a sample is then depends, within
    rounding, on what was guessed.
    reference mode always runs tiles of 64 rows, so that samples are bitwise the same for any number of slots.
    """

    slots: int = 256
    window: int = 8
    page: int = 32
    cache_tokens: int = 0
    cache_dtype: str = ""
    buckets: tuple[int, ...] = ()
    group_from: int = 64
    draft: int = 0
    prompt_places: int = 16
    prefill_rows: int = 16
    prefix_rows: int = 64
    reference: bool = False


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


def check(request: Request, prompt_places: int, max_tokens: int, vocab_size: int) -> None:
    """Raises UserError, naming the problem, where the engine cannot draw what is asked."""
    where, sampling = f"problem {request.problem_id}", request.sampling
    if not 1 <= len(request.prompt_ids) <= prompt_places:
        raise UserError(
            f"{where}: the prompt has {len(request.prompt_ids)} tokens, the engine holds 1 to {prompt_places} "
            "(engine.prompt_places)"
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
    if not sampling.temperature >= 0:
        raise UserError(f"{where}: temperature {sampling.temperature} is not 0 or more")
    if not 0 < sampling.top_p <= 1:
        raise UserError(f"{where}: top_p {sampling.top_p} is not above 0 and at most 1")
    if sampling.top_k < 0:
        raise UserError(f"{where}: top_k {sampling.top_k} is not 0 (off) or more")
    if not 0 <= sampling.min_p <= 1:
        raise UserError(f"{where}: min_p {sampling.min_p} is not in 0 (off) to 1")
