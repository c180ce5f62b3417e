"""Updates: slow NumPy loops, finite differences of a float64 decoder, AdamW written out."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlvr_limit import rl
from rlvr_limit.models import decoder, log_probs
from rlvr_limit.settings import OptimizerConfig
from rlvr_limit.types import UserError
from tests.support.numpy_decoder import GROUPED, TIED, in_float64, numpy_log_softmax, random_params

# A transformation that passes the gradient on and keeps it where it can be read.
KEEP = optax.GradientTransformation(lambda params: jax.tree.map(jnp.zeros_like, params), lambda g, *_: (g, g))
# One transformation for all supervised steps, so that they are compiled once.
KEEP_AND_LEARN = optax.chain(KEEP, rl.optimizer(OptimizerConfig(0.02, warmup=2), 25))
SHALLOW, SHALLOW_TIED = replace(GROUPED, layers=1), replace(TIED, layers=1)
CLIP = 0.2
OBJECTIVE = rl.Objective(CLIP, CLIP)
ADVANTAGE = np.array([1.3, -0.7, -1.1, 0.6], np.float32)


def batch_of(config, behaviour_shift, seed=0):
    """(pairs, PolicyBatch); the behaviour's log-probs are the policy's own, moved by up to behaviour_shift."""
    rng = np.random.default_rng(seed)
    draw = partial(rng.integers, config.vocab_size)
    pairs = [(tuple(draw(size=p)), tuple(draw(size=a))) for p, a in ((2, 5), (3, 4), (1, 2), (2, 6))]
    rows = log_probs.answer_rows(pairs, 8)
    behaviour = np.zeros(rows.tokens_BT.shape, np.float32)
    exact = np.concatenate(numpy_answer_logps(in_float64(random_params(config)), config, pairs))
    behaviour[rows.answer_BT] = exact + rng.uniform(-1, 1, exact.shape) * behaviour_shift
    advantage = np.where(rows.answer_BT, ADVANTAGE[:, None], np.float32(0))
    weight = rl.token_weights(rows.answer_BT, np.ones(len(pairs), bool), "answer", 8)
    return pairs, rl.PolicyBatch(rows, behaviour, advantage, weight)


def numpy_answer_logps(exact, config, pairs):
    """Per-token log-probs of each answer in float64."""
    out = []
    for prompt, answer in pairs:
        logp = numpy_log_softmax(exact, config, [*prompt, *answer])
        out.append(logp[np.arange(len(prompt) - 1, len(prompt) + len(answer) - 1), list(answer)])
    return out


def slow_surrogate(logps, behaviours, advantages, clip):
    """Equation 3 of the GRPO paper one token at a time, and which side clipped each token: -1, 0 or 1."""
    total, sides = 0.0, []
    for logp, behaviour, a in zip(logps, behaviours, advantages, strict=True):
        gains = []
        for new, old in zip(logp, behaviour, strict=True):
            ratio = np.exp(float(new) - float(old))
            bounded = min(max(ratio, 1 - clip), 1 + clip)
            gains.append(min(ratio * a, bounded * a))
            sides.append(np.sign(ratio - bounded) if bounded * a < ratio * a else 0)
        total += sum(gains) / len(gains) if gains else 0.0
    return -total / len(logps), np.array(sides)


def policy_gradient(params, batch):
    state, metrics = rl.train_step(rl.init_state(params, KEEP), SHALLOW, KEEP, OBJECTIVE, [batch])
    return state.opt_state, metrics


def test_grpo_gradient_equals_the_plain_policy_gradient_when_the_ratio_is_one():
    params = random_params(SHALLOW)
    pairs, batch = batch_of(SHALLOW, behaviour_shift=0.0)

    weight_BTV = np.zeros((len(pairs), 8, SHALLOW.vocab_size), np.float32)
    for row, (prompt, answer) in enumerate(pairs):
        for place, token in enumerate(answer, start=len(prompt)):
            weight_BTV[row, place - 1, token] = ADVANTAGE[row] / len(answer)

    def plain(params):
        logp = jax.nn.log_softmax(
            decoder.logits(params, decoder.forward_causal(params, SHALLOW, batch.rows.tokens_BT)[0])
        )
        return -jnp.sum(weight_BTV * logp) / len(pairs)

    expected = jax.jit(jax.grad(plain))(params)
    found, metrics = policy_gradient(params, batch)
    assert metrics["clipped"] == 0 and metrics["max_delta_logp"] < 1e-5
    assert metrics["grad_norm"] > 0.1
    for mine, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


def assert_gradient_equals_finite_differences(gradient, params, loss):
    """Central differences of a float64 NumPy loss along a random direction in every leaf."""
    rng, step = np.random.default_rng(0), 1e-6
    leaves, tree = jax.tree.flatten(in_float64(params))
    for i, leaf in enumerate(jax.tree.leaves(in_float64(gradient))):
        direction = rng.normal(size=leaf.shape)
        direction += leaf / np.sqrt((leaf**2).mean())
        ahead, behind = (
            loss(jax.tree.unflatten(tree, [x + move * direction if j == i else x for j, x in enumerate(leaves)]))
            for move in (step, -step)
        )
        assert np.sum(leaf * direction) == pytest.approx((ahead - behind) / (2 * step), rel=1e-4), i


def test_policy_gradient_and_metrics_equal_float64_with_clipping_active_on_both_sides():
    config, params = SHALLOW, random_params(SHALLOW)
    pairs, batch = batch_of(config, behaviour_shift=0.8)
    behaviours = [batch.behaviour_BT[i][batch.rows.answer_BT[i]].astype(np.float64) for i in range(len(pairs))]

    def loss(exact):
        return slow_surrogate(numpy_answer_logps(exact, config, pairs), behaviours, ADVANTAGE, CLIP)[0]

    gradient, metrics = policy_gradient(params, batch)
    logps = numpy_answer_logps(in_float64(params), config, pairs)
    sides = slow_surrogate(logps, behaviours, ADVANTAGE, CLIP)[1]
    assert {-1, 0, 1} == set(sides)
    assert_gradient_equals_finite_differences(gradient, params, loss)
    ratio = np.exp(np.concatenate(logps) - np.concatenate(behaviours))
    entropies = []
    for prompt, answer in pairs:
        logp = numpy_log_softmax(in_float64(params), config, [*prompt, *answer])[len(prompt) - 1 : -1]
        entropies += (-(np.exp(logp) * logp).sum(axis=1)).tolist()
    expected = {
        "loss": loss(in_float64(params)),
        "grad_norm": np.sqrt(sum((np.asarray(g, np.float64) ** 2).sum() for g in jax.tree.leaves(gradient))),
        "entropy": np.mean(entropies),
        "kl_sampler": np.mean(ratio - 1 - np.log(ratio)),
        "max_delta_logp": np.abs(np.log(ratio)).max(),
        "ratio": ratio.mean(),
        "clipped": np.mean(np.abs(ratio - 1) > CLIP),
    }
    assert {name: float(value) for name, value in metrics.items()} == pytest.approx(expected, rel=1e-4)


def test_supervised_gradient_equals_finite_differences():
    params = random_params(SHALLOW_TIED)
    pairs, batch = batch_of(SHALLOW_TIED, behaviour_shift=0.0)

    def loss(exact):
        return -np.concatenate(numpy_answer_logps(exact, SHALLOW_TIED, pairs)).mean()

    state = rl.init_state(params, KEEP_AND_LEARN)
    state, metrics = rl.train_step(state, SHALLOW_TIED, KEEP_AND_LEARN, None, [rl.supervised_batch(batch.rows)])
    assert metrics["loss"] == pytest.approx(loss(in_float64(params)), rel=1e-5)
    assert_gradient_equals_finite_differences(state.opt_state[0], params, loss)


def test_training_is_bitwise_repeatable_lowers_the_loss_and_leaves_the_callers_parameters_alone():
    params = jax.tree.map(jnp.asarray, random_params(SHALLOW_TIED))
    before = jax.tree.map(np.array, params)
    shown = rl.supervised_batch(batch_of(SHALLOW_TIED, behaviour_shift=0.0)[1].rows)

    def train():
        state, seen = rl.init_state(params, KEEP_AND_LEARN), []
        for _ in range(25):
            state, metrics = rl.train_step(state, SHALLOW_TIED, KEEP_AND_LEARN, None, [shown])
            seen.append(float(metrics["loss"]))
        return state, seen

    (first, losses_first), (second, losses_second) = train(), train()
    assert losses_first[-1] < 0.5 * losses_first[0] and losses_first == losses_second
    assert int(first.step) == 25
    jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(np.testing.assert_array_equal, params, before)


def learning_rates(config, updates):
    """Under a gradient that never changes, Adam's steps are the learning rate itself."""
    tx = rl.optimizer(config, updates)
    params = jnp.ones(1)
    state, rates = tx.init(params), []
    update = jax.jit(tx.update)
    for _ in range(updates):
        change, state = update(params, state, params)
        rates.append(-float(change[0]))
    return rates


