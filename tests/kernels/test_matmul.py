"""Products of activations and weights: against float64, whatever the shape, and a row's bits whatever is beside it."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import native
from kernels.matmul import ColumnMajor, column_major, matmul
from kernels.matmul import native as on_cpu

needs_product = pytest.mark.skipif(not native.multiplies(), reason="no product for this processor, or no compiler")

SHAPES = [(1, 32, 4), (7, 64, 100), (6, 130, 64), (13, 1120, 36), (60, 2592, 700), (260, 896, 8), (64, 898, 1)]
"""Rows, sums and columns: fewer and more than a tile, a block of rows and one of sums hold; some are XLA's alone."""


def factors(m: int, k: int, n: int, transposed: bool, dtype: str = "bfloat16") -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(m * k + n)
    shape = (n, k) if transposed else (k, n)
    return jnp.asarray(rng.normal(size=(m, k)), dtype), jnp.asarray(rng.normal(size=shape), dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_product_is_that_of_float64(shape: tuple[int, int, int], transposed: bool, dtype: str) -> None:
    x, w = factors(*shape, transposed, dtype)
    found = np.asarray(jax.jit(partial(matmul, transposed=transposed))(x, w))
    x64, w64 = (np.asarray(y, np.float64) for y in (x, w))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, x64 @ (w64.T if transposed else w64), rtol=0, atol=1e-5 * shape[1] ** 0.5)


@needs_product
def test_a_row_s_bits_do_not_depend_on_how_many_are_multiplied() -> None:
    x, w = factors(300, 2592, 700, True)
    product = jax.jit(on_cpu.matmul)
    whole = np.asarray(product(x, w))
    for rows in (1, 3, 4, 5, 31, 257):
        np.testing.assert_array_equal(product(x[300 - rows :], w), whole[300 - rows :])


@needs_product
def test_a_dropped_pair_of_factors_is_seen() -> None:
    x, w = factors(13, 1120, 36, True)
    found, short = (np.asarray(on_cpu.matmul(x, y)) for y in (w, w.at[:, -2:].set(0)))
    assert np.abs(found - short).max() > 1e-5 * 1120**0.5


@needs_product
@pytest.mark.parametrize("inputs", [1, 2])
def test_a_weight_by_columns_multiplies_as_it_did(inputs: int) -> None:
    x, w = factors(5, 64, 12, False)
    shaped = w.reshape(64, 3, 4) if inputs == 1 else w.reshape(2, 32, 12)
    by_columns = column_major(shaped, inputs)
    assert isinstance(by_columns, ColumnMajor) and by_columns.shape == shaped.shape
    np.testing.assert_array_equal(by_columns.w_NK, w.T)
    np.testing.assert_array_equal(jax.jit(matmul)(x, by_columns), on_cpu.matmul(x, w.T))
    abstract = column_major(jax.ShapeDtypeStruct(shaped.shape, shaped.dtype, sharding=shaped.sharding), inputs)
    assert jax.tree.structure(abstract) == jax.tree.structure(by_columns)
    assert abstract.w_NK.shape == (12, 64) and abstract.w_NK.sharding == by_columns.w_NK.sharding


@pytest.mark.parametrize(("k", "n", "dtype"), [(64, 12, "float32"), (48, 12, "bfloat16"), (64, 10, "bfloat16")])
def test_a_weight_that_the_kernel_does_not_take_stays_as_it_lies(k: int, n: int, dtype: str) -> None:
    w = factors(5, k, n, False, dtype)[1]
    assert column_major(w, 1) is w


@pytest.mark.parametrize("transposed", [False, True])
def test_gradients_are_those_of_the_plain_product(transposed: bool) -> None:
    x, w = factors(7, 64, 100, transposed)

    def loss(product, x, w):
        return jnp.sum(jnp.sin(product(x, w)))

    def plain(x, w):
        return jnp.matmul(x, w.T if transposed else w, preferred_element_type=jnp.float32)

    found = jax.grad(partial(loss, partial(matmul, transposed=transposed)), (0, 1))(x, w)
    for mine, theirs in zip(found, jax.grad(partial(loss, plain), (0, 1))(x, w), strict=True):
        assert mine.dtype == jnp.bfloat16
        np.testing.assert_allclose(mine.astype(np.float32), theirs.astype(np.float32), rtol=2**-7, atol=0.05)
