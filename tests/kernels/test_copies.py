"""Rows copied in C++ are the bits that indexing gives, written where they lie, with the gradient of indexing."""

from __future__ import annotations

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import copies
from kernels.copies import native, reference


@pytest.fixture
def rows() -> jax.Array:
    """Every bit pattern of bfloat16, those of NaN too: [256, 2, 8, 16]."""
    bits = np.random.default_rng(0).permutation(2**16).astype(np.uint16)
    x = jax.lax.bitcast_convert_type(jnp.asarray(bits), jnp.bfloat16).reshape(256, 2, 8, 16)
    if not native.takes(x):
        pytest.skip("no C++ compiler")
    return x


def bits(x: jax.Array) -> np.ndarray:
    return np.asarray(x).view(np.uint16)


def test_rows_are_taken_to_the_bit(rows: jax.Array):
    at = np.random.default_rng(1).integers(256, size=(7, 50))
    np.testing.assert_array_equal(bits(jax.jit(copies.take)(rows, at)), bits(rows)[at])


@pytest.mark.parametrize(("axis", "length"), [(2, 8), (2, 3), (3, 16), (3, 4), (1, 1)])
def test_rows_are_put_to_the_bit_and_nothing_else_is_touched(rows: jax.Array, axis: int, length: int):
    rng = np.random.default_rng(axis)
    at = rng.permutation(256)[:40]
    offset = rng.integers(rows.shape[axis] - length + 1, size=40)
    new = jax.lax.slice_in_dim(rows[::-1][:40], 0, length, axis=axis)
    expected = bits(rows).copy()
    for n, (row, start) in enumerate(zip(at, offset, strict=True)):
        place = [row, *[slice(None)] * 3]
        place[axis] = slice(start, start + length)
        expected[tuple(place)] = bits(new)[n]
    found = jax.jit(partial(copies.put, axis=axis))(rows, new, at, offset)
    np.testing.assert_array_equal(bits(found), expected)
    # NaN's bits may change in XLA.
    plain = reference.put(jnp.nan_to_num(rows), jnp.nan_to_num(new), at, offset, axis)
    same = copies.put(jnp.nan_to_num(rows), jnp.nan_to_num(new), jnp.asarray(at), jnp.asarray(offset), axis)
    np.testing.assert_array_equal(bits(plain), bits(same))


def test_an_update_is_the_same_in_every_row(rows: jax.Array):
    x = jnp.nan_to_num(rows)
    for offset in (0, 5, 13):
        new = x[::-1, :, :, :3]
        np.testing.assert_array_equal(
            bits(copies.update(x, new, jnp.int32(offset), 3)), bits(reference.update(x, new, offset, 3))
        )


def test_the_gradient_is_that_of_indexing():
    x = jnp.asarray(np.random.default_rng(2).normal(size=(9, 4)), jnp.bfloat16)
    at = jnp.asarray([[1, 1, 8], [0, 1, 3]])
    scale = jnp.arange(24, dtype=jnp.bfloat16).reshape(2, 3, 4)

    def loss(take, x):
        return jnp.sum(take(x, at) * scale, dtype=jnp.float32)

    found, expected = (jax.grad(partial(loss, take))(x) for take in (copies.take, reference.take))
    np.testing.assert_array_equal(bits(found), bits(expected))
    assert np.any(bits(found))


def test_what_is_given_away_is_written_in_place_and_nothing_is_widened(rows: jax.Array):
    @partial(jax.jit, donate_argnums=0)
    def step(pool: jax.Array, at: jax.Array) -> jax.Array:
        def turn(pool: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
            return copies.put(pool, copies.take(pool, at + t), at, jnp.zeros_like(at), 2), None

        return jax.lax.scan(turn, pool, jnp.arange(3))[0]

    compiled = step.lower(rows, jnp.arange(8)).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < rows.nbytes / 4
    assert not re.findall(r"= \w+\[256,2,8,16\]\S* (copy|convert|fusion)\(", compiled.as_text())
