"""The simplest sampler that one can trust: every token from a causal pass over the whole row, and drawn in NumPy.

No cache, no pages, no windows. It shares the decoder and the random numbers with the engine, and nothing else.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_limit.engine.requests import Request
from rlvr_limit.models import decoder
from rlvr_limit.models.decoder import ModelConfig, Params
from rlvr_limit.types import Sample, Stop


class Reference(NamedTuple):
    """A sample, and for each of its tokens how far its draw was from the nearest other one.

    That is the distance of the uniform number to a boundary of the CDF, or of the mass of the most likely tokens to
    top_p, whichever is less; for greedy tokens, the lead of the logit.
    """

    sample: Sample
    margins: tuple[float, ...]


def reference_samples(params: Params, config: ModelConfig, request: Request) -> list[Reference]:
    """All samples of a request, in float32 passes and float64 draws."""
    prompt, sampling = request.prompt_ids, request.sampling
    # Rounded up, so that a few lengths serve all requests: each is compiled for.
    rows, places = len(request.indices), -(-(len(prompt) + sampling.max_tokens) // 32) * 32
    tokens = np.zeros((rows, places), np.int32)
    tokens[:, : len(prompt)] = prompt
    made: list[list[tuple[int, float, float, float]]] = [[] for _ in range(rows)]
    stops: list[Stop | None] = [None] * rows
    for position in range(sampling.max_tokens):
        at = len(prompt) + position
        logits = np.asarray(_logits_at(params, config, tokens, at - 1), np.float64)
        u = np.asarray(_uniforms(jnp.array(request.key, jnp.uint32), jnp.array(request.indices), position), np.float64)
        for row in range(rows):
            if stops[row] is None:
                made[row].append(draw(logits[row], u[row], sampling.temperature, sampling.top_p))
                tokens[row, at] = made[row][-1][0]
                stops[row] = _why_stopped(request, made[row])
        if all(stops):
            break
    return [_finished(request, *args) for args in zip(request.indices, made, stops, strict=True)]


def draw(logits_V: np.ndarray, u: float, temperature: float, top_p: float) -> tuple[int, float, float, float]:
    """(token, its log-prob as drawn, its log-prob under the model, margin): temperature first, then top-p by a sort."""
    logp_model = _log_softmax(logits_V)
    if temperature == 0:
        second, first = np.sort(logits_V)[-2:]
        token = int(np.argmax(logits_V))
        return token, 0.0, float(logp_model[token]), float(first - second)
    p = np.exp(_log_softmax(logits_V / temperature))
    margin = np.inf
    if top_p < 1:
        mass = np.cumsum(np.sort(p)[::-1])
        margin = np.abs(mass - top_p).min()
        least = np.sort(p)[::-1][np.argmax(mass >= top_p)]
        p = np.where(p >= least, p, 0.0)
    p = p / p.sum()
    cdf = np.cumsum(p)
    token = int(np.argmax(cdf > u))
    # The last boundary, 1, separates nothing.
    return token, float(np.log(p[token])), float(logp_model[token]), float(min(margin, np.abs(cdf[:-1] - u).min()))


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    logits = logits - logits.max()
    return logits - np.log(np.exp(logits).sum())


@partial(jax.jit, static_argnums=1)
def _logits_at(params: Params, config: ModelConfig, tokens_BT: jax.Array, place: jax.Array) -> jax.Array:
    hidden, _ = decoder.forward_causal(params, config, tokens_BT)
    return decoder.logits(params, jax.lax.dynamic_index_in_dim(hidden, place, 1, keepdims=False))


@jax.jit
def _uniforms(key_2: jax.Array, index_B: jax.Array, position: jax.Array) -> jax.Array:
    key = jax.random.wrap_key_data(key_2, impl="threefry2x32")
    fold = jax.random.fold_in
    return jax.vmap(lambda index: jax.random.uniform(fold(fold(key, index), position)))(index_B)


def _why_stopped(request: Request, made: list[tuple[int, float, float, float]]) -> Stop | None:
    tokens = tuple(token for token, *_ in made)
    if request.stop and request.stop(tokens) is not None:
        return Stop.STOP_STRING
    if tokens[-1] in request.sampling.stop_tokens:
        return Stop.EOS
    return Stop.LENGTH if len(tokens) == request.sampling.max_tokens else None


def _finished(request: Request, index: int, made: list[tuple[int, float, float, float]], stop: Stop) -> Reference:
    tokens, logp, logp_model, margins = zip(*made, strict=True)
    keep = request.stop(tokens) if stop == Stop.STOP_STRING else len(tokens)
    sample = Sample(request.problem_id, index, tokens[:keep], logp[:keep], logp_model[:keep], stop)
    return Reference(sample, margins)
