"""What is left of a distribution after temperature, top-k, top-p and min-p, beside sorting in float64."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from rlvr_limit.engine.drawing import Rules, cuts_of, draw

VOCAB = 40


def expected(logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """The distribution as its definition says, a token at a time in falling order."""
    z = logits.astype(np.float64) / temperature
    p = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    order = np.argsort(-p, kind="stable")
    if top_k:
        p[order[top_k:]] = 0
        p /= p.sum()
    reached = 0.0
    for token in order:
        if reached >= top_p:
            p[token] = 0
        reached += p[token]
    p[p < min_p * p.max()] = 0
    return p / p.sum()


@pytest.mark.parametrize("temperature", [0.6, 1.0])
@pytest.mark.parametrize("top_k", [0, 1, 7, VOCAB, 10 * VOCAB])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("min_p", [0.0, 0.1, 1.0])
def test_the_drawn_tokens_and_their_log_probs_follow_the_truncated_distribution(temperature, top_k, top_p, min_p):
    rng = np.random.default_rng(top_k)
    logits_V = rng.normal(size=VOCAB).astype(np.float32) * 2
    u_B = ((np.arange(4000) + 0.5) / 4000).astype(np.float32)
    rows = len(u_B)
    rules = Rules(*(np.full(rows, x, t) for x, t in zip((temperature, top_p, top_k, min_p), "ffif", strict=True)))
    token_B, logp_B, model_B = map(np.asarray, jax.jit(draw)(np.tile(logits_V, (rows, 1)), u_B, rules, cuts_of(rules)))
    p = expected(logits_V, temperature, top_k, top_p, min_p)
    # With evenly spaced numbers each token is drawn as often as its mass says, but for one at either end.
    assert np.abs(np.bincount(token_B, minlength=VOCAB) - rows * p).max() <= 1.01
    np.testing.assert_allclose(logp_B, np.log(p[token_B]), atol=2e-6)
    z = logits_V.astype(np.float64)
    np.testing.assert_allclose(model_B, z[token_B] - np.log(np.exp(z).sum()), atol=2e-6)


def test_rows_with_other_rules_do_not_change_a_row():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(64, VOCAB)).astype(np.float32)
    u = rng.random(64).astype(np.float32)
    plain = Rules(np.ones(64, "f"), np.ones(64, "f"), np.zeros(64, "i"), np.zeros(64, "f"))
    mixed = Rules(*(np.where(np.arange(64) % 2, other, x).astype(x.dtype) for x, other in zip(plain, (2, 0.5, 3, 0.2), strict=True)))  # fmt: skip # noqa: E501
    alone, among = (jax.jit(draw)(logits, u, rules, cuts_of(rules)) for rules in (plain, mixed))
    for a, b in zip(alone, among, strict=True):
        np.testing.assert_array_equal(np.asarray(a)[::2], np.asarray(b)[::2])
