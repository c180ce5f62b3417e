"""A token of each row, drawn in plain JAX and by the C++ of a CPU: what is left of a distribution after temperature,
top-k, top-p and min-p, beside sorting in float64."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
import pytest

import kernels.native
from kernels.draw import SamplingTensors, draw, native, reference, truncations_used

VOCAB = 40
EACH = pytest.mark.parametrize("f", [native.draw, reference.draw], ids=["native", "reference"])


def drawn(f: Callable, logits: np.ndarray, u: np.ndarray, rules: SamplingTensors) -> tuple[np.ndarray, ...]:
    if f is native.draw and not kernels.native.ready():
        pytest.skip("no C++ compiler")
    return tuple(map(np.asarray, jax.jit(f)(logits, u, rules, truncations_used(rules))))


def same_for_all(
    rows: int, temperature: float, top_p: float = 1.0, top_k: int = 0, min_p: float = 0.0
) -> SamplingTensors:
    return SamplingTensors(
        *(np.full(rows, x, t) for x, t in zip((temperature, top_p, top_k, min_p), "ffif", strict=True))
    )


def expected(logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """The distribution as its definition says, a token at a time in falling order; ties stay together."""
    z = logits.astype(np.float64) / temperature
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    order = np.argsort(-p, kind="stable")
    if top_k:
        p[p < p[order[min(top_k, len(p)) - 1]]] = 0
        p /= p.sum()
    reached, last = 0.0, 1.0
    for token in order:
        if reached >= top_p and p[token] < last:
            p[token] = 0
        reached += p[token]
        last = p[token] or last
    p[p < min_p * p.max()] = 0
    return p / p.sum()


@EACH
@pytest.mark.parametrize("temperature", [0.6, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [0, 1, 7, VOCAB, 10 * VOCAB])
@pytest.mark.parametrize("top_p", [1.0, 0.6])
@pytest.mark.parametrize("min_p", [0.0, 0.1, 1.0])
def test_the_drawn_tokens_and_their_log_probs_follow_the_truncated_distribution(f, temperature, top_k, top_p, min_p):
    rng = np.random.default_rng(top_k)
    logits_V = rng.normal(size=VOCAB).astype(np.float32) * 2
    # Ties, which no truncation may part.
    logits_V[rng.integers(0, VOCAB, 12)] = np.sort(logits_V)[-9]
    u_B = ((np.arange(4000) + 0.5) / 4000).astype(np.float32)
    rows = len(u_B)
    rules = same_for_all(rows, temperature, top_p, top_k, min_p)
    token_B, logp_B, model_B = drawn(f, np.tile(logits_V, (rows, 1)), u_B, rules)
    p = expected(logits_V, temperature, top_k, top_p, min_p)
    # With evenly spaced numbers each token is drawn as often as its mass says, but for one at either end.
    assert np.abs(np.bincount(token_B, minlength=VOCAB) - rows * p).max() <= 1.01
    np.testing.assert_allclose(logp_B, np.log(p[token_B]), atol=2e-6)
    z = logits_V.astype(np.float64)
    np.testing.assert_allclose(model_B, z[token_B] - np.log(np.exp(z).sum()), atol=2e-6)


@EACH
@pytest.mark.parametrize("vocab", [1, 65, 151_936, *(pytest.param(n, marks=pytest.mark.slow) for n in (15, 64, 2048))])
@pytest.mark.parametrize("top_p", [1.0, 0.95])
def test_rows_of_any_length_are_drawn_by_the_inverse_cdf(f, vocab, top_p):
    rows = 16
    rng = np.random.default_rng(vocab)
    logits = (rng.normal(size=(rows, vocab)) * np.linspace(0, 5, rows)[:, None]).astype(np.float32)
    u = np.concatenate([[0, np.nextafter(np.float32(1), np.float32(0))], rng.random(rows - 2)]).astype(np.float32)
    token, logp, logp_model = drawn(f, logits, u, same_for_all(rows, 0.6, top_p))
    for row in range(rows):
        p = expected(logits[row], 0.6, 0, top_p, 0.0)
        at = token[row]
        assert p[at] > 0 and p[:at].sum() - 1e-5 < u[row] < p[: at + 1].sum() + 1e-5
        # One token more or less at top-p's edge changes the whole by its own mass.
        np.testing.assert_allclose(logp[row], np.log(p[at]), atol=1e-5 + p[p > 0].min() * (top_p < 1))
        z = logits[row].astype(np.float64)
        np.testing.assert_allclose(logp_model[row], z[at] - np.log(np.exp(z).sum()), atol=1e-5)


@EACH
def test_the_first_of_the_likeliest_is_greedy_and_of_log_prob_0(f):
    logits = np.array([[1, 3, 2, 3], [5, 5, 5, 5], [-9, -np.inf, -8, -np.inf]], np.float32)
    token, logp, logp_model = drawn(f, logits, np.full(3, 0.7, "f"), same_for_all(3, 0.0, 0.5, 1, 0.5))
    np.testing.assert_array_equal(token, [1, 0, 2])
    np.testing.assert_array_equal(logp, 0)
    np.testing.assert_allclose(logp_model[1:], [-np.log(4), -np.log(1 + np.exp(-1))], atol=1e-6)


@EACH
@pytest.mark.parametrize("temperature", [1e-37, 1e-20, 1e30])
def test_the_coldest_draw_is_the_likeliest_and_the_hottest_is_uniform(f, temperature):
    logits = np.tile(np.array([1, 4, -3, 4, 0], np.float32), (50, 1))
    u = ((np.arange(50) + 0.5) / 50).astype(np.float32)
    token, logp, _ = drawn(f, logits, u, same_for_all(50, temperature))
    share = np.bincount(token, minlength=5) / 50
    np.testing.assert_allclose(share, [0, 0.5, 0, 0.5, 0] if temperature < 1 else 0.2, atol=0.021)
    np.testing.assert_allclose(logp, np.log(0.5 if temperature < 1 else 0.2), atol=1e-6)


@EACH
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_tokens_of_no_mass_are_never_drawn(f, top_p):
    logits = np.tile(np.array([-np.inf, 0, -1e30, 1, -np.inf, -95, -np.inf], np.float32), (64, 1))
    u = np.linspace(0, 1, 64, endpoint=False, dtype=np.float32)
    u[-1] = np.nextafter(np.float32(1), np.float32(0))
    token, logp, _ = drawn(f, logits, u, same_for_all(64, 0.5, top_p))
    assert set(token) == {1, 3}
    np.testing.assert_allclose(np.exp(logp[token == 3]), 1 / (1 + np.exp(-2)), atol=1e-6)


@EACH
def test_logits_that_are_not_numbers_give_a_token_there_is_and_no_log_prob(f):
    token, logp, logp_model = drawn(
        f, np.full((4, VOCAB), np.nan, "f"), np.full(4, 0.9, "f"), same_for_all(4, 1, 0.9, 3)
    )
    assert np.all((0 <= token) & (token < VOCAB)) and np.all(np.isnan(logp)) and np.all(np.isnan(logp_model))


@EACH
def test_rows_with_other_rules_do_not_change_a_row(f):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(64, VOCAB)).astype(np.float32)
    u = rng.random(64).astype(np.float32)
    plain = same_for_all(64, 1)
    mixed = SamplingTensors(*(np.where(np.arange(64) % 2, other, x).astype(x.dtype) for x, other in zip(plain, (2, 0.5, 3, 0.2), strict=True)))  # fmt: skip # noqa: E501
    alone, among = (drawn(f, logits, u, rules) for rules in (plain, mixed))
    for a, b in zip(alone, among, strict=True):
        np.testing.assert_array_equal(a[::2], b[::2])


def test_the_number_of_rows_changes_no_bit_of_a_row():
    rng = np.random.default_rng(1)
    logits, u = rng.normal(size=(33, 1000)).astype(np.float32), rng.random(33).astype(np.float32)
    whole = drawn(native.draw, logits, u, same_for_all(33, 0.7, 0.9))
    for rows in (slice(0, 1), slice(5, 12)):
        some = drawn(native.draw, logits[rows], u[rows], same_for_all(len(u[rows]), 0.7, 0.9))
        jax.tree.map(lambda a, b, rows=rows: np.testing.assert_array_equal(a, b[rows]), some, whole)


def test_the_public_draw_takes_the_c_plus_plus_where_it_is_built():
    if not kernels.native.ready():
        pytest.skip("no C++ compiler")
    rules = same_for_all(4, 1)
    text = (
        jax.jit(draw)
        .lower(np.zeros((4, VOCAB), "f"), np.zeros(4, "f"), rules, truncations_used(rules))
        .compile()
        .as_text()
    )
    assert "rlvr_draw" in text
