"""Products of activations and weights: against float64, whatever the shape, and a row's bits whatever is beside it."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import native
from kernels.matmul import matmul
from kernels.matmul import native as on_cpu

needs_pairs = pytest.mark.skipif(not native.multiplies_pairs(), reason="no AVX512_BF16, or AMX, or no C++ compiler")

SHAPES = [(1, 2, 1), (7, 64, 100), (6, 130, 64), (13, 1100, 33), (60, 1030, 700), (64, 898, 1)]
"""Rows, sums and columns: fewer and more than a tile of registers, a panel, a part and a block hold."""


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


@needs_pairs
@pytest.mark.parametrize("transposed", [False, True])
def test_a_row_s_bits_do_not_depend_on_how_many_are_multiplied(transposed: bool) -> None:
    x, w = factors(60, 1030, 700, transposed)
    product = jax.jit(partial(on_cpu.matmul, transposed=transposed))
    whole = np.asarray(product(x, w))
    for rows in (1, 5, 6, 7, 31):
        np.testing.assert_array_equal(product(x[60 - rows :], w), whole[60 - rows :])


@needs_pairs
@pytest.mark.parametrize("transposed", [False, True])
def test_a_dropped_pair_of_factors_is_seen(transposed: bool) -> None:
    x, w = factors(13, 1100, 33, transposed)
    lost = w.at[:, -2:].set(0) if transposed else w.at[-2:].set(0)
    found, short = (np.asarray(on_cpu.matmul(x, y, transposed)) for y in (w, lost))
    assert np.abs(found - short).max() > 1e-5 * 1100**0.5


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


@needs_pairs
def test_large_products_and_float32_are_left_to_xla() -> None:
    x, w = factors(on_cpu.MOST_ROWS + 1, 4, 3, False)
    assert not on_cpu.takes(x, w) and on_cpu.takes(x[1:], w)
    assert not on_cpu.takes(x[1:, :3], w[:3]) and not on_cpu.takes(*(y.astype(jnp.float32) for y in (x[1:], w)))
