"""PPO's probe and critic on one device and on many: the same numbers, one program, an error that falls; and the
critic's gradient against the decoder written out in NumPy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import numpy as np
import pytest

from rlvr_limit import rl
from rlvr_limit.distributed.mesh import make_mesh, parameter_shardings, rows_sharding
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import parameter_specs
from rlvr_limit.rl import update
from rlvr_limit.rl import value as program
from rlvr_limit.settings import MeshConfig, OptimizerConfig
from tests.support.numpy_decoder import GROUPED, TIED, in_float64, numpy_hidden, random_params

CONFIG = replace(GROUPED, layers=1)
LENGTHS = (3, 5, 2, 6, 4, 1, 5, 3)
OBJECTIVE = rl.Objective(0.2, 0.2, value_clip=0.5)


def batch_of(config: Any, lengths: tuple[int, ...]) -> tuple[rl.PolicyBatch, np.ndarray]:
    """Answers of these lengths with random returns, weighed as PPO weighs tokens; and which tokens are answers'."""
    rng = np.random.default_rng(0)
    draw = rng.integers
    pairs = [(tuple(draw(config.vocab_size, size=2)), tuple(draw(config.vocab_size, size=n))) for n in lengths]
    rows = log_probs.answer_rows(pairs, 8)
    nothing, answer = np.zeros(rows.tokens_BT.shape, np.float32), rows.answer_BT
    returns = np.where(answer, rng.normal(1, 1, answer.shape), 0.0).astype(np.float32)
    weight = rl.token_weights(answer, np.ones(len(pairs), bool), "token", 8)
    return rl.PolicyBatch(rows, nothing, nothing, weight, value_BT=nothing, return_BT=returns), answer


def trained_on(mesh_config: MeshConfig, critic: str, packed: bool = False) -> tuple[list[float], np.ndarray]:
    """(losses of three updates, the values after them)."""
    batch, answer = batch_of(CONFIG, LENGTHS)
    mesh = make_mesh(mesh_config)
    params = jax.device_put(random_params(CONFIG), parameter_shardings(parameter_specs(CONFIG), mesh))
    parts = rl.microbatches(batch, 2, 12) if packed else [batch]
    assert len(parts) > 1 or not packed
    parts = [jax.device_put(part, rows_sharding(mesh)) for part in parts]
    tx, seen = rl.optimizer(OptimizerConfig(0.01, warmup=0), 3), []
    step = program._apply if critic == "probe" else update.apply if packed else update.single_batch_step
    before = step._cache_size()
    if critic == "probe":
        value = rl.init_value(CONFIG, params, tx)
    else:
        value = rl.init_state(rl.critic_params(CONFIG, params), tx)
    for _ in range(3):
        if critic == "probe":
            value, loss = rl.value_update(value, params, CONFIG, tx, OBJECTIVE, parts)
        else:
            value, metrics = rl.train_step(value, CONFIG, tx, OBJECTIVE, parts)
            loss = metrics["loss"]
        seen.append(float(loss))
    assert step._cache_size() == before + 1
    # The mean over tokens of half the squared return, since an untrained head predicts 0.
    assert seen[0] == pytest.approx(0.5 * np.mean(batch.return_BT[answer] ** 2), rel=1e-5)
    assert seen[2] < seen[1] < seen[0]
    whose = (params, value.head) if critic == "probe" else (value.params, value.params[rl.HEAD])
    return seen, np.asarray(rl.answer_values(*whose, CONFIG, batch.rows))


@pytest.mark.slow
@pytest.mark.parametrize("critic", ["probe", "full"])
def test_values_are_learnt_the_same_on_any_mesh_and_compile_once(critic: str) -> None:
    seen, values = trained_on(MeshConfig(), critic)
    for mesh in (MeshConfig(2, 2, 2), MeshConfig(1, 8, 1)):
        others, other_values = trained_on(mesh, critic)
        np.testing.assert_allclose(others, seen, rtol=1e-5)
        np.testing.assert_allclose(other_values, values, atol=1e-4)


@pytest.mark.parametrize("critic", ["probe", pytest.param("full", marks=pytest.mark.slow)])
def test_values_are_learnt_the_same_from_packed_microbatches(critic: str) -> None:
    (seen, values), (packed, packed_values) = trained_on(MeshConfig(), critic), trained_on(MeshConfig(), critic, True)
    np.testing.assert_allclose(packed, seen, rtol=1e-5)
    np.testing.assert_allclose(packed_values, values, atol=1e-4)


def critic_loss(params: Any, config: Any, batch: rl.PolicyBatch) -> float:
    """The loss of veRL's critic, a token at a time: half the mean over answer tokens of the larger squared error, of
    the value or of one that moved at most value_clip from the value at the time of the rollout."""
    errors, e = [], OBJECTIVE.value_clip
    for tokens, answer, old, wanted in zip(
        batch.rows.tokens_BT, batch.rows.answer_BT, batch.value_BT, batch.return_BT, strict=True
    ):
        hidden = numpy_hidden(params, config, tokens[: np.flatnonzero(answer)[-1]])
        for t in np.flatnonzero(answer):
            value = hidden[t - 1] @ params[rl.HEAD]["weight_D"] + params[rl.HEAD]["bias"]
            near = min(max(value, old[t] - e), old[t] + e)
            errors.append(max((value - wanted[t]) ** 2, (near - wanted[t]) ** 2))
    return 0.5 * float(np.mean(errors))


@pytest.mark.parametrize("config", [CONFIG, replace(TIED, layers=1)], ids=["untied", "tied"])
def test_gradient_of_the_critics_loss_is_that_of_the_decoder_written_out(config: Any) -> None:
    batch, answer = batch_of(config, (3, 4))
    rng = np.random.default_rng(1)
    batch = batch.replace(value_BT=np.where(answer, rng.normal(size=answer.shape), 0.0).astype(np.float32))
    head = {"weight_D": (0.3 * rng.normal(size=config.width)).astype(np.float32), "bias": np.float32(0.3)}
    params = rl.critic_params(config, random_params(config)) | {rl.HEAD: head}
    assert "unembedding" not in params
    params = jax.tree.map(jax.numpy.asarray, params)
    sums = rl.zero_sums(params, OBJECTIVE)
    sums = rl.accumulate(params, config, OBJECTIVE, rl.Compute(), batch, sums)
    exact = in_float64(params)
    assert float(sums.metrics["loss"]) == pytest.approx(critic_loss(exact, config, batch), rel=1e-5)
    leaves, tree = jax.tree.flatten(exact)
    for i, gradient in enumerate(jax.tree.leaves(sums.gradient)):
        along = rng.normal(size=leaves[i].shape)
        step, ends = 1e-5, []
        for sign in (1, -1):
            moved = [x + sign * step * along if j == i else x for j, x in enumerate(leaves)]
            ends.append(critic_loss(jax.tree.unflatten(tree, moved), config, batch))
        found = float(np.sum(np.asarray(gradient, np.float64) * along))
        assert found == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-5), i
    # The clip counts for some tokens and not for others.
    values = np.asarray(rl.answer_values(params, params[rl.HEAD], config, batch.rows))[answer]
    far = np.abs(values - batch.value_BT[answer]) > OBJECTIVE.value_clip
    assert far.any() and not far.all()
