"""How a step is cut, into microbatches or over devices, changes nothing but rounding."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rlvr_limit import rl
from rlvr_limit.models.decoder import init_params
from rlvr_limit.models.log_probs import packed_positions
from rlvr_limit.rl import update as program
from rlvr_limit.settings import OptimizerConfig
from tests.support.policy_batches import (
    OBJECTIVE,
    STEPS,
    TOLERANCE,
    WIDE,
    gradient,
    placed,
    relative_errors,
    trained,
    whole_step,
)

MESHES = [(2, 2, 2), *(pytest.param(shape, marks=pytest.mark.slow) for shape in ((1, 8, 1), (1, 1, 8)))]


@pytest.fixture(scope="module")
def parts() -> list[rl.PolicyBatch]:
    """8 rows each, so that every mesh cuts them evenly."""
    found = rl.microbatches(whole_step(), 8, 8)
    assert len(found) == 2
    return found


@pytest.fixture(scope="module")
def on_one(parts: list[rl.PolicyBatch]) -> dict:
    return gradient(placed((1, 1, 1)), parts)


@pytest.fixture(scope="module")
def trained_on_one(parts: list[rl.PolicyBatch]) -> list[np.ndarray]:
    return trained(placed((1, 1, 1)), parts)


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_sharded_gradient_and_three_steps_are_those_of_one_device(
    parts: list[rl.PolicyBatch], on_one: dict, trained_on_one: list[np.ndarray], shape: tuple[int, int, int]
) -> None:
    params = placed(shape)
    off = max(relative_errors(gradient(params, parts), on_one))
    changes = trained(params, parts)
    started = jax.tree.leaves(placed((1, 1, 1)))
    moved, size = (np.sqrt(sum(np.sum(np.square(np.float64(x))) for x in tree)) for tree in (trained_on_one, started))
    off_after = max(relative_errors(changes, trained_on_one))
    print(f"{shape}: gradient {off:.1e}, change after {STEPS} steps {off_after:.1e}, moved {moved / size:.1e}")
    assert off <= TOLERANCE and moved >= 1e-2 * size and off_after <= 1e-3


def test_the_comparison_above_notices_when_one_shards_gradient_is_dropped(
    parts: list[rl.PolicyBatch], on_one: dict
) -> None:
    # One of eight devices that share the rows: its row of every microbatch counts for nothing.
    silent = np.arange(8)[:, None] != 5
    dropped = [part.replace(weight_BT=part.weight_BT * silent) for part in parts]
    off = relative_errors(gradient(placed((1, 8, 1)), dropped), on_one)
    assert min(off) > 5 * TOLERANCE


def test_an_accumulated_packed_step_is_the_unsplit_one_metrics_included() -> None:
    params, batch, tx = init_params(WIDE, jax.random.key(0)), whole_step(), optax.sgd(0.1)
    whole, expected = rl.train_step(rl.init_state(params, tx), WIDE, tx, OBJECTIVE, [batch])
    programs = program.accumulate._cache_size(), program.apply._cache_size()
    split, found = rl.init_state(params, tx), {}
    parts = rl.microbatches(batch, 2, 16)
    assert len(parts) == 3
    # Logits of the microbatches at the places of answer tokens alone, of the whole everywhere.
    compute = rl.Compute(logit_positions=max(packed_positions(WIDE, part.rows.answer_BT, 1) for part in parts))
    assert compute.logit_positions < 2 * 16
    split, found = rl.train_step(split, WIDE, tx, OBJECTIVE, parts, compute)
    assert {name: float(x) for name, x in found.items()} == pytest.approx(
        {name: float(x) for name, x in expected.items()}, rel=1e-4, abs=1e-6
    )
    assert float(expected["clipped"]) > 0
    changes = (jax.tree.map(lambda x, old: np.asarray(x) - old, s.params, params) for s in (split, whole))
    assert max(relative_errors(*changes)) < 1e-4
    rl.train_step(split, WIDE, tx, OBJECTIVE, parts, compute)
    assert (program.accumulate._cache_size(), program.apply._cache_size()) == (programs[0] + 1, programs[1] + 1)


def test_an_accumulated_supervised_step_is_the_unsplit_one() -> None:
    params, batch, tx = init_params(WIDE, jax.random.key(0)), whole_step(), optax.sgd(0.1)
    batch = rl.supervised_batch(batch.rows)
    whole, expected = rl.train_step(rl.init_state(params, tx), WIDE, tx, None, [batch])
    split, found = rl.train_step(rl.init_state(params, tx), WIDE, tx, None, rl.microbatches(batch, 2, 16))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([float(found[k]) for k in found], [float(expected[k]) for k in found], rtol=1e-5)
    changes = (jax.tree.map(lambda x, old: np.asarray(x) - old, s.params, params) for s in (split, whole))
    assert max(relative_errors(*changes)) < 1e-4


@pytest.mark.slow
def test_float32_weights_of_a_bfloat16_model_keep_changes_that_bfloat16_would_lose() -> None:
    config, tx = replace(WIDE, dtype="bfloat16"), rl.optimizer(OptimizerConfig(1e-6, warmup=0), 9)
    params = init_params(config, jax.random.key(0))
    state = rl.init_state(params, tx, "float32")
    for _ in range(2):
        state, metrics = rl.train_step(state, config, tx, OBJECTIVE, [whole_step()])
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {jnp.dtype("float32")}
    leaves = zip(jax.tree.leaves(state.params), jax.tree.leaves(params), strict=True)
    moved = [float(jnp.max(jnp.abs(new - old.astype(jnp.float32)))) for new, old in leaves]
    assert np.isfinite(float(metrics["loss"])) and 1e-6 < max(moved) < 1e-5
    drawn_with = rl.weights(state, config)
    assert {x.dtype for x in jax.tree.leaves(drawn_with)} == {jnp.dtype("bfloat16")}
    # Two steps of 1e-6 are less than half of the last bit of a bfloat16 weight of 1e-3.
    for rounded, old in zip(*map(jax.tree.leaves, (drawn_with, params)), strict=True):
        large = np.abs(np.asarray(old, np.float32)) > 1e-3
        np.testing.assert_array_equal(np.asarray(rounded)[large], np.asarray(old)[large])
    plain = rl.init_state(params, tx)
    assert rl.weights(plain, config) is plain.params


def test_logits_are_chosen_where_the_vocabulary_is_wide_enough_to_pay_for_it() -> None:
    batch = whole_step()
    assert rl.Compute().at_answers(WIDE, [batch], 1).logit_positions is None
    wide = replace(WIDE, vocab_size=4096)
    chosen = rl.Compute(max_live_logits=2**16).at_answers(wide, [batch, batch], 1).logit_positions
    answers = int(batch.rows.answer_BT.sum())
    assert answers <= chosen <= answers + 16 < batch.rows.answer_BT.size
