"""The gradient of token log-probs over tiles of the vocabulary, against float64 NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.token_logprob import backward, token_logprob


def drawn(rows, width, vocab, seed=0):
    rng = np.random.default_rng(seed)
    hidden, weights = rng.normal(size=(rows, width)), rng.normal(size=(width, vocab))
    mix = rng.normal(size=(2, rows))
    return *(x.astype(np.float32) for x in (hidden, weights)), rng.integers(vocab, size=rows), mix.astype(np.float32)


def exact_gradient(hidden, weights, targets, mix):
    """Cotangents of hidden and weights in float64, the softmax's Jacobian written out row by row."""
    hidden, weights, mix = (np.asarray(x, np.float64) for x in (hidden, weights, mix))
    hidden_bar, weights_bar = np.zeros_like(hidden), np.zeros_like(weights)
    for r, target in enumerate(targets):
        logits = hidden[r] @ weights
        p = np.exp(logits - logits.max())
        p /= p.sum()
        to_logits = mix[0, r] * (np.arange(len(p)) == target) - mix[0, r] * p
        jacobian = np.diag(p) - np.outer(p, p)
        to_logits += mix[1, r] * jacobian @ -(np.log(p) + 1)
        hidden_bar[r] = weights @ to_logits
        weights_bar += np.outer(hidden[r], to_logits)
    return hidden_bar, weights_bar


def gradient(hidden, weights, targets, mix, chunk, parts, held=0):
    def mixed(hidden, weights):
        logp, entropy = token_logprob(hidden, weights, targets, chunk, parts, held)
        return jnp.sum(mix[0] * logp + mix[1] * entropy)

    return jax.jit(jax.grad(mixed, (0, 1)))(hidden, weights)


@pytest.mark.parametrize("parts", [1, 2, 3])
@pytest.mark.parametrize("chunk", [1, 4, 12])
def test_gradients_over_ragged_tiles_equal_float64(chunk, parts, monkeypatch):
    monkeypatch.setattr(backward, "TILE", 7)
    args = drawn(rows=12, width=5, vocab=66)
    for found, expected in zip(gradient(*args, chunk, parts), exact_gradient(*args), strict=True):
        assert found.dtype == jnp.float32 and np.abs(expected).max() > 1
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_gradients_of_kept_logits_equal_float64_and_take_a_product_less():
    args, limit = drawn(rows=12, width=5, vocab=66), 12 * 66
    for found, expected in zip(gradient(*args, 4, 1, limit), exact_gradient(*args), strict=True):
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())

    def products(held):
        return str(jax.make_jaxpr(lambda *x: gradient(*x, *args[2:], 12, 1, held))(*args[:2])).count("dot_general")

    # One logit too many, and they are made again, by whichever of the forward pass's implementations.
    assert products(limit) == 3 < products(limit - 1)


def test_a_vocabulary_is_cut_into_tiles_that_overlap_little():
    shapes = jax.ShapeDtypeStruct((5, 4), jnp.float32), jax.ShapeDtypeStruct((4, 7 * 1280 + 128), jnp.float32)
    loss = jax.grad(lambda h, w: jnp.sum(token_logprob(h, w, np.zeros(5, int), 1)[0]), (0, 1))
    text = str(jax.make_jaxpr(loss)(*shapes))
    # Of 1,792 tokens at most, six are needed for 9,088: then they are as short as their divisor of 128 allows.
    assert "f32[5,1536]" in text and "f32[5,1792]" not in text


def test_bfloat16_weights_get_a_gradient_that_is_rounded_once_however_many_rows_there_are():
    hidden, weights, targets, mix = drawn(rows=512, width=8, vocab=384, seed=1)
    hidden, weights = jnp.asarray(hidden, jnp.bfloat16), jnp.asarray(weights, jnp.bfloat16)
    # All of one sign, so that what is added to a long sum is small beside it: sums in bfloat16 would stop growing.
    mix = np.abs(mix) * np.array([[1.0], [0.0]], np.float32)
    targets = np.zeros(512, np.int64)
    found = gradient(jnp.abs(hidden), weights, targets, mix, 8, 1)[1]
    expected = exact_gradient(jnp.abs(hidden), weights, targets, mix)[1]
    assert found.dtype == jnp.bfloat16
    away = np.abs(np.asarray(found, np.float64) - expected).max(axis=0) / np.abs(expected).max(axis=0)
    assert away[0] < 2**-7


def test_a_gradient_holds_a_few_tiles_of_logits_and_the_weights_gradient_once():
    rows, width, vocab = 1024, 64, 16384
    shapes = [jax.ShapeDtypeStruct(s, jnp.float32) for s in ((rows, width), (width, vocab))]
    targets = np.zeros(rows, np.int32)
    loss = jax.grad(lambda h, w: jnp.sum(token_logprob(h, w, targets, 16)[0]), (0, 1))
    held = jax.jit(loss).lower(*shapes).compile().memory_analysis().temp_size_in_bytes
    logits, weights = 4 * 16 * vocab, 4 * width * vocab
    assert held < 4 * logits + 2.5 * weights < rows * vocab * 4 / 4
