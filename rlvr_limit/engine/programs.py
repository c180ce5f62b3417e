"""The device programs of the engine: prefill of prompts, a window of decoding steps or of guesses to be verified, pages
to the host and back.

Rows are filled only between windows, so the j-th own token of a sample always sits at step j mod window of its window
and at the same place of its page: what a sample sees does not depend on when it started or on its batch mates. A window
of which some tokens are known already is fed them again, and goes on from there.
Legend: see decoder.py; P pages of C tokens, W steps of a window, R prompts of one prefill call, E stop tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from kernels.decode_attention import Pages, Partial, Plan, Recent, decode_attention, say_what_is_plain
from kernels.draw import Rules, cuts_of, draw
from kernels.platforms import SAME_BITS
from rlvr_limit.distributed.mesh import Part, constrain, on_each_device, partition, replicated, sharding
from rlvr_limit.engine.cache import Pool, as_cached, empty_pool
from rlvr_limit.engine.scheduler import TRASH
from rlvr_limit.models import decoder
from rlvr_limit.models.decoder import ModelConfig, Params

KEYS = ("rows", "kv_heads", None, None)
"""Logical axes of pages, and of everything else with a row and a key head: shards of rows have pages of their own."""


@dataclass(frozen=True)
class Layout:
    """What the programs are compiled for, beside the shapes of their arguments.

    Rows come in tiles of `tile` that visit shared pages together. cache_dtype is that of EngineConfig.
    """

    mesh: Mesh | AbstractMesh
    model: ModelConfig
    window: int
    tile: int
    cache_dtype: str = ""

    def place(self, shape: tuple[int, ...], *axes: str | None) -> NamedSharding:
        """Where an array lies."""
        return sharding(self.mesh, shape, axes + (None,) * (len(shape) - len(axes)))


class Rows(NamedTuple):
    """What the host knows of every row, sent at the start of a window.

    The first known_B tokens of token_BW, at least one, are to be fed; guesses of the next ones may stand behind them,
    -1 where there is none. length_B counts the tokens before the one that is fed first, generated_B those of them that
    were drawn, page_B and offset_B tell where the window is filed.
    """

    live_B: Any
    token_BW: Any
    known_B: Any
    length_B: Any
    generated_B: Any
    limit_B: Any
    page_B: Any
    offset_B: Any
    key_B2: Any
    index_B: Any
    stops_BE: Any
    rules: Rules


class Drawn(NamedTuple):
    """What a window drew; valid marks what is new, counts and was drawn while the row was still alive, live_B the rows
    that still are."""

    token_WB: jax.Array
    logp_WB: jax.Array
    logp_model_WB: jax.Array
    valid_WB: jax.Array
    live_B: jax.Array


def uniforms(key_B2: jax.Array, index_B: jax.Array, generated_B: jax.Array, window: int) -> jax.Array:
    """u [W, B]: one number per position, from (prompt key, sample index, position) alone."""

    def one(key_2: jax.Array, index: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(key_2, impl="threefry2x32")
        key = jax.random.fold_in(jax.random.fold_in(key, index), position)
        return jax.random.uniform(key)

    positions_WB = generated_B[None, :] + jnp.arange(window)[:, None]
    return jax.vmap(jax.vmap(one), in_axes=(None, None, 0))(key_B2, index_B, positions_WB)


@partial(jax.jit, static_argnums=(0, 1, 2))
def new_pool(layout: Layout, pages: int, page: int) -> Pool:
    """empty_pool, made where it lies: the pages of all shards need not fit on one device."""
    return _placed(layout, empty_pool(layout.model, pages, page, layout.cache_dtype, layout.window))


@partial(jax.jit, static_argnums=1, donate_argnums=2, compiler_options=SAME_BITS)
def prefill(params: Params, layout: Layout, pool: Pool, tokens_RT: jax.Array, pages_SRJ: jax.Array) -> Pool:
    """Writes the keys and values of R prompts into pages: one list of pages a prompt and shard.

    What stands after a prompt's end is filed as well, where the list says or behind the prompt in its last page.
    """
    _, fresh = decoder.forward_causal(params, layout.model, tokens_RT, batch_axis=None)
    shards, r, j = pages_SRJ.shape
    pages_N = pages_SRJ.reshape(shards * r * j)

    def write(pool: jax.Array, new: jax.Array, pages_N: jax.Array) -> jax.Array:
        return pool.at[pages_N].set(new)

    def paged(x_RTKH: jax.Array, order: tuple[int, ...]) -> jax.Array:
        _, t, k, h = x_RTKH.shape
        return x_RTKH.reshape(r * j, t // j, k, h).transpose(order)

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
        return _local(layout, write, [KEYS, (None, *KEYS[1:]), ("rows",)], old.shape)(old, new, pages_N)

    written = []
    for old, (k, v) in zip(pool, fresh, strict=True):
        new = as_cached(paged(k, (0, 2, 3, 1)), paged(v, (0, 2, 1, 3)), layout.cache_dtype, layout.window)
        written.append(jax.tree.map(put, old, new))
    return _placed(layout, written)


@partial(jax.jit, static_argnums=1, donate_argnums=2, compiler_options=SAME_BITS)
def decode_window(params: Params, layout: Layout, pool: Pool, rows: Rows, plan: Plan) -> tuple[Pool, Drawn]:
    """Draws the rest of a window in every row, token by token, and files the keys and values of what it was fed."""
    b, window = rows.token_BW.shape
    u_WB = uniforms(rows.key_B2, rows.index_B, rows.generated_B, window)
    # Token by token: a key is written where it is whole, and turned into a page's layout once a window.
    none_BKWH = jnp.zeros((b, layout.model.kv_heads, window, layout.model.head_width), layout.model.dtype)
    recent = _placed(layout, [(none_BKWH, none_BKWH)] * layout.model.layers)
    cuts = cuts_of(rows.rules)
    # All steps' at once: inside, XLA:CPU would make them again for each head of each layer.
    rope = decoder.rope_angles(layout.model, rows.length_B[:, None] + jnp.arange(window))
    rope_W = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, :, None], rope)

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, Drawn]:
        token, live, recent = carry
        t, u, given, rope = inputs

        def attend(i: int, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, tuple]:
            pairs = zip(recent[i], (k, v), strict=True)
            rk, rv = (jax.lax.dynamic_update_slice_in_dim(x, new.swapaxes(1, 2), t, 2) for x, new in pairs)
            q_BKGH = q.reshape(b, rk.shape[1], -1, q.shape[-1])
            seen_G = jnp.full(q_BKGH.shape[2], t + 1)
            return _attention(layout, q_BKGH, *pool[i], plan, Recent(rk, rv, seen_G)).reshape(q.shape), (rk, rv)

        hidden, recent = decoder.forward(params, layout.model, token[:, None], rope, attend)
        logits = constrain(decoder.logits(params, hidden[:, 0]), "draws", None)
        new, logp, logp_model = (constrain(x, "rows") for x in draw(logits, u, rows.rules, cuts))
        is_new = t + 1 >= rows.known_B
        stopped = jnp.any(new[:, None] == rows.stops_BE, axis=-1) | (rows.generated_B + t + 1 >= rows.limit_B)
        # An idle row feeds its last token again; its place in the window is its own, so it can disturb nobody.
        following = jnp.where(live, jnp.where(is_new, new, given), token)
        return (following, live & ~(stopped & is_new), recent), (new, logp, logp_model, live & is_new)

    carry = (rows.token_BW[:, 0], rows.live_B, recent)
    given_WB = jnp.roll(rows.token_BW, -1, axis=1).T
    (_, live, recent), drawn = jax.lax.scan(step, carry, (jnp.arange(window), u_WB, given_WB, rope_W))
    return _filed(layout, pool, recent, rows), _on_host(layout, *drawn, live)


@partial(jax.jit, static_argnums=1, donate_argnums=2, compiler_options=SAME_BITS)
def verify_window(params: Params, layout: Layout, pool: Pool, rows: Rows, plan: Plan) -> tuple[Pool, Drawn]:
    """Feeds a whole window at once, guesses behind what is known, and draws at every place by the place's own number.

    What is drawn counts up to the first place at which it is not the guess (Stern et al. 2018, sec. 3, with draws in
    place of the likeliest token): the tokens are those that decode_window draws. Files as decode_window does; where not
    all guesses were right, the same window is to be fed again.
    """
    b, window = rows.token_BW.shape
    places = jnp.arange(window)

    def attend(i: int, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, tuple]:
        # To a page, the places of a window are more queries of the same row and key head.
        q_BKMH = jnp.moveaxis(q.reshape(b, window, k.shape[2], -1, q.shape[-1]), 1, 2)
        by_place, q_BKMH = q_BKMH.shape, q_BKMH.reshape(b, k.shape[2], -1, q.shape[-1])
        fresh = k.swapaxes(1, 2), v.swapaxes(1, 2)
        out = _attention(layout, q_BKMH, *pool[i], plan, Recent(*fresh, jnp.repeat(places + 1, by_place[3])))
        return jnp.moveaxis(out.reshape(by_place), 2, 1).reshape(q.shape), fresh

    rope = decoder.rope_angles(layout.model, rows.length_B[:, None] + places)
    hidden, fresh = decoder.forward(params, layout.model, jnp.maximum(rows.token_BW, 0), rope, attend)
    logits = constrain(decoder.logits(params, hidden.reshape(b * window, -1)), "draws", None)
    u_BW = uniforms(rows.key_B2, rows.index_B, rows.generated_B, window).T
    drawn = draw(
        logits, u_BW.reshape(-1), jax.tree.map(lambda x: jnp.repeat(x, window), rows.rules), cuts_of(rows.rules)
    )
    new, logp, logp_model = (x.reshape(b, window) for x in drawn)
    is_new = places + 1 >= rows.known_B[:, None]
    at_stop = jnp.any(new[..., None] == rows.stops_BE[:, None], axis=-1)
    stopped = is_new & (at_stop | (rows.generated_B[:, None] + places + 1 >= rows.limit_B[:, None]))
    goes_on = ~is_new | ((new == jnp.roll(rows.token_BW, -1, axis=1)) & ~stopped)
    reached = jnp.cumprod(jnp.pad(goes_on[:, :-1], ((0, 0), (1, 0)), constant_values=True), axis=1, dtype=jnp.int32) > 0
    valid = rows.live_B[:, None] & is_new & reached
    live = rows.live_B & ~jnp.any(valid & stopped, axis=1)
    # Only what waits for the draws is filed behind all reading: XLA would copy the whole pool to be safe.
    rows = rows._replace(page_B=jnp.where(jnp.all(new >= 0, axis=1), rows.page_B, TRASH))
    return _filed(layout, pool, fresh, rows), _on_host(layout, *(x.T for x in (new, logp, logp_model, valid)), live)


@partial(jax.jit, static_argnums=0)
def read_pages(layout: Layout, pool: Pool, pages_SN: jax.Array) -> Pool:
    """N pages of every shard, shard by shard, readable by every process."""

    def read(pool: jax.Array, pages_N: jax.Array) -> jax.Array:
        return pool[pages_N]

    whole = replicated(layout.mesh)
    pages_N = pages_SN.reshape(-1)

    def found(x: jax.Array) -> jax.Array:
        return _local(layout, read, [KEYS, ("rows",)], (len(pages_N), *x.shape[1:]))(x, pages_N)

    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(found(x), whole), pool)


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def write_pages(layout: Layout, pool: Pool, pages_SN: jax.Array, saved: Pool) -> Pool:
    """Puts back what read_pages gave, into other pages perhaps."""

    def write(pool: jax.Array, pages_N: jax.Array, saved: jax.Array) -> jax.Array:
        return pool.at[pages_N].set(saved)

    def put(x: jax.Array, saved: jax.Array) -> jax.Array:
        return _local(layout, write, [KEYS, ("rows",), KEYS], x.shape)(x, pages_SN.reshape(-1), saved)

    return _placed(layout, jax.tree.map(put, pool, saved))


def _local(layout: Layout, f: Callable, axes: list[tuple], shape: tuple[int, ...]) -> Callable:
    """f on each device, for a result with a row and a key head."""
    return on_each_device(f, layout.mesh, axes, Part(shape, KEYS))


def _placed(layout: Layout, pool: Pool) -> Pool:
    # As it was given, or the next call would compile anew.
    return jax.tree.map(lambda x: _constrained(x, layout), pool)


def _constrained(x: jax.Array, layout: Layout) -> jax.Array:
    """Pages, or rows of keys and values, where they lie on the mesh."""
    return jax.lax.with_sharding_constraint(x, NamedSharding(layout.mesh, partition(layout.mesh, x.shape, KEYS)))


def _attention(
    layout: Layout,
    q_BKGH: jax.Array,
    k_PKHC: jax.Array | Pages,
    v_PKCH: jax.Array | Pages,
    plan: Plan,
    recent: Recent,
) -> jax.Array:
    """Attention of each row over its pages and its window."""
    whole = Partial(Part(q_BKGH.shape, KEYS), *[Part(q_BKGH.shape[:3], KEYS[:3])] * 2)
    axes = [KEYS, KEYS, KEYS, ("rows",), KEYS, KEYS, (None,)]
    f = on_each_device(partial(_local_attention, layout.tile), layout.mesh, axes, whole)
    found = f(q_BKGH, k_PKHC, v_PKCH, plan, *recent)
    return (found.out_BKGH / found.total_BKG[..., None]).astype(q_BKGH.dtype)


def _local_attention(
    tile: int, q: jax.Array, k: jax.Array | Pages, v: jax.Array | Pages, plan: Plan, *recent: jax.Array
) -> Partial:
    # Counts travel as one number a shard.
    plan = plan._replace(items=plan.items[0], visits=plan.visits[0])
    say_what_is_plain(q, k, tile, Recent(*recent))
    return decode_attention(q, k, v, plan, tile, Recent(*recent))


def _filed(layout: Layout, pool: Pool, recent: list[tuple], rows: Rows) -> Pool:
    """The pool with each row's window in its page."""

    def filed(old: jax.Array | Pages, new: jax.Array | Pages, axis: int) -> jax.Array | Pages:
        return jax.tree.map(lambda old, new: _file(layout, old, new, rows, axis), old, new)

    fresh = [as_cached(k.swapaxes(2, 3), v, layout.cache_dtype, layout.window) for k, v in recent]
    return _placed(layout, [(filed(k, a, 3), filed(v, b, 2)) for (k, v), (a, b) in zip(pool, fresh, strict=True)])


def _on_host(layout: Layout, *drawn: jax.Array) -> Drawn:
    """What was drawn, readable by every process."""
    whole = replicated(layout.mesh)
    return Drawn(*(jax.lax.with_sharding_constraint(x, whole) for x in drawn))


def _file(layout: Layout, pool: jax.Array, recent: jax.Array, rows: Rows, axis: int) -> jax.Array:
    """Each row's window into its page, from its offset on; rows that file nothing write to a page nobody reads."""

    def one(page: jax.Array, new: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(page, new, offset, axis - 1)

    def local(pool: jax.Array, recent: jax.Array, page_B: jax.Array, offset_B: jax.Array) -> jax.Array:
        # A window that fills its page replaces it, unread.
        if recent.shape[axis] == pool.shape[axis]:
            return pool.at[page_B].set(recent)
        return pool.at[page_B].set(jax.vmap(one)(pool[page_B], recent, offset_B))

    axes = [KEYS, KEYS, ("rows",), ("rows",)]
    # Tokens, or scales that are one a window.
    offset_B = rows.offset_B // (layout.window // recent.shape[axis])
    return _local(layout, local, axes, pool.shape)(pool, recent, rows.page_B, offset_B)