@pytest.mark.parametrize(("warmup", "updates"), [(0, 12), (5, 30), (20, 10)])
def test_learning_rate_ramps_up_then_stays_or_falls_to_a_tenth_of_its_peak(warmup, updates):
    peak, step = 0.03, np.arange(updates)
    ramp = peak * np.minimum(1, step / max(warmup, 1)) if warmup else np.full(updates, peak)
    constant = learning_rates(OptimizerConfig(peak, warmup, "constant"), updates)
    np.testing.assert_allclose(constant, ramp, rtol=1e-4, atol=1e-8)
    share = np.clip((step - warmup) / max(updates - warmup, 1), 0, 1)
    falling = peak * (0.1 + 0.9 * (1 + np.cos(np.pi * share)) / 2)
    cosine = learning_rates(OptimizerConfig(peak, warmup, "cosine"), updates)
    np.testing.assert_allclose(cosine, np.where(step < warmup, ramp, falling), rtol=1e-4, atol=1e-8)
    with pytest.raises(UserError, match="optimizer.decay: 'cosin' is not one of constant, cosine"):
        rl.optimizer(OptimizerConfig(peak, warmup, "cosin"), updates)


def test_an_update_is_adamw_on_gradients_clipped_to_their_global_norm():
    config = OptimizerConfig(0.1, warmup=0, weight_decay=0.3, b2=0.9, clip_norm=2.0)
    tx, rng = rl.optimizer(config, 5), np.random.default_rng(4)
    params = {"a": rng.normal(size=3), "b": rng.normal(size=2)}
    state, flat = tx.init(jax.tree.map(jnp.float32, params)), np.concatenate([params["a"], params["b"]])
    update, m, v = jax.jit(tx.update), np.zeros(5), np.zeros(5)
    for t, scale in enumerate((10.0, 0.1, 3.0, 0.5), start=1):
        g = rng.normal(size=5) * scale
        change, state = update({"a": g[:3].astype(np.float32), "b": g[3:].astype(np.float32)}, state, params)
        g *= min(1, 2.0 / np.linalg.norm(g))
        m, v = 0.9 * m + 0.1 * g, 0.9 * v + 0.1 * g**2
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-8) + 0.3 * flat
        np.testing.assert_allclose(np.concatenate([change["a"], change["b"]]), -0.1 * step, rtol=1e-4)
