"""One test over each kernel: float64 NumPy references, brute force over subsets, and lowering for every platform."""

from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import native
from kernels.categorical import inverse_cdf
from kernels.draw import SamplingTensors, draw, truncations_used
from kernels.token_logprob import token_logprob
from kernels.token_logprob.gpu import CPU_TILE_LOGITS
from kernels.top_p import top_p_mask

# V = 2..400 around squares and multiples of vector widths, and the vocabulary of Qwen2.5.
SIZES = [2, 3, 5, 10, 17, 49, 257, 400]
QWEN = 151_936

inverse_cdf_jit = jax.jit(inverse_cdf)
top_p_mask_jit = jax.jit(top_p_mask)


def dyadic(rng, rows, vocab, parts=1 << 12):
    """Distributions in multiples of 1/parts, many of them equal or 0: float32 adds them without rounding."""
    counts = rng.multinomial(parts, rng.dirichlet(np.full(vocab, 0.5), rows))
    counts[: rows // 2] -= counts[: rows // 2] % max(parts // 64, 1)
    counts[:, 0] += parts - counts.sum(axis=1)
    return (counts / parts).astype(np.float32)


def sorted_top_p(p_BV, top_p_B):
    """Sort, add up in float64, keep what is at least as likely as the token at which the mass is reached."""
    falling = -np.sort(-p_BV.astype(np.float64), axis=1)
    reached = (np.cumsum(falling, axis=1) >= top_p_B[:, None].astype(np.float64)).argmax(axis=1)
    return p_BV >= np.take_along_axis(falling, reached[:, None], axis=1)


@pytest.mark.parametrize("vocab", [2, 5, 32, 257, 2048])
def test_top_p_equals_sorting_even_where_ties_stand_at_the_edge_of_the_mass(vocab):
    rng = np.random.default_rng(vocab)
    p_BV = dyadic(rng, 256, vocab, parts=16 if vocab < 10 else 1 << 12)
    # Half of the limits are reached exactly by some set of likeliest tokens, half fall between two sets.
    reach = np.take_along_axis(np.cumsum(-np.sort(-p_BV, axis=1), axis=1), rng.integers(vocab, size=(256, 1)), axis=1)
    top_p_B = np.where(np.arange(256) % 4 < 2, reach[:, 0], rng.uniform(1e-6, 1, 256)).astype(np.float32)
    mask_BV = np.asarray(top_p_mask_jit(p_BV, top_p_B))
    np.testing.assert_array_equal(mask_BV, sorted_top_p(p_BV, top_p_B))
    kept = np.sort(np.where(mask_BV, p_BV, np.inf), axis=1)[:, 0]
    assert ((p_BV == kept[:, None]).sum(axis=1) > 1).sum() > 5


def test_top_p_equals_sorting_for_a_softmax_of_a_whole_vocabulary():
    rng = np.random.default_rng(0)
    logits_BV = rng.normal(size=(4, QWEN)) * np.array([[0.5], [2.0], [4.0], [8.0]])
    p_BV = np.asarray(jax.nn.softmax(logits_BV.astype(np.float32)))
    for top_p in (0.1, 0.5, 0.9, 0.95):
        top_p_B = np.full(4, top_p, np.float32)
        sizes = np.asarray(top_p_mask_jit(p_BV, top_p_B)).sum(axis=1)
        # Float32 may miss the edge by its rounding of the mass, never by more.
        low, high = (sorted_top_p(p_BV, top_p_B + shift).sum(axis=1) for shift in (-1e-6, 1e-6))
        assert np.all((low <= sizes) & (sizes <= high)) and np.all(high - low <= 2)


def test_top_p_keeps_the_smallest_sets_whose_mass_reaches_p():
    rng = np.random.default_rng(1)
    for vocab, parts in ((2, 16), (3, 256), (5, 16), (8, 16), (8, 256)):
        p_BV = dyadic(rng, 24, vocab, parts)
        top_p_B = (rng.integers(1, 17, 24) / 16).astype(np.float32)
        mask_BV = np.asarray(top_p_mask_jit(p_BV, top_p_B))
        for p_V, top_p, mask_V in zip(p_BV, top_p_B, mask_BV, strict=True):
            subsets = [s for size in range(1, vocab + 1) for s in combinations(range(vocab), size)]
            reaching = [s for s in subsets if p_V[list(s)].sum() >= top_p]
            smallest = [s for s in reaching if len(s) == len(reaching[0])]
            heaviest = max(p_V[list(s)].sum() for s in smallest)
            best = {token for s in smallest if p_V[list(s)].sum() == heaviest for token in s}
            assert set(np.flatnonzero(mask_V)) == best


def test_top_p_of_one_keeps_every_token_that_has_mass():
    p_BV = dyadic(np.random.default_rng(2), 64, 100)
    for top_p in (1.0, np.nextafter(np.float32(1), np.float32(0))):
        np.testing.assert_array_equal(top_p_mask_jit(p_BV, np.full(64, top_p, np.float32)), p_BV > 0)
    assert np.all(top_p_mask_jit(p_BV * np.float32(0.999), np.ones(64, np.float32)))
    one = np.zeros((1, 9), np.float32)
    one[0, 4] = 1
    np.testing.assert_array_equal(top_p_mask_jit(one, np.ones(1, np.float32)), one > 0)


def masses(rng, rows, vocab):
    """Rows of unnormalised masses: dense, steep, mostly 0, and with long runs of 0."""
    p_BV = rng.exponential(size=(rows, vocab)) * rng.choice([0.1, 1, 10], (rows, 1))
    kind = np.arange(rows)[:, None] % 4
    p_BV = np.where(kind == 1, p_BV**6, p_BV)
    p_BV = np.where((kind == 2) & (rng.random((rows, vocab)) > 4 / vocab), 0, p_BV)
    p_BV = np.where((kind == 3) & (np.arange(vocab) // max(vocab // 6, 1) % 2 == 1), 0, p_BV)
    p_BV[np.arange(rows), rng.integers(vocab, size=rows)] += 0.1
    return p_BV.astype(np.float32)


def check_against_searchsorted(p_BV, u_B):
    rows = np.arange(len(u_B))
    token_B = np.asarray(inverse_cdf_jit(p_BV, u_B))
    assert token_B.dtype == np.int32 and token_B.min() >= 0 and token_B.max() < p_BV.shape[1]
    assert p_BV[rows, token_B].min() > 0
    cdf_BV = np.cumsum(p_BV.astype(np.float64), axis=1)
    cdf_BV /= cdf_BV[:, -1:]
    expected_B = np.array([np.searchsorted(cdf_V, u, side="right") for cdf_V, u in zip(cdf_BV, u_B, strict=True)])
    margin_B = np.minimum(np.abs(cdf_BV - u_B[:, None]).min(axis=1), u_B)
    np.testing.assert_array_equal(token_B[margin_B > 1e-6], expected_B[margin_B > 1e-6])
    # At a boundary, rounding may choose the neighbour in mass, and no other token.
    low_B = np.where(token_B > 0, cdf_BV[rows, token_B - 1], 0)
    assert np.all((low_B - 1e-6 <= u_B) & (u_B <= cdf_BV[rows, token_B] + 1e-6))
    return margin_B


@pytest.mark.parametrize("vocab", SIZES)
def test_inverse_cdf_equals_searchsorted_and_never_returns_a_token_without_mass(vocab):
    rng = np.random.default_rng(vocab)
    p_BV = masses(rng, 512, vocab)
    assert np.mean(check_against_searchsorted(p_BV, rng.random(512, np.float32)) > 1e-6) > 0.9
    cdf_BV = np.cumsum(p_BV.astype(np.float64), axis=1)
    edge_B = np.take_along_axis(cdf_BV / cdf_BV[:, -1:], rng.integers(vocab, size=(512, 1)), axis=1)[:, 0]
    last = np.nextafter(np.float32(1), np.float32(0))
    for u_B in (edge_B, np.zeros(512), np.ones(512)):
        check_against_searchsorted(p_BV, np.minimum(u_B.astype(np.float32), last))


def test_inverse_cdf_holds_for_a_whole_vocabulary():
    rng = np.random.default_rng(3)
    p_BV = np.concatenate([masses(rng, 12, QWEN), np.zeros((4, QWEN), np.float32)])
    p_BV[np.arange(12, 16), rng.integers(QWEN, size=4)] = 0.25
    assert np.sum(check_against_searchsorted(p_BV, rng.random(16, np.float32)) > 1e-6) > 8


def test_every_token_gets_its_share_of_evenly_spaced_uniforms():
    draws = 4096
    u_B = ((np.arange(draws) + 0.5) / draws).astype(np.float32)
    for vocab in (7, 50):
        for p_V in masses(np.random.default_rng(vocab), 4, vocab):
            token_B = np.asarray(inverse_cdf_jit(np.broadcast_to(p_V, (draws, vocab)), u_B))
            expected_V = p_V.astype(np.float64) / p_V.astype(np.float64).sum() * draws
            assert np.abs(np.bincount(token_B, minlength=vocab) - expected_V).max() <= 1.01


def scored(seed=0, rows=24, width=16, vocab=101, scale=1.0):
    rng = np.random.default_rng(seed)
    hidden, weights = rng.normal(size=(rows, width)) * scale, rng.normal(size=(width, vocab))
    return hidden.astype(np.float32), weights.astype(np.float32), rng.integers(vocab, size=rows).astype(np.int32)


def naive(hidden, weights, targets):
    logp = jax.nn.log_softmax(hidden @ weights)
    return logp[jnp.arange(len(targets)), targets], -jnp.sum(jnp.exp(logp) * logp, axis=1)


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_token_logprob_and_entropy_equal_a_float64_log_softmax(scale):
    hidden, weights, targets = scored(scale=scale)
    logits = hidden.astype(np.float64) @ weights.astype(np.float64)
    logp = logits - logits.max(axis=1, keepdims=True)
    logp -= np.log(np.exp(logp).sum(axis=1, keepdims=True))
    found, entropy = token_logprob(hidden, weights, targets, 8)
    assert found.dtype == entropy.dtype == jnp.float32
    tolerance = 1e-6 * max(1, np.abs(logits).max())
    np.testing.assert_allclose(found, logp[np.arange(24), targets], rtol=0, atol=tolerance)
    np.testing.assert_allclose(entropy, -(np.exp(logp) * logp).sum(axis=1), rtol=0, atol=tolerance)


def test_token_logprob_and_its_gradient_equal_the_naive_form_for_any_chunk():
    hidden, weights, targets = scored(1)
    mix = np.random.default_rng(2).normal(size=(2, 24)).astype(np.float32)

    def value_and_gradient(compute):
        def weighted(hidden, weights):
            logp, entropy = compute(hidden, weights, targets)
            return jnp.sum(mix[0] * logp + mix[1] * entropy)

        return jax.jit(jax.value_and_grad(weighted, (0, 1)))(hidden, weights)

    for chunk in (1, 8):
        found = value_and_gradient(partial(token_logprob, chunk=chunk))
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=2e-5), found, value_and_gradient(naive))


def test_token_logprob_is_the_same_for_a_vocabulary_so_large_that_a_cpu_takes_it_in_tiles():
    hidden, weights, targets = scored(5, rows=12, vocab=CPU_TILE_LOGITS)
    found, entropy = token_logprob(hidden, weights, targets, 6)
    logits = hidden.astype(np.float64) @ weights.astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    total = np.exp(logits).sum(axis=1)
    np.testing.assert_allclose(found, logits[np.arange(12), targets] - np.log(total), rtol=0, atol=5e-5)
    expected = np.log(total) - (np.exp(logits) * logits).sum(axis=1) / total
    np.testing.assert_allclose(entropy, expected, rtol=0, atol=5e-5)


def test_token_logprob_never_holds_the_vocabulary_for_all_rows():
    rows, width, vocab = 512, 8, 4096
    hidden, weights, targets = scored(3, rows, width, vocab)

    def temporary_bytes(compute):
        gradient = jax.jit(jax.grad(lambda h, w: jnp.sum(compute(h, w, targets)[0]), (0, 1)))
        return gradient.lower(hidden, weights).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(partial(token_logprob, chunk=16)) < rows * vocab * 4 / 4
    assert temporary_bytes(naive) >= rows * vocab * 4


@pytest.mark.parametrize("chunk", [5, 23, 48])
def test_rows_that_do_not_divide_into_chunks_are_refused(chunk):
    with pytest.raises(ValueError, match=f"24 rows do not divide into chunks of {chunk}"):
        token_logprob(*scored(), chunk)


def shape(*dims, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(dims, dtype)


RULES = SamplingTensors(*(np.ones(8, dtype) for dtype in "ffif"))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize(
    ("kernel", "arguments"),
    [
        (top_p_mask, (shape(8, 1000), shape(8))),
        (inverse_cdf, (shape(8, 1000), shape(8))),
        (draw, (shape(8, 1000), shape(8), RULES, truncations_used(RULES))),
        (partial(token_logprob, chunk=4), (shape(8, 16), shape(16, 1000), shape(8, dtype=jnp.int32))),
    ],
    ids=["top_p_mask", "inverse_cdf", "draw", "token_logprob"],
)
def test_every_kernel_lowers_for_every_platform(kernel, arguments, platform):
    ours = [jax.export.DisabledSafetyCheck.custom_call(name) for name in native.NAMES]
    f = jax.jit(lambda *args: kernel(*args))
    exported = jax.export.export(f, platforms=[platform], disabled_checks=ours)(*arguments)
    assert exported.platforms == (platform,) and "stablehlo" in exported.mlir_module()


def test_running_sums_are_not_rounded_to_the_short_formats_of_gpus_and_tpus():
    lowered = jax.jit(inverse_cdf).lower(shape(8, 1000), shape(8)).as_text()
    products = [line for line in lowered.splitlines() if "dot_general" in line]
    assert len(products) == 2 and all("precision = [HIGHEST, HIGHEST]" in line for line in products)
