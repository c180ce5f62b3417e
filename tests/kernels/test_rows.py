"""Maxima and sums of rows in lanes: what they are in float64, and the same bits for any number of rows."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from kernels.platforms import BATCH_INVARIANT
from kernels.rows import max_in_lanes, row_max, row_min, row_sum, sum_in_lanes

WIDTHS = pytest.mark.parametrize("width", [1, 16, 40, 64, 129, 2048])


def numbers(rows: int, width: int) -> np.ndarray:
    return np.random.default_rng(width).normal(size=(rows, width)).astype(np.float32) - 3


@WIDTHS
def test_rows_are_what_they_are_in_float64(width: int):
    x = numbers(5, width)
    exact = x.astype(np.float64)
    for found in (row_max(x), max_in_lanes(x, 16)):
        np.testing.assert_array_equal(found, exact.max(axis=-1))
    np.testing.assert_array_equal(row_min(x), exact.min(axis=-1))
    np.testing.assert_array_equal(row_max(np.int32(100 * x)), np.int32(100 * x).max(axis=-1))
    for found in (row_sum(x), sum_in_lanes(x, 16)):
        np.testing.assert_allclose(found, exact.sum(axis=-1), rtol=1e-6)


@WIDTHS
def test_the_bits_of_a_row_do_not_depend_on_how_many_there_are(width: int):
    x, f = numbers(256, width), jax.jit(row_sum, compiler_options=BATCH_INVARIANT)
    whole = np.asarray(f(x))
    for rows in (1, 3, 16, 100):
        np.testing.assert_array_equal(f(x[:rows]), whole[:rows])
