"""The device programs of the engine: prefill of prompts, a window of decode steps, and pages to the host and
back.

A window is the tokens of one call. Rows are filled only between windows, so the j-th own token of a sample is always at
step j mod window of its window and at the same place of its page: what a sample sees does not depend on when it started
or on its batch mates.
Legend: see decoder.py; P pages of C tokens, W steps of a window, R prompts of one prefill, E stop tokens, S shards.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from kernels import copies
from kernels.decode_attention import AttentionState, DecodePlan, RecentKV, decode_attention, warn_where_plain
from kernels.draw import SamplingTensors, draw, truncations_used
from kernels.platforms import BATCH_INVARIANT
from rlvr_limit.distributed.mesh import Part, constrain, on_each_device, replicated, sharding
from rlvr_limit.engine.cache import Pool, empty_pool
from rlvr_limit.models import decoder, vision
from rlvr_limit.models.decoder import ImageTokens, ModelConfig, Params
from rlvr_limit.models.image_layout import ImageBatch

CACHE_AXES = ("rows", "kv_heads", None, None)
"""Logical axes of pages, and of everything else with a row and a key head: shards of rows have pages of their own."""


@dataclass(frozen=True)
class ProgramSpec:
    """What the programs are compiled for, beside the shapes of their arguments."""

    mesh: Mesh | AbstractMesh
    model: ModelConfig
    window: int  # steps
    tile: int  # rows that visit shared pages together

    def sharding(self, shape: tuple[int, ...], *axes: str | None) -> NamedSharding:
        """Where an array lies; axes are the logical axes of its first dimensions."""
        return sharding(self.mesh, shape, axes + (None,) * (len(shape) - len(axes)))


class WindowInputs(NamedTuple):
    """What the host knows of every row at the start of a window."""

    live_B: Any
    token_B: Any  # the last one so far, which is fed first
    position_B: Any  # of that
    generated_B: Any  # tokens that have been drawn
    limit_B: Any  # tokens that may be drawn in all
    page_B: Any  # where the window is cached
    offset_B: Any
    key_B2: Any
    index_B: Any  # of the sample among those of its prompt
    stops_BE: Any  # stop tokens, then -1
    rules: SamplingTensors


class WindowOutputs(NamedTuple):
    """What a window drew."""

    token_WB: jax.Array
    logp_WB: jax.Array
    logp_model_WB: jax.Array
    valid_WB: jax.Array  # whether a token was drawn while the row was still alive
    live_B: jax.Array  # whether a row still is


def uniforms(key_B2: jax.Array, index_B: jax.Array, generated_B: jax.Array, window: int) -> jax.Array:
    """u [W, B]: one number per position, from (prompt key, sample index, position) alone."""

    def uniform(key_2: jax.Array, index: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(key_2, impl="threefry2x32")
        key = jax.random.fold_in(jax.random.fold_in(key, index), position)
        return jax.random.uniform(key)

    positions_WB = generated_B[None, :] + jnp.arange(window)[:, None]
    return jax.vmap(jax.vmap(uniform), in_axes=(None, None, 0))(key_B2, index_B, positions_WB)


@partial(jax.jit, static_argnums=(0, 1, 2))
def new_pool(spec: ProgramSpec, pages: int, page_size: int) -> Pool:
    """empty_pool, made where it lies: the pages of all shards need not fit on one device."""
    return _on_mesh(spec, empty_pool(spec.model, pages, page_size))


class SeenPrompts(NamedTuple):
    """What prefill is sent beside the tokens of prompts with images."""

    images: ImageTokens
    position_RT3: Any


@partial(jax.jit, static_argnums=1, compiler_options=BATCH_INVARIANT)
def encode_images(params: Params, spec: ProgramSpec, images: ImageBatch) -> jax.Array:
    """vision.encode, readable by every process."""
    model = spec.model
    return _replicated(spec, vision.encode(params["vision"], model.vision, model.dtype, images))


@partial(jax.jit, static_argnums=1, donate_argnums=2, compiler_options=BATCH_INVARIANT)
def prefill(
    params: Params,
    spec: ProgramSpec,
    pool: Pool,
    tokens_RT: jax.Array,
    pages_SRJ: jax.Array,
    seen: SeenPrompts | None = None,
) -> Pool:
    """Writes the keys and values of R prompts into pages: one list of pages a prompt and shard.

    The padding after a prompt's end is written too: where the list says, or after the prompt in its last page.
    """
    images, positions = seen or (None, None)
    _, fresh = decoder.forward_causal(params, spec.model, tokens_RT, None, positions, images=images)
    shards, r, j = pages_SRJ.shape
    pages_N = pages_SRJ.reshape(shards * r * j)

    def paged(x_RTKH: jax.Array, order: tuple[int, ...]) -> jax.Array:
        _, t, k, h = x_RTKH.shape
        return x_RTKH.reshape(r * j, t // j, k, h).transpose(order)

    written = []
    for old, (k, v) in zip(pool, fresh, strict=True):
        new = paged(k, (0, 2, 3, 1)), paged(v, (0, 2, 1, 3))
        file = partial(_filed, spec, page_N=pages_N, offset_N=jnp.zeros_like(pages_N), axes=(None, *CACHE_AXES[1:]))
        written.append(jax.tree.map(partial(file, axis=2), old, new))
    return _on_mesh(spec, written)


@partial(jax.jit, static_argnums=1, donate_argnums=2, compiler_options=BATCH_INVARIANT)
def decode_window(
    params: Params, spec: ProgramSpec, pool: Pool, rows: WindowInputs, plan: DecodePlan
) -> tuple[Pool, WindowOutputs]:
    """Draws a window in every row, token by token, and caches the keys and values of what it was fed."""
    b, window = len(rows.token_B), spec.window
    u_WB = uniforms(rows.key_B2, rows.index_B, rows.generated_B, window)
    # Token by token: a key is written where it is whole, and transposed to a page's layout once a window.
    none_BKWH = jnp.zeros((b, spec.model.kv_heads, window, spec.model.head_width), spec.model.dtype)
    recent = _on_mesh(spec, [(none_BKWH, none_BKWH)] * spec.model.layers)
    cuts = truncations_used(rows.rules)
    # All steps' at once: inside, XLA:CPU would make them again for each head of each layer.
    rope = decoder.rope_angles(spec.model, rows.position_B[:, None] + jnp.arange(window))
    rope_W = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0)[:, :, None], rope)

    def step(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        token, live, recent = carry
        t, u, rope = inputs

        def attend(i: int, q: jax.Array, k: jax.Array, v: jax.Array) -> tuple[jax.Array, tuple]:
            pairs = zip(recent[i], (k, v), strict=True)
            rk, rv = (copies.update(x, new.swapaxes(1, 2), t, axis=2) for x, new in pairs)
            q_BKGH = q.reshape(b, rk.shape[1], -1, q.shape[-1])
            seen_G = jnp.full(q_BKGH.shape[2], t + 1)
            return _attention(spec, q_BKGH, *pool[i], plan, RecentKV(rk, rv, seen_G)).reshape(q.shape), (rk, rv)

        hidden, recent = decoder.forward(params, spec.model, token[:, None], rope, attend)
        logits = constrain(decoder.logits(params, hidden[:, 0]), "draws", None)
        new, logp, logp_model = (constrain(x, "rows") for x in draw(logits, u, rows.rules, cuts))
        stopped = jnp.any(new[:, None] == rows.stops_BE, axis=-1) | (rows.generated_B + t + 1 >= rows.limit_B)
        # An idle row feeds its last token again; its place in the window is its own, so it can disturb nobody.
        return (jnp.where(live, new, token), live & ~stopped, recent), (new, logp, logp_model, live)

    carry = (rows.token_B, rows.live_B, recent)
    (_, live, recent), drawn = jax.lax.scan(step, carry, (jnp.arange(window), u_WB, rope_W))
    return _cached(spec, pool, recent, rows), WindowOutputs(*_replicated(spec, (*drawn, live)))


@partial(jax.jit, static_argnums=0)
def read_pages(spec: ProgramSpec, pool: Pool, pages_SN: jax.Array) -> Pool:
    """N pages of every shard, shard by shard, readable by every process."""
    pages_N = pages_SN.reshape(-1)

    def take(x: jax.Array) -> jax.Array:
        shape = (len(pages_N), *x.shape[1:])
        return _by_shard(spec, copies.take, [CACHE_AXES, ("rows",)], shape)(x, pages_N)

    return _replicated(spec, jax.tree.map(take, pool))


@partial(jax.jit, static_argnums=0, donate_argnums=1)
def write_pages(spec: ProgramSpec, pool: Pool, pages_SN: jax.Array, saved: Pool) -> Pool:
    """Puts back what read_pages gave, into other pages perhaps."""

    pages_N = pages_SN.reshape(-1)
    put = partial(_filed, spec, page_N=pages_N, offset_N=jnp.zeros_like(pages_N), axis=2)
    return _on_mesh(spec, jax.tree.map(put, pool, saved))


def _by_shard(spec: ProgramSpec, f: Callable, axes: list[tuple], shape: tuple[int, ...]) -> Callable:
    """f on each device, for a result with a row and a key head."""
    return on_each_device(f, spec.mesh, axes, Part(shape, CACHE_AXES))


def _on_mesh(spec: ProgramSpec, pool: Pool) -> Pool:
    """Pages, or rows of keys and values, laid out as they were given, or the next call would compile anew."""
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, spec.sharding(x.shape, *CACHE_AXES)), pool)


def _replicated(spec: ProgramSpec, tree: Any) -> Any:
    """The tree, readable by every process."""
    whole = replicated(spec.mesh)
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, whole), tree)


def _attention(
    spec: ProgramSpec,
    q_BKGH: jax.Array,
    k_PKHC: jax.Array,
    v_PKCH: jax.Array,
    plan: DecodePlan,
    recent: RecentKV,
) -> jax.Array:
    """Attention of each row over its pages and its window."""

    def local(q: jax.Array, k: jax.Array, v: jax.Array, plan: DecodePlan, *recent: jax.Array) -> AttentionState:
        # Counts travel as one number a shard.
        plan = plan._replace(items=plan.items[0], visits=plan.visits[0])
        warn_where_plain(q, k, spec.tile)
        return decode_attention(q, k, v, plan, spec.tile, RecentKV(*recent))

    whole = AttentionState(Part(q_BKGH.shape, CACHE_AXES), *[Part(q_BKGH.shape[:3], CACHE_AXES[:3])] * 2)
    axes = [CACHE_AXES, CACHE_AXES, CACHE_AXES, ("rows",), CACHE_AXES, CACHE_AXES, (None,)]
    sums = on_each_device(local, spec.mesh, axes, whole)(q_BKGH, k_PKHC, v_PKCH, plan, *recent)
    return (sums.out_BKGH / sums.sum_BKG[..., None]).astype(q_BKGH.dtype)


def _filed(
    spec: ProgramSpec,
    pages: jax.Array,
    new: jax.Array,
    page_N: jax.Array,
    offset_N: jax.Array,
    axis: int,
    axes: tuple = CACHE_AXES,
) -> jax.Array:
    """Pages with new ones in their places, along an axis from an offset on; axes are the logical axes of new."""
    where = [CACHE_AXES, axes, ("rows",), ("rows",)]
    return _by_shard(spec, partial(copies.put, axis=axis), where, pages.shape)(pages, new, page_N, offset_N)


def _cached(spec: ProgramSpec, pool: Pool, recent: list[tuple], rows: WindowInputs) -> Pool:
    """The pool with each row's window in its page, from its offset on; idle rows write to the null page."""

    def write(old: jax.Array, new: jax.Array, axis: int) -> jax.Array:
        return _filed(spec, old, new, rows.page_B, rows.offset_B, axis)

    written = [
        (write(k_pages, k.swapaxes(2, 3), 3), write(v_pages, v, 2))
        for (k_pages, v_pages), (k, v) in zip(pool, recent, strict=True)
    ]
    return _on_mesh(spec, written)
