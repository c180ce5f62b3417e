"""The plain way to draw many samples: a batch is decoded together until its last sample is done, then comes the next.

A peer for the engine, which shares with it the decoder, the random numbers and the draw. Its keys and values are dense
and grow with the batch, so that no step attends to more than what has been written, up to BLOCK tokens.
Legend: see decoder.py; S keys and values that there is room for, W steps of a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from kernels.draw import SamplingTensors, draw, truncations_used
from rlvr_limit.engine.programs import uniforms
from rlvr_limit.engine.requests import Request
from rlvr_limit.models import decoder
from rlvr_limit.models.decoder import ModelConfig, Params

BLOCK = 128
Cache = list[tuple[jax.Array, jax.Array]]
"""One (k_BKHS, v_BKSH) pair a layer."""


def lock_step(params: Params, config: ModelConfig, asked: Sequence[Request], rows: int, window: int, every: int) -> int:
    """Draws the samples of the requests, `rows` of a prompt at once, one batch of `every`; how many tokens count."""
    batches = [
        (request, indices[start : start + rows])
        for request in asked
        for indices in [list(request.indices)]
        for start in range(0, len(indices), rows)
    ]
    return sum(_batch(params, config, request, indices, window) for request, indices in batches[::every])


def _batch(params: Params, config: ModelConfig, request: Request, indices: list[int], window: int) -> int:
    rows, shared = len(indices), len(request.prompt_ids) - 1
    limit = np.array([request.limit(i) for i in indices])
    tokens_1T = jnp.array([request.prompt_ids])
    cache = _prefilled(params, config, tokens_1T, rows, -(-(shared + window) // BLOCK) * BLOCK)
    token, drawn, key = jnp.full(rows, request.prompt_ids[-1]), [], np.tile(np.uint32(request.key), (rows, 1))
    sampling = request.sampling
    ones = np.ones(rows, np.float32)
    rules = SamplingTensors(sampling.temperature * ones, sampling.top_p * ones, 0 * ones.astype(np.int32), 0 * ones)
    for first in range(0, int(limit.max()), window):
        if shared + first + window > cache[0][0].shape[-1]:
            cache = _grown(cache)
        u_WB = _numbers(key, np.array(indices), np.full(rows, first), window)
        cache, token, out = _steps(params, config, cache, token, u_WB, rules, shared + first)
        drawn.append(jax.device_get(out))
    token_BW, *_ = (np.concatenate(x).T for x in zip(*drawn, strict=True))
    return sum(len(row[:n]) for row, n in zip(token_BW, limit, strict=True))


@partial(jax.jit, static_argnums=(1, 3, 4))
def _prefilled(params: Params, config: ModelConfig, tokens_1T: jax.Array, rows: int, room: int) -> Cache:
    """Keys and values of a prompt but its last token, computed once and copied into every row."""
    _, fresh = decoder.forward_causal(params, config, tokens_1T[:, :-1])

    def copied(x_1TKH: jax.Array, order: tuple[int, ...], axis: int) -> jax.Array:
        x = jnp.repeat(x_1TKH.transpose(order), rows, axis=0)
        return jnp.pad(x, [(0, room - x.shape[axis]) if i == axis else (0, 0) for i in range(4)])

    return [(copied(k, (0, 2, 3, 1), 3), copied(v, (0, 2, 1, 3), 2)) for k, v in fresh]


@jax.jit
def _grown(cache: Cache) -> Cache:
    more = (0, BLOCK)
    return [(jnp.pad(k, (*[(0, 0)] * 3, more)), jnp.pad(v, ((0, 0), (0, 0), more, (0, 0)))) for k, v in cache]


_numbers = jax.jit(uniforms, static_argnums=3)


@partial(jax.jit, static_argnums=1, donate_argnums=2)
def _steps(
    params: Params,
    config: ModelConfig,
    cache: Cache,
    token_B: jax.Array,
    u_WB: jax.Array,
    rules: SamplingTensors,
    length: int,
) -> tuple[Cache, jax.Array, tuple]:
    cuts = truncations_used(rules)

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        token, cache = carry
        t, u = inputs

        def attend(i: int, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, tuple]:
            keys = jax.lax.dynamic_update_slice_in_dim(cache[i][0], k.transpose(0, 2, 3, 1), length + t, 3)
            values = jax.lax.dynamic_update_slice_in_dim(cache[i][1], v.transpose(0, 2, 1, 3), length + t, 2)
            q_BKGH = q.reshape(q.shape[0], k.shape[2], -1, q.shape[-1])
            scores = jnp.einsum("bkgh,bkhs->bkgs", q_BKGH, keys) * q.shape[-1] ** -0.5
            weights = jax.nn.softmax(jnp.where(jnp.arange(keys.shape[-1]) <= length + t, scores, -1e30), axis=-1)
            return jnp.einsum("bkgs,bksh->bkgh", weights, values).reshape(q.shape), (keys, values)

        rope = decoder.rope_angles(config, jnp.full((len(token), 1), length + t))
        hidden, cache = decoder.forward(params, config, token[:, None], rope, attend)
        drawn = draw(decoder.logits(params, hidden[:, 0]), u, rules, cuts)
        return (drawn[0], cache), drawn

    (token, cache), drawn = jax.lax.scan(step, (token_B, cache), (jnp.arange(len(u_WB)), u_WB))
    return cache, token, drawn
