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
from rlvr_limit.model import ModelConfig, Params
from rlvr_limit.types import UserError


class Rows(NamedTuple):
    """Prompts and answers side by side, padded on the right; answer marks the tokens that count."""

    tokens_BT: jax.Array
    answer_BT: jax.Array


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


def answer_logprobs(params: Params, config: ModelConfig, rows: Rows, chunk: int = 4096) -> tuple[jax.Array, jax.Array]:
    """(log P(token | everything before it), entropy of that distribution) [B, T], nats; 0 outside the answers.

    The vocabulary is held for `chunk` positions at a time only.
    """
    hidden, _ = model.causal(params, config, rows.tokens_BT)
    b, t = rows.tokens_BT.shape
    targets = jnp.roll(rows.tokens_BT, -1, axis=1).reshape(-1)
    rest = -(b * t) % chunk if b * t > chunk else 0
    flat = jnp.pad(hidden.reshape(b * t, -1), ((0, rest), (0, 0)))
    logp, entropy = token_logprob(flat, model.unembedding(params), jnp.pad(targets, (0, rest)), min(chunk, b * t))

    def align(x: jax.Array) -> jax.Array:
        return jnp.where(rows.answer_BT, jnp.roll(x[: b * t].reshape(b, t), 1, axis=1), 0.0)

    return align(logp), align(entropy)


@partial(jax.jit, static_argnums=1)
def _logprobs(params: Params, config: ModelConfig, rows: Rows) -> jax.Array:
    return answer_logprobs(params, config, rows)[0]


def score(
    params: Params,
    config: ModelConfig,
    pairs: Iterable[tuple[Sequence[int], Sequence[int]]],
    places: int,
    batch: int = 256,
) -> Iterator[tuple[float, ...]]:
    """Per-token log-probs of each answer, in order, in nats; one compiled shape [batch, places]."""
    pairs = list(pairs)
    for start in range(0, len(pairs), batch):
        part = pairs[start : start + batch]
        rows = to_rows(part + [part[0]] * (batch - len(part)), places)
        logp_BT = np.asarray(_logprobs(params, config, rows))
        for i, (prompt, reply) in enumerate(part):
            yield tuple(logp_BT[i, len(prompt) : len(prompt) + len(reply)].tolist())


def perplexity(logp: Sequence[float]) -> float:
    """exp(-(1/T) sum_t log P(y_t | x, y_<t)) over the T tokens of an answer, its end token included."""
    return float(np.exp(-np.mean(np.asarray(logp, np.float64))))
