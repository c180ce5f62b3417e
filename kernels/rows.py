"""Maxima and sums of rows, by what is fast on the platform that the program is compiled for.

XLA:CPU goes along a row number by number. Cut into runs of `lanes` numbers that are taken together first, it computes
whole vectors; the order, and with it a row's bits, depends on nothing but the row's length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from kernels.platforms import by_platform

LANES = 64


def row_max(x: jax.Array) -> jax.Array:
    """Largest number of each row [..., V] -> [...]."""
    whole = partial(jnp.max, axis=-1)
    return by_platform(x, default=whole, cpu=max_in_lanes, tpu=whole, cuda=whole)


def row_min(x: jax.Array) -> jax.Array:
    """Smallest number of each row [..., V] -> [...]."""
    return -row_max(-x)


def row_sum(x: jax.Array) -> jax.Array:
    """Sum of each row [..., V] -> [...]."""
    whole = partial(jnp.sum, axis=-1)
    return by_platform(x, default=whole, cpu=sum_in_lanes, tpu=whole, cuda=whole)


def max_in_lanes(x: jax.Array, lanes: int = LANES) -> jax.Array:
    """row_max for XLA:CPU; lanes is a power of 2."""
    least = -jnp.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    return _in_lanes(x, lanes, jnp.max, jnp.maximum, least)


def sum_in_lanes(x: jax.Array, lanes: int = LANES) -> jax.Array:
    """row_sum for XLA:CPU; lanes is a power of 2."""
    return _in_lanes(x, lanes, jnp.sum, jnp.add, 0)


def _in_lanes(x: jax.Array, lanes: int, whole: Callable, pair: Callable, nothing: float) -> jax.Array:
    rest = -x.shape[-1] % lanes
    if rest:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, rest)], constant_values=nothing)
    # Apart from what follows: fused with it, the lanes are computed again for each of its numbers.
    found = jax.lax.optimization_barrier(whole(x.reshape(*x.shape[:-1], -1, lanes), axis=-2))
    while found.shape[-1] > 1:
        half = found.shape[-1] // 2
        found = pair(found[..., :half], found[..., half:])
    return found[..., 0]
