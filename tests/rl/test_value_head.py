"""PPO's value head on one device and on many: the same numbers, one program, and an error that falls."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest

from rlvr_limit import rl
from rlvr_limit.distributed.mesh import make_mesh, parameter_shardings, rows_sharding
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import parameter_specs
from rlvr_limit.rl import value as program
from rlvr_limit.settings import MeshConfig, OptimizerConfig
from tests.support.numpy_decoder import GROUPED, random_params

CONFIG = replace(GROUPED, layers=1)
LENGTHS = (3, 5, 2, 6, 4, 1, 5, 3)


def trained_on(mesh_config: MeshConfig, packed: bool = False) -> tuple[list[float], np.ndarray]:
    """(losses of three updates, the values after them) of answers with random returns."""
    rng = np.random.default_rng(0)
    draw = rng.integers
    pairs = [(tuple(draw(CONFIG.vocab_size, size=2)), tuple(draw(CONFIG.vocab_size, size=n))) for n in LENGTHS]
    rows = log_probs.answer_rows(pairs, 8)
    nothing, answer = np.zeros(rows.tokens_BT.shape, np.float32), rows.answer_BT
    returns = np.where(answer, rng.normal(1, 1, answer.shape), 0.0).astype(np.float32)
    weight = rl.token_weights(answer, np.ones(len(pairs), bool), "token", 8)
    batch = rl.PolicyBatch(rows, nothing, nothing, weight, value_BT=nothing, return_BT=returns)
    mesh = make_mesh(mesh_config)
    params = jax.device_put(random_params(CONFIG), parameter_shardings(parameter_specs(CONFIG), mesh))
    parts = rl.microbatches(batch, 2, 12) if packed else [batch]
    assert len(parts) > 1 or not packed
    parts = [jax.device_put(part, rows_sharding(mesh)) for part in parts]
    tx, objective = rl.optimizer(OptimizerConfig(0.01, warmup=0), 3), rl.Objective(0.2, 0.2, value_clip=0.5)
    value, seen, before = rl.init_value(CONFIG, params, tx), [], program._apply._cache_size()
    for _ in range(3):
        value, loss = rl.value_update(value, params, CONFIG, tx, objective, parts)
        seen.append(float(loss))
    assert program._apply._cache_size() == before + 1
    # The mean over tokens of half the squared return, since an untrained head predicts 0.
    assert seen[0] == pytest.approx(0.5 * np.mean(returns[answer] ** 2), rel=1e-5) and seen[2] < seen[1] < seen[0]
    return seen, np.asarray(rl.answer_values(params, value.head, CONFIG, rows))


@pytest.mark.slow
def test_value_head_learns_the_same_on_any_mesh_and_compiles_once():
    seen, values = trained_on(MeshConfig())
    for mesh in (MeshConfig(2, 2, 2), MeshConfig(1, 8, 1)):
        others, other_values = trained_on(mesh)
        np.testing.assert_allclose(others, seen, rtol=1e-5)
        np.testing.assert_allclose(other_values, values, atol=1e-5)


def test_value_head_learns_the_same_from_packed_microbatches():
    (seen, values), (packed, packed_values) = trained_on(MeshConfig()), trained_on(MeshConfig(), packed=True)
    np.testing.assert_allclose(packed, seen, rtol=1e-5)
    np.testing.assert_allclose(packed_values, values, atol=1e-5)
