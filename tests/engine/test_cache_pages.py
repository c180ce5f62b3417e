"""Keys and values in 8 bits: what they stand for, who reads them, and what the grouping of keys is good for."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.decode_attention import (
    AttentionState,
    QuantizedPages,
    cpu,
    decode_attention,
    gpu,
    hopper,
    quantize,
    reference,
    tpu,
)
from kernels.platforms import BATCH_INVARIANT
from rlvr_limit.engine.cache import INT8, as_cached
from tests.support.decode_attention_cases import Case, brute_force, make

WINDOW = 32
OWN = [300, 0, 128, 1, 5, 0, 0, 257, 640, 0, 3, 0]
PROMPTS, SHARED = [0, 0, 1, 1, 0, 2, -1, 2, 0, -1, 1, -1], {0: 200, 1: 128, 2: 130}
SMALL = {"heads": 2, "group": 3, "head_width": 16}


def stands_for(pages: QuantizedPages) -> np.ndarray:
    """values * scales in float64."""
    values, scales = (np.asarray(x, np.float64) for x in pages)
    return values * np.repeat(scales, values.shape[-1] // scales.shape[-1], axis=-1)


def cached(k, v) -> tuple[QuantizedPages, QuantizedPages]:
    return as_cached(jnp.asarray(k), jnp.asarray(v), INT8, WINDOW)


def attend(name: str, q, k, v, plan, tile: int) -> AttentionState:
    f = partial({"reference": reference, "cpu": cpu, "gpu": gpu}[name].decode_attention, tile=tile)
    return AttentionState(*map(np.asarray, jax.jit(f, compiler_options=BATCH_INVARIANT)(q, k, v, plan)))


def test_numbers_are_within_half_a_step_and_what_is_read_is_exact_in_float32():
    x = np.random.default_rng(0).normal(size=(3, 5, 64)).astype(np.float32) * np.logspace(-20, 20, 5)[:, None]
    x[0, 0], x[0, 1, :16] = 0, 0
    found = jax.jit(partial(quantize, run=16))(x.astype(np.float32))
    assert found.values.dtype == jnp.int8 and found.scales.shape == (3, 5, 4) and found.shape == x.shape
    expected = stands_for(found)
    np.testing.assert_array_equal(np.asarray(found.astype(jnp.float32)), expected)
    step = np.repeat(np.asarray(found.scales, np.float64), 16, axis=-1)
    # Scales are rounded to 8 bits, so that the largest of a run may lie a little beyond 127 steps.
    assert np.all(np.abs(expected - x) <= 0.5001 * step)
    largest = np.abs(x).reshape(3, 5, 4, 16).max(-1)
    np.testing.assert_allclose(np.asarray(found.scales, np.float64), largest / 127, rtol=2**-8)


@pytest.mark.parametrize("name", ["reference", "cpu", "gpu"])
def test_attention_over_8_bits_equals_brute_force_over_what_they_stand_for(name, monkeypatch):
    # More than one block, the last of which reaches back.
    monkeypatch.setattr(gpu, "BLOCK", 5)
    case = make(OWN, PROMPTS, SHARED, **SMALL)
    pages = cached(case.k, case.v)
    assert case.k.shape[0] % 5
    out, top, total = brute_force(case._replace(k=stands_for(pages[0]), v=stands_for(pages[1])))
    found = attend(name, case.q, *pages, case.plan, case.tile)
    scale = np.maximum(total, 1.0)
    np.testing.assert_allclose(found.out_BKGH / scale[..., None], out / scale[..., None], rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.max_BKG, top, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(found.sum_BKG / scale, total / scale, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["cpu", pytest.param("gpu", marks=pytest.mark.slow)])
def test_neither_places_nor_batch_mates_change_a_bit_of_a_row_that_reads_8_bits(name):
    alone = [0, 2, 8]
    mates, theirs = [9, 400, 0, 0, 700, 1, 130, 2, 9, 5, 0, 7], [9, 1, 9, 0, 3, 3, 0, 3, 9, 1, 2, 0]
    own = [OWN[row] if row in alone else tokens for row, tokens in enumerate(mates)]
    prompts = [PROMPTS[row] if row in alone else prompt for row, prompt in enumerate(theirs)]

    def run(case: Case) -> AttentionState:
        return attend(name, case.q, *cached(case.k, case.v), case.plan, case.tile)

    first = run(make(OWN, PROMPTS, SHARED, **SMALL))
    moved = run(make(OWN, PROMPTS, SHARED, **SMALL, places=1))
    other = run(make(own, prompts, {**SHARED, 3: 300}, **SMALL))
    jax.tree.map(np.testing.assert_array_equal, moved, first)
    for row in alone:
        jax.tree.map(lambda x, y, row=row: np.testing.assert_array_equal(x[row], y[row]), other, first)


def test_kernels_proper_leave_8_bits_to_plain_xla():
    a = jax.ShapeDtypeStruct
    q, k = a((64, 4, 7, 128), jnp.bfloat16), a((9, 4, 128, 128), jnp.bfloat16)
    in_8_bits = QuantizedPages(a(k.shape, jnp.int8), a((9, 4, 128, 4), jnp.bfloat16))
    assert tpu.takes(q, k) and hopper.takes(q, k, 8)
    assert not tpu.takes(q, in_8_bits) and not hopper.takes(q, in_8_bits, 8)


def test_keys_with_an_outlier_channel_keep_a_small_error_where_a_scale_a_token_would_not():
    """Channel 3 is 100 times as large as the others in all tokens, as the biases of Qwen2.5 make it (KIVI, sec. 3)."""
    case = make([640, 300], [-1, -1], {}, **SMALL)
    case.k[:, :, 3] = 100 + 3 * case.k[:, :, 3]
    # As much of it in every query as adds the same to all scores but for what the channel tells.
    case.q[..., 3] = 0.05
    exact = brute_force(case)
    k, v = cached(case.k, case.v)
    by_token = quantize(jnp.asarray(np.swapaxes(case.k, 2, 3)), case.k.shape[2])
    worse = np.swapaxes(stands_for(by_token), 2, 3)

    def error(keys: np.ndarray) -> float:
        found = brute_force(case._replace(k=keys))
        return float(np.abs(found[0] / found[2][..., None] - exact[0] / exact[2][..., None]).max())

    by_channel, of_tokens = error(stands_for(k)), error(worse)
    of_values = np.abs(stands_for(v) - case.v).max()
    print(f"scales by channel {by_channel:.4f}, by token {of_tokens:.4f}, of a value at most {of_values:.4f}")
    assert by_channel < of_values and of_tokens > 10 * by_channel


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_no_platform_makes_a_whole_pool_out_of_8_bits(platform):
    """No array of the pool's numbers is there in another type, and none as large that is not the pool."""
    pages, heads, width, page = 999, 2, 64, 128
    a = jax.ShapeDtypeStruct
    case = make([5], [0], {0: 3}, heads=heads, head_width=width, tile=1)
    pool = (
        QuantizedPages(a((pages, heads, width, page), jnp.int8), a((pages, heads, width, 4), jnp.bfloat16)),
        QuantizedPages(a((pages, heads, page, width), jnp.int8), a((pages, heads, page, 1), jnp.bfloat16)),
    )
    lowered = jax.jit(partial(decode_attention, tile=1)).trace(case.q, *pool, case.plan)
    text = lowered.lower(lowering_platforms=(platform,)).as_text()
    assert f"tensor<{pages}x{heads}x{width}x{page}xi8>" in text
    arrays = {(tuple(map(int, d[:-1].split("x"))), t) for d, t in re.findall(r"tensor<((?:\d+x)+)(\w+)>", text)}
    big = {kind for shape, kind in arrays if np.prod(shape) >= pages * heads * width * page}
    assert big == {"i8"}
