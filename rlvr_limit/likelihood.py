"""Log-likelihood of given answers under given parameters (METRICS.md item 14). Shape legend: model.py."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kernels.token_logprob import token_logprob
from rlvr_limit import model
from rlvr_limit.mesh import mesh_of, row_parts, row_shards, shards_of
from rlvr_limit.model import ModelConfig, Params
from rlvr_limit.types import UserError

HELD_LOGITS = 2**27
"""Logits that scoring holds at a time on one device: 0.5 GB in float32."""


class Rows(NamedTuple):
    """Prompts and answers side by side; answer marks the tokens that count.

    Either one pair a row, padded on the right, or several: then segment counts a row's pairs from 1 (0: padding), and
    position a pair's tokens from 0.
    """

    tokens_BT: jax.Array
    answer_BT: jax.Array
    segment_BT: jax.Array | None = None
    position_BT: jax.Array | None = None


def to_rows(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], places: int) -> Rows:
    """Rows [B, places] of (prompt ids, answer ids) pairs. Raises UserError where a pair does not fit."""
    tokens = np.zeros((len(pairs), places), np.int32)
    answer = np.zeros((len(pairs), places), bool)
    for i, (prompt, reply) in enumerate(pairs):
        end = len(prompt) + len(reply)
        if not prompt or end > places:
            raise UserError(f"likelihood: pair {i} has {len(prompt)} + {len(reply)} tokens, a row holds {places}")
        tokens[i, :end] = (*prompt, *reply)
        answer[i, len(prompt) : end] = True
    return Rows(tokens, answer)


def answer_logprobs(
    params: Params,
    config: ModelConfig,
    rows: Rows,
    chunk: int = 4096,
    packed: int | None = None,
    held: int = HELD_LOGITS,
    remat: str = "none",
    sums: list[Params] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """(log P(token | everything before it), entropy of that distribution) [B, T], nats; 0 outside the answers.

    Logits are there for `chunk` positions of a device at a time, fewer where more than `held` would be there; in a
    backward pass as many. packed: at how many positions of a device they are computed, a result of packed_positions;
    None: at every one. Answer tokens that find no place in it come out as NaN. remat, sums: see model.decode.
    """
    hidden, _ = model.causal(params, config, rows.tokens_BT, "rows", rows.position_BT, rows.segment_BT, remat, sums)
    b, t = rows.tokens_BT.shape
    # On a mesh each device has its share of every chunk; cut across devices, all of them would work on each chunk.
    shards = row_shards(hidden, b)
    positions = b * t // shards
    hidden_SPD = hidden.reshape(shards, positions, -1)
    targets_SP = jnp.roll(rows.tokens_BT, -1, axis=1).reshape(shards, positions)
    if packed is None:
        chunk = min(chunk, max(1, held // config.vocab_size), positions)
        logp, entropy = _in_chunks(params, config, hidden_SPD, targets_SP, chunk)
    else:
        predicts_SP = jnp.roll(rows.answer_BT, -1, axis=1).reshape(shards, positions)
        chosen_SK = jnp.argsort(~predicts_SP, axis=1, stable=True)[:, :packed]
        packed_SKD = jnp.take_along_axis(hidden_SPD, chosen_SK[..., None], axis=1)
        packed_targets_SK = jnp.take_along_axis(targets_SP, chosen_SK, axis=1)
        found = _in_chunks(params, config, packed_SKD, packed_targets_SK, _packed_chunk(config, positions, chunk, held))
        place_SP = jnp.cumsum(predicts_SP, axis=1) - 1
        logp, entropy = (
            jnp.where(place_SP < packed, jnp.take_along_axis(x, jnp.clip(place_SP, 0, packed - 1), axis=1), jnp.nan)
            for x in found
        )

    def align(x_SP: jax.Array) -> jax.Array:
        return jnp.where(rows.answer_BT, jnp.roll(x_SP.reshape(b, t), 1, axis=1), 0.0)

    return align(logp), align(entropy)


def packed_positions(
    config: ModelConfig, answer_BT: np.ndarray, shards: int, chunk: int = 4096, held: int = HELD_LOGITS
) -> int:
    """The `packed` of answer_logprobs, of the same chunk and held, for these answers, where rows are cut into so many
    shards.

    The most answer tokens of a shard, rounded up to whole chunks and to an eighth of the next power of two: less than
    a quarter too many or than a chunk, and few programs are compiled.
    """
    positions = answer_BT.size // shards
    most = max(1, int(np.max(np.sum(answer_BT.reshape(shards, -1), axis=1))))
    step = max(_packed_chunk(config, positions, chunk, held), (1 << (most - 1).bit_length()) // 8)
    return min(-(-most // step) * step, positions)


def _packed_chunk(config: ModelConfig, positions: int, chunk: int, held: int) -> int:
    """A power of two, and the same however many positions are packed: an answer's bits shall not hang on its mates."""
    return 1 << max(1, min(chunk, held // config.vocab_size, positions // 8)).bit_length() - 1


def _in_chunks(
    params: Params, config: ModelConfig, hidden_SPD: jax.Array, targets_SP: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """token_logprob of each shard, padded to whole chunks."""
    positions = targets_SP.shape[1]
    rest = -positions % chunk
    hidden_SPD = jnp.pad(hidden_SPD, ((0, 0), (0, rest), (0, 0)))
    targets_SP = jnp.pad(targets_SP, ((0, 0), (0, rest)))
    with model.matmul_precision(config.dtype):
        weights_DV = model.unembedding(params).astype(config.dtype)
        logp, entropy = _per_shard(hidden_SPD, weights_DV, targets_SP, chunk)
    return logp[:, :positions], entropy[:, :positions]


def _per_shard(
    hidden_SPD: jax.Array, unembedding_DV: jax.Array, targets_SP: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    compute = partial(token_logprob, chunk=chunk, vocabulary_parts=shards_of(unembedding_DV, "vocab", 1))
    if len(hidden_SPD) == 1:
        logp, entropy = compute(hidden_SPD[0], unembedding_DV, targets_SP[0])
        return logp[None], entropy[None]
    return jax.vmap(compute, in_axes=(0, None, 0))(hidden_SPD, unembedding_DV, targets_SP)


@partial(jax.jit, static_argnums=(1, 3))
def batch_logprobs(params: Params, config: ModelConfig, rows: Rows, packed: int | None = None) -> jax.Array:
    """The log-probs [B, T] of answer_logprobs as one compiled program."""
    return answer_logprobs(params, config, rows, packed=packed)[0]


def score(
    params: Params,
    config: ModelConfig,
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]],
    places: int,
    batch: int = 256,
) -> Iterator[tuple[float, ...]]:
    """Per-token log-probs of each answer, in order, in nats; rows are of one shape [batch, places]."""
    pairs = list(pairs)
    shards = row_parts(mesh_of(params), batch)
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        rows = to_rows(part + [(part[0][0], ())] * (batch - len(part)), places)
        logp_BT = np.asarray(batch_logprobs(params, config, rows, packed_positions(config, rows.answer_BT, shards)))
        for i, (prompt, reply) in enumerate(part):
            yield tuple(logp_BT[i, len(prompt) : len(prompt) + len(reply)].tolist())


def perplexity(logp: Sequence[float]) -> float:
    """exp(-(1/T) sum_t log P(y_t | x, y_<t)) over the T tokens of an answer, its end token included."""
    return float(np.exp(-np.mean(np.asarray(logp, np.float64))))
