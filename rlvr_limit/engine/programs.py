"""The device programs of the engine: prefill of prompts, and a window of decoding steps over slots.

Slots are filled only between windows, so the j-th token of a sample always sits at step j mod window of its window and
at the same place of the cache: what a sample sees does not depend on when it started or on its batch mates.
Legend: see model.py; W steps of a window, P places of a prompt, R prompts of one prefill call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from kernels.categorical import inverse_cdf
from kernels.top_p import top_p_mask
from rlvr_limit import model
from rlvr_limit.mesh import constrain, everywhere, sharding
from rlvr_limit.model import ModelConfig, Params

KeyValues = list[tuple[jax.Array, jax.Array]]
"""One (k_BKHS, v_BKSH) pair a layer: the layouts in which both products of decode attention read memory in order."""
PLACES_AXIS = (3, 2)


class Slots(NamedTuple):
    """What the host knows of every slot; one row a slot, sent at the start of a window."""

    live_B: jax.Array
    admit_B: jax.Array
    row_B: jax.Array
    token_B: jax.Array
    length_B: jax.Array
    generated_B: jax.Array
    limit_B: jax.Array
    key_B2: jax.Array
    index_B: jax.Array
    temperature_B: jax.Array
    top_p_B: jax.Array
    stops_BE: jax.Array


class Drawn(NamedTuple):
    """What a window drew; valid marks the steps at which the slot was still alive."""

    token_WB: jax.Array
    logp_WB: jax.Array
    logp_model_WB: jax.Array
    valid_WB: jax.Array


def empty_cache(config: ModelConfig, rows: int, places: int) -> KeyValues:
    """Zeros for keys and values of rows x places in every layer."""
    k_shape = (rows, config.kv_heads, config.head_width, places)
    v_shape = (rows, config.kv_heads, places, config.head_width)
    return [(jnp.zeros(k_shape, config.dtype), jnp.zeros(v_shape, config.dtype)) for _ in range(config.layers)]


class Places(NamedTuple):
    """Where the engine's arrays lie on a mesh: slots and their caches by rows, prompts on every device of data."""

    cache: NamedSharding
    prefixes: NamedSharding
    slots: NamedSharding
    drawn: NamedSharding


def places_on(mesh: Mesh, config: ModelConfig, slots: int) -> Places:
    """Places of an engine of this many slots (rows of one tile)."""
    return Places(
        sharding(mesh, (slots, config.kv_heads), ("rows", "kv_heads")),
        sharding(mesh, (1, config.kv_heads), (None, "kv_heads")),
        sharding(mesh, (slots,), ("rows",)),
        everywhere(mesh),
    )


def compile_for(places: Places) -> tuple[Callable, Callable]:
    """(prefill, decode_window) under jit: caches are donated and come back as they were given, or they would compile
    twice; what was drawn can be read by every process."""
    return (
        jax.jit(prefill, static_argnums=1, donate_argnums=2, out_shardings=places.prefixes),
        jax.jit(decode_window, static_argnums=(1, 2), donate_argnums=3, out_shardings=(places.cache, places.drawn)),
    )


def prefill(
    params: Params, config: ModelConfig, prefixes: KeyValues, tokens_RP: jax.Array, rows_R: jax.Array
) -> KeyValues:
    """Writes the keys and values of R prompts into rows of the prefix store; places after a prompt's end are junk."""
    _, fresh = model.causal(params, config, tokens_RP, rows=None)
    return [
        (k.at[rows_R].set(nk.transpose(0, 2, 3, 1)), v.at[rows_R].set(nv.transpose(0, 2, 1, 3)))
        for (k, v), (nk, nv) in zip(prefixes, fresh, strict=True)
    ]


