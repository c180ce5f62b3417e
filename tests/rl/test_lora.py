"""Low-rank adapters: nothing at first, the same as their merged weights later, and alone in being trained."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

from rlvr_limit import rl
from rlvr_limit.models.log_probs import answer_rows
from rlvr_limit.rl.lora import adapter_specs, attached
from rlvr_limit.types import UserError
from tests.support.numpy_decoder import GROUPED, random_params
from tests.support.policy_batches import batch_of, scored

LORA = rl.Lora(rank=3, alpha=6.0)
OBJECTIVE = rl.Objective(0.2, 0.2)


def test_adapters_begin_by_changing_nothing_and_say_what_their_merged_weights_say() -> None:
    params, adapters = random_params(GROUPED), rl.init_adapters(GROUPED, LORA, jax.random.key(0))
    rows = answer_rows([((3, 5, 2), (4, 9, 1)), ((7,), (8, 2, 2, 6))], 6)
    plain = np.asarray(scored(params, GROUPED, rows)[0])
    fresh = np.asarray(scored(attached(params, adapters, LORA), GROUPED, rows)[0])
    np.testing.assert_array_equal(fresh, plain)
    rng = np.random.default_rng(1)
    adapters = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) * 0.2, adapters)
    adapted = np.asarray(scored(attached(params, adapters, LORA), GROUPED, rows)[0])
    merged = np.asarray(scored(rl.merged(params, adapters, LORA), GROUPED, rows)[0])
    assert np.abs(adapted - plain).max() > 0.1
    np.testing.assert_allclose(merged, adapted, rtol=0, atol=1e-5)


def test_a_step_moves_adapters_against_the_gradient_of_the_merged_weights() -> None:
    params, (_, batch) = random_params(GROUPED), batch_of([(3, 5), (2, 6), (4, 4)], 8)
    adapters, tx = rl.init_adapters(GROUPED, LORA, jax.random.key(0)), optax.sgd(1.0)
    state = rl.init_state(adapters, tx)
    state, _ = rl.train_step(state, GROUPED, tx, OBJECTIVE, [batch], lora=LORA, base=params)
    full, _ = rl.train_step(rl.init_state(params, tx), GROUPED, tx, OBJECTIVE, [batch])
    for number, layer in enumerate(adapters["layers"]):
        for name, pair in layer.items():
            # d loss / d b = scale a^T (d loss / d W); d loss / d a = 0 while b is 0.
            rank = pair["a"].shape[-1]
            step = (np.asarray(full.params["layers"][number][name]) - params["layers"][number][name]).astype(np.float64)
            a = np.asarray(pair["a"], np.float64).reshape(-1, rank)
            expected = 2.0 * a.T @ step.reshape(a.shape[0], -1)
            now = state.params["layers"][number][name]
            found = np.asarray(now["b"]).reshape(rank, -1)
            assert np.abs(expected).max() > 0
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max(), err_msg=name)
            np.testing.assert_array_equal(now["a"], pair["a"])


def test_adapters_are_few_and_unknown_matrices_are_refused() -> None:
    few = adapter_specs(GROUPED, rl.Lora(2, 4.0, ("q", "v")))["layers"][0]
    assert {name: {k: spec.shape for k, spec in pair.items()} for name, pair in few.items()} == {
        "q": {"a": (12, 2), "b": (2, 4, 6)},
        "v": {"a": (12, 2), "b": (2, 2, 6)},
    }
    with pytest.raises(UserError, match="lora.on: [(]'w',[)] is not all of q, k"):
        rl.Lora(2, 4.0, ("w",))
