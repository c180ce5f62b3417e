"""A prompt computed once for all of its answers: the loss, gradients and metrics of one row an answer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlvr_limit import rl
from rlvr_limit.distributed.mesh import make_mesh, parameter_shardings, rows_sharding
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import init_params, parameter_specs
from rlvr_limit.rl import update as program
from rlvr_limit.settings import MeshConfig
from tests.support.numpy_decoder import GROUPED, random_params

GROUPS = {3: (5, 1, 4, 0, 6), 1: (3, 6), 6: (1, 1, 6, 5), 2: (4,)}
"""Tokens of a prompt: tokens of its answers."""
PLACES = (6, 6)
"""The most of both."""
OBJECTIVE = rl.Objective(0.2, 0.28, kl=0.1, value_clip=0.5, importance_cap=2.0)


def answers(vocab: int = GROUPED.vocab_size, groups: dict = GROUPS, places: tuple = PLACES, seed: int = 0):
    """A batch of one row an answer in an order of its own, every third answer left out of the loss."""
    rng = np.random.default_rng(seed)
    draw = partial(rng.integers, vocab)
    pairs = [(prompt, draw(size=n)) for length, each in groups.items() for prompt in [draw(size=length)] for n in each]
    rng.shuffle(pairs)
    rows = log_probs.answer_rows([(tuple(p.tolist()), tuple(a.tolist())) for p, a in pairs], sum(places))

    def number(scale: float, mean: float = 0.0) -> np.ndarray:
        return np.where(rows.answer_BT, rng.normal(mean, scale, rows.answer_BT.shape), 0).astype(np.float32)

    weight_BT = rl.token_weights(rows.answer_BT, np.arange(len(pairs)) % 3 != 1, "answer", places[1])
    level = -np.log(vocab)
    return rl.PolicyBatch(
        rows,
        number(0.3, level),
        number(1.0),
        weight_BT,
        number(0.3, level),
        number(0.2),
        number(1.0),
        number(0.3, level),
    )


def gradient(params, config, batches, compute=None, lora=None, base=None):
    compute = compute or rl.Compute()
    sums = rl.zero_sums(params, OBJECTIVE)
    for batch in batches:
        sums = program.accumulate(params, config, OBJECTIVE, compute, batch, sums, lora, base)
    return sums


def assert_equal(found, expected, tolerance=1e-5):
    """Each tensor of the gradient, and the metrics, relative to their size."""
    names = expected.metrics.keys()
    np.testing.assert_allclose([found.metrics[k] for k in names], [expected.metrics[k] for k in names], rtol=tolerance)
    assert abs(float(expected.metrics["loss"])) > 0.1
    whole = float(optax.tree.norm(expected.gradient))
    for x, y in zip(jax.tree.leaves(found.gradient), jax.tree.leaves(expected.gradient), strict=True):
        # What is no number but rounding: keys' biases move all scores of a query alike.
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        assert np.linalg.norm(x - y) <= tolerance * max(np.linalg.norm(y), 0.1 * whole)


LAYOUTS = {
    "behind prompts": lambda batch: [rl.prefix_batch(batch, *PLACES)],
    "packed": lambda batch: rl.microbatches(batch, 4, 30),
    "packed narrowly": lambda batch: rl.microbatches(batch, 2, 14),
    "parts of groups": lambda batch: [
        rl.prefix_batch(jax.tree.map(lambda x, part=part: x[part], batch), *PLACES)
        for part in np.split(np.arange(12), 2)
    ],
}


@pytest.fixture(scope="module")
def params():
    return jax.device_put(random_params(GROUPED))


@pytest.fixture(scope="module")
def expected(params):
    return gradient(params, GROUPED, [answers()])


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n != "packed")) for n in LAYOUTS])
def test_loss_gradient_and_metrics_are_those_of_one_row_an_answer(params, expected, name: str) -> None:
    batch = answers()
    parts = LAYOUTS[name](batch)
    assert (len(parts) > 1) == (name in ("packed narrowly", "parts of groups"))
    # Layers are made again and logits chosen in the first two, as jobs do; everything is kept in the others.
    compute = rl.Compute()
    if len(parts) == 1:
        compute = rl.Compute("layers", logit_positions=log_probs.packed_positions(GROUPED, parts[0].rows.answer_BT, 1))
    assert_equal(gradient(params, GROUPED, parts, compute), expected)


def test_a_prompt_stands_once_in_each_part() -> None:
    batch = answers()
    whole, first, second = (part for name in ("behind prompts", "parts of groups") for part in LAYOUTS[name](batch))
    assert len(whole.rows.length_P) == len(GROUPS)
    for part in (first, second):
        real = part.rows.length_P[np.unique(part.rows.prefix_index_B)]
        assert sorted(real.tolist()) == sorted(set(real.tolist()))
    taken = sum(int((part.rows.segment_BT > 0).sum()) for part in LAYOUTS["packed"](batch))
    # Heads of prompts once, their last tokens with each answer that is not empty.
    lengths = [(prompt, n) for prompt, each in GROUPS.items() for n in each if n]
    assert taken == sum(prompt - 1 for prompt in GROUPS) + sum(n + 1 for _, n in lengths)


def test_an_answer_token_sees_its_prompt_and_its_own_answer_alone(params) -> None:
    logp = jax.jit(lambda rows: log_probs.answer_log_probs(params, GROUPED, rows)[0])
    (part,) = LAYOUTS["packed"](answers())
    rows, before = part.rows, np.asarray(logp(part.rows))
    reached = 0
    for row, place in zip(*np.nonzero(rows.segment_BT), strict=True):
        tokens = rows.tokens_BT.copy()
        tokens[row, place] = (tokens[row, place] + 1) % GROUPED.vocab_size
        changed = np.asarray(logp(rows._replace(tokens_BT=tokens))) != before
        segment = rows.segment_BT[row, place]
        may = np.zeros_like(rows.answer_BT)
        may[row] = (rows.prefix_segment_BT[row] == segment) | (rows.segment_BT[row] == segment)
        assert not (changed & ~may).any()
        reached += (changed & (rows.segment_BT != segment)).sum()
    assert reached > 50
    shared = LAYOUTS["behind prompts"](answers()).pop().rows
    before = np.asarray(logp(shared))
    tokens = shared.prefix_PS.copy()
    assert shared.length_P[shared.prefix_index_B[5]] > 0
    asked = shared.prefix_index_B[5]
    tokens[asked, 0] += 1
    changed = np.asarray(logp(shared._replace(prefix_PS=tokens))) != before
    assert np.array_equal(changed.any(axis=1), (shared.prefix_index_B == asked) & shared.answer_BT.any(axis=1))


def test_values_and_their_gradient_are_those_of_one_row_an_answer(params) -> None:
    rng = np.random.default_rng(0)
    head = {"weight_D": rng.normal(size=GROUPED.width).astype(np.float32), "bias": np.float32(0.3)}
    batch = answers()
    loss, expected = rl.value_gradient(head, params, GROUPED, OBJECTIVE, batch)
    for name in ("packed", "behind prompts"):
        (part,) = LAYOUTS[name](batch)
        found_loss, found = rl.value_gradient(head, params, GROUPED, OBJECTIVE, part)
        np.testing.assert_allclose(found_loss, loss, rtol=1e-5)
        np.testing.assert_allclose(found["weight_D"], expected["weight_D"], rtol=0, atol=1e-5)
        np.testing.assert_allclose(found["bias"], expected["bias"], rtol=1e-5)


@pytest.mark.slow
def test_adapters_have_the_gradient_of_one_row_an_answer(params) -> None:
    lora = rl.Lora(2, 4.0)
    drawn = rl.init_adapters(GROUPED, lora, jax.random.key(0))
    adapters = jax.tree.map(lambda x: x + 0.1, drawn)
    sides = ([answers()], LAYOUTS["behind prompts"](answers()))
    expected, found = (gradient(adapters, GROUPED, side, rl.Compute(), lora, params) for side in sides)
    assert_equal(found, expected)


@pytest.mark.slow
def test_a_mesh_has_the_gradient_of_one_device() -> None:
    wide = replace(GROUPED, width=16, heads=8, kv_heads=2, head_width=4, ffn_width=16, vocab_size=24)
    params, batch = init_params(wide, jax.random.key(0)), answers(wide.vocab_size)
    mesh = make_mesh(MeshConfig(2, 2, 2))
    spread = jax.device_put(params, parameter_shardings(parameter_specs(wide), mesh))
    part = rl.prefix_batch(batch, *PLACES, shards=4)
    assert len(part.rows.length_P) <= 8
    found = gradient(spread, wide, [jax.device_put(part, rows_sharding(mesh))])
    assert_equal(found, gradient(params, wide, [batch]))


@pytest.mark.slow
def test_eight_answers_to_a_prompt_take_fewer_operations_and_one_takes_no_more() -> None:
    """By the compiler's count: prompts of 24 and answers of 8 tokens; the products of layers dominate."""
    wide = replace(GROUPED, width=64, ffn_width=128)
    params = jax.eval_shape(lambda: init_params(wide, jax.random.key(0)))

    def flops(batch) -> float:
        def loss(params):
            return jnp.sum(log_probs.answer_log_probs(params, wide, batch.rows)[0])

        return jax.jit(jax.grad(loss)).lower(params).compile().cost_analysis()["flops"]

    groups, lone = {24: (8,) * 8}, {24 - i: (8,) for i in range(8)}
    plain = flops(answers(wide.vocab_size, groups, (24, 8)))
    shared, alone = (flops(rl.prefix_batch(answers(wide.vocab_size, g, (24, 8)), 24, 8)) for g in (groups, lone))
    print(f"operations: {plain:.3g} without, {shared:.3g} shared, {alone:.3g} with nothing to share")
    assert shared < 0.45 * plain and alone < 1.02 * plain