def draw(logits_BV: jax.Array, u_B: jax.Array, temperature_B: jax.Array, top_p_B: jax.Array) -> tuple[jax.Array, ...]:
    """(token, its log-prob under the distribution it was drawn from, its log-prob at temperature 1), each [B].

    Temperature comes first, then top-p (METRICS.md item 16); temperature 0 is greedy, of log-prob 0.
    """
    greedy_B = temperature_B == 0
    logp_model = jax.nn.log_softmax(logits_BV, axis=-1)
    p = jax.nn.softmax(logits_BV / jnp.where(greedy_B, 1.0, temperature_B)[:, None], axis=-1)

    def truncate(p: jax.Array) -> jax.Array:
        return jnp.where(top_p_mask(p, top_p_B) | (top_p_B >= 1)[:, None], p, 0.0)

    p = jax.lax.cond(jnp.any(top_p_B < 1), truncate, lambda p: p, p)
    token = jnp.where(greedy_B, jnp.argmax(logits_BV, axis=-1).astype(jnp.int32), inverse_cdf(p, u_B))

    def pick(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(x, token[:, None], axis=-1)[:, 0]

    logp = jnp.where(greedy_B, 0.0, jnp.log(pick(p)) - jnp.log(jnp.sum(p, axis=-1)))
    return token, logp, pick(logp_model)


def uniforms(slots: Slots, window: int) -> jax.Array:
    """u [W, B]: one number per position, from (prompt key, sample index, position) alone."""

    def one(key_2: jax.Array, index: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(key_2, impl="threefry2x32")
        key = jax.random.fold_in(jax.random.fold_in(key, index), position)
        return jax.random.uniform(key)

    positions_WB = slots.generated_B[None, :] + jnp.arange(window)[:, None]
    return jax.vmap(jax.vmap(one), in_axes=(None, None, 0))(slots.key_B2, slots.index_B, positions_WB)


def decode_window(
    params: Params, config: ModelConfig, window: int, cache: KeyValues, prefixes: KeyValues, slots: Slots
) -> tuple[KeyValues, Drawn]:
    """Admits new samples, draws `window` tokens in every slot, and files their keys and values behind the old ones."""
    b = slots.token_B.shape[0]
    cache = [
        tuple(_admit(old, new, slots, axis) for old, new, axis in zip(layer, prefix, PLACES_AXIS, strict=True))
        for layer, prefix in zip(cache, prefixes, strict=True)
    ]
    past_BS = jnp.arange(cache[0][0].shape[PLACES_AXIS[0]])[None, :] < slots.length_B[:, None]
    recent = empty_cache(config, b, window)
    u_WB = uniforms(slots, window)

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, Drawn]:
        token, live, recent = carry
        t, u = inputs
        seen_BW = jnp.broadcast_to(jnp.arange(window) <= t, (b, window))
        alive_steps = jnp.where(live, t, 0)

        def attend(i: int, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, tuple]:
            rk = jax.lax.dynamic_update_slice_in_dim(recent[i][0], k.transpose(0, 2, 3, 1), t, PLACES_AXIS[0])
            rv = jax.lax.dynamic_update_slice_in_dim(recent[i][1], v.transpose(0, 2, 1, 3), t, PLACES_AXIS[1])
            return _two_part_attention(q, cache[i], (rk, rv), past_BS, seen_BW), (rk, rv)

        hidden, recent = model.decode(params, config, token[:, None], (slots.length_B + alive_steps)[:, None], attend)
        logits = constrain(model.logits(params, hidden[:, 0]), "draws", None)
        drawn = draw(logits, u, slots.temperature_B, slots.top_p_B)
        new, logp, logp_model = (constrain(x, "rows", *[None] * (x.ndim - 1)) for x in drawn)
        stopped = jnp.any(new[:, None] == slots.stops_BE, axis=-1) | (slots.generated_B + t + 1 >= slots.limit_B)
        # An idle slot feeds its last token again; its row of the cache is its own, so it can disturb nobody.
        return (jnp.where(live, new, token), live & ~stopped, recent), Drawn(new, logp, logp_model, live)

    carry = (slots.token_B, slots.live_B, recent)
    (_, _, recent), drawn = jax.lax.scan(step, carry, (jnp.arange(window), u_WB))
    cache = [
        tuple(_file(old, new, slots.length_B, axis) for old, new, axis in zip(layer, fresh, PLACES_AXIS, strict=True))
        for layer, fresh in zip(cache, recent, strict=True)
    ]
    return cache, drawn


def _admit(cache: jax.Array, prefix: jax.Array, slots: Slots, axis: int) -> jax.Array:
    kept = jax.lax.slice_in_dim(cache, 0, prefix.shape[axis], axis=axis)
    taken = jnp.where(slots.admit_B[:, None, None, None], prefix[slots.row_B], kept)
    return jax.lax.dynamic_update_slice_in_dim(cache, taken, 0, axis=axis)


def _file(cache: jax.Array, recent: jax.Array, length_B: jax.Array, axis: int) -> jax.Array:
    # In place, a row at a time: a select over all places would write the whole cache anew. The slice always lies
    # inside for a live slot; an idle one, whose length runs on, is clamped to the end of its own row.
    def one(cache: jax.Array, recent: jax.Array, length: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(cache, recent, length, axis - 1)

    return jax.vmap(one)(cache, recent, length_B)


def _two_part_attention(
    q_B1NH: jax.Array, past: tuple, recent: tuple, past_BS: jax.Array, seen_BW: jax.Array
) -> jax.Array:
    """Attention over the filed keys and the window's own, one softmax over both, without joining the caches."""
    b, _, n, h = q_B1NH.shape
    k = past[0].shape[1]
    q_BKGH = q_B1NH.reshape(b, k, n // k, h)

    def scores(q_BKGH: jax.Array, keys_BKHS: jax.Array, mask_BS: jax.Array) -> jax.Array:
        s = jnp.einsum("bkgh,bkhs->bkgs", q_BKGH, keys_BKHS, preferred_element_type=jnp.float32) * h**-0.5
        return jnp.where(mask_BS[:, None, None], s, -1e30)

    # XLA:GPU joins two products of one factor, and the keys of the whole cache with them, anew in every step.
    apart = jax.lax.optimization_barrier(q_BKGH)
    s_past, s_recent = scores(q_BKGH, past[0], past_BS), scores(apart, recent[0], seen_BW)
    top = jnp.maximum(jnp.max(s_past, axis=-1), jnp.max(s_recent, axis=-1))[..., None]
    e_past, e_recent = jnp.exp(s_past - top), jnp.exp(s_recent - top)
    total = jnp.sum(e_past, axis=-1) + jnp.sum(e_recent, axis=-1)

    def mixed(e_BKGS: jax.Array, values_BKSH: jax.Array) -> jax.Array:
        e = e_BKGS.astype(values_BKSH.dtype)
        return jnp.einsum("bkgs,bksh->bkgh", e, values_BKSH, preferred_element_type=jnp.float32)

    out = mixed(e_past, past[1]) + mixed(e_recent, recent[1])
    return (out / total[..., None]).astype(q_B1NH.dtype).reshape(b, 1, n, h)
