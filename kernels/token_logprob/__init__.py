"""Log-probabilities of given tokens without holding the whole vocabulary for every position."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from kernels.platforms import by_platform
from kernels.token_logprob import backward, gpu, reference, tpu

__all__ = ["token_logprob"]


def token_logprob(
    hidden_RD: jax.Array,
    unembedding_DV: jax.Array,
    targets_R: jax.Array,
    chunk: int,
    vocabulary_parts: int = 1,
    held: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """(log-prob of each target, entropy of each row's distribution), float32 [R], in nats.

    About chunk x V logits live at a time, in the backward pass too. R must divide by chunk, or ValueError is raised.
    vocabulary_parts: into how many equal parts a mesh cuts V. Where all logits are no more than `held`, and V is not
    cut, a backward pass finds those of the forward pass instead of making them again.
    """
    score = jax.custom_vjp(partial(_score, chunk=chunk, parts=vocabulary_parts))
    if vocabulary_parts == 1 and len(hidden_RD) * unembedding_DV.shape[1] <= held:
        score.defvjp(backward.forward, backward.gradient_of_kept)
    else:
        score.defvjp(
            partial(_forward, chunk=chunk, parts=vocabulary_parts), partial(_backward, chunk, vocabulary_parts)
        )
    return score(hidden_RD, unembedding_DV, targets_R)


def _score(
    hidden_RD: jax.Array, unembedding_DV: jax.Array, targets_R: jax.Array, chunk: int, parts: int
) -> tuple[jax.Array, jax.Array]:
    reference.check_rows(len(hidden_RD), chunk)
    # A tile of a vocabulary that a mesh cuts would have to be fetched from the device that has it.
    tiles = partial(gpu.token_logprob, chunk=chunk, held=gpu.CPU_TILE_LOGITS) if parts == 1 else None
    return by_platform(
        hidden_RD,
        unembedding_DV,
        targets_R,
        default=partial(reference.token_logprob, chunk=chunk),
        tpu=partial(tpu.token_logprob, chunk=chunk),
        cuda=partial(gpu.token_logprob, chunk=chunk),
        cpu=tiles,
    )


def _forward(
    hidden_RD: jax.Array, unembedding_DV: jax.Array, targets_R: jax.Array, chunk: int, parts: int
) -> tuple[Any, Any]:
    found = _score(hidden_RD, unembedding_DV, targets_R, chunk, parts)
    return found, (hidden_RD, unembedding_DV, targets_R, found)


def _backward(
    chunk: int, parts: int, kept: Any, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, None]:
    return *backward.gradient(*kept, cotangents, chunk * kept[1].shape[1], parts), None
