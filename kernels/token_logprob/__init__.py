"""Log-probabilities of given tokens without holding the whole vocabulary for every position."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from kernels.matmul import ColumnMajor
from kernels.platforms import by_platform
from kernels.token_logprob import backward, gpu, reference, tpu


def token_logprob(
    hidden_RD: jax.Array,
    unembedding_DV: jax.Array | ColumnMajor,
    targets_R: jax.Array,
    chunk: int,
    vocabulary_parts: int = 1,
    max_live_logits: int = 0,
) -> tuple[jax.Array, jax.Array]:
    """(log-prob of each target, entropy of each row's distribution), float32 [R], in nats.

    About chunk x V logits live at a time, in the backward pass too. Where all logits are no more than max_live_logits,
    and V is not cut, they are kept for the backward pass instead of made again. vocabulary_parts: into how many equal
    parts a mesh cuts V. By columns it is a CPU's, and not differentiated. Raises ValueError where R does not divide by
    chunk.
    """
    if len(hidden_RD) % chunk:
        raise ValueError(f"token_logprob: {len(hidden_RD)} rows do not divide into chunks of {chunk}")
    score = jax.custom_vjp(partial(_score, chunk=chunk, parts=vocabulary_parts))
    if vocabulary_parts == 1 and len(hidden_RD) * unembedding_DV.shape[1] <= max_live_logits:
        score.defvjp(backward.forward, backward.gradient_of_kept)
    else:
        cut = {"chunk": chunk, "parts": vocabulary_parts}
        score.defvjp(partial(_forward, **cut), partial(_backward, **cut))
    return score(hidden_RD, unembedding_DV, targets_R)


def _score(
    hidden_RD: jax.Array, unembedding_DV: jax.Array | ColumnMajor, targets_R: jax.Array, chunk: int, parts: int
) -> tuple[jax.Array, jax.Array]:
    if isinstance(unembedding_DV, ColumnMajor):
        return gpu.token_logprob(hidden_RD, unembedding_DV, targets_R, chunk, gpu.CPU_TILE_LOGITS)
    # A tile of a vocabulary that a mesh cuts would have to be fetched from the device that has it.
    tiles = partial(gpu.token_logprob, chunk=chunk, tile_logits=gpu.CPU_TILE_LOGITS) if parts == 1 else None
    return by_platform(
        *(hidden_RD, unembedding_DV, targets_R),
        default=partial(reference.token_logprob, chunk=chunk),
        tpu=partial(tpu.token_logprob, chunk=chunk),
        cuda=partial(gpu.token_logprob, chunk=chunk),
        cpu=tiles,
    )


def _forward(
    hidden_RD: jax.Array, unembedding_DV: jax.Array, targets_R: jax.Array, chunk: int, parts: int
) -> tuple[Any, Any]:
    scores = _score(hidden_RD, unembedding_DV, targets_R, chunk, parts)
    return scores, (hidden_RD, unembedding_DV, targets_R, scores)


def _backward(
    kept: Any, cotangents: tuple[jax.Array, jax.Array], chunk: int, parts: int
) -> tuple[jax.Array, jax.Array, None]:
    return *backward.gradient(*kept, cotangents, chunk * kept[1].shape[1], parts), None
