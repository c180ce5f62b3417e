"""Rows copied out of an array and into one. Legend: R rows of an array, N rows that are copied."""

from __future__ import annotations

import jax


def take(x: jax.Array, at: jax.Array) -> jax.Array:
    """x[at]: rows of x, [*at.shape, ...]."""
    return x[at]


def put(old: jax.Array, new: jax.Array, at_N: jax.Array, offset_N: jax.Array, axis: int) -> jax.Array:
    """old [R, ...] with new [N, ...] in its rows at_N, there along an axis (not the first) from offset_N on.

    New rows have the shape of old ones but for that axis, along which they may be shorter. Where a row is put twice,
    either may stand in the end.
    """

    def place(row: jax.Array, part: jax.Array, offset: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice_in_dim(row, part, offset, axis - 1)

    # A part that fills its row replaces it, unread.
    if new.shape[axis] == old.shape[axis]:
        return old.at[at_N].set(new)
    return old.at[at_N].set(jax.vmap(place)(old[at_N], new, offset_N))


def update(old: jax.Array, new: jax.Array, offset: jax.Array, axis: int) -> jax.Array:
    """old with new along an axis from offset on, the same in every row."""
    return jax.lax.dynamic_update_slice_in_dim(old, new, offset, axis)
