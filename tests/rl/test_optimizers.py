"""Optimizers that take less memory: as near to Adam as they say, and as small."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_limit import rl
from rlvr_limit.distributed.mesh import make_mesh, parameter_shardings, rows_sharding
from rlvr_limit.models.decoder import ModelConfig, init_params, parameter_specs
from rlvr_limit.models.log_probs import answer_rows
from rlvr_limit.rl import optimizers
from rlvr_limit.settings import MeshConfig, OptimizerConfig
from rlvr_limit.types import UserError

SHAPE = (160, 128)


def walked(kind: str, steps: int = 60) -> tuple[np.ndarray, list]:
    """Where noisy gradients towards a target lead from 0, and the optimizer's state."""
    tx = rl.optimizer(OptimizerConfig(0.01, warmup=0, b2=0.95, clip_norm=1e9, kind=kind), steps)
    rng = np.random.default_rng(0)
    target = rng.normal(size=SHAPE).astype(np.float32)
    params = {"w": jnp.zeros(SHAPE), "b": jnp.zeros(3)}
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(steps):
        noise = rng.normal(size=SHAPE).astype(np.float32)
        gradient = {"w": params["w"] - target + 0.1 * noise, "b": jnp.ones(3)}
        changes, state = update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, changes)
    return np.asarray(params["w"]), state


def test_moments_in_bfloat16_walk_within_a_percent_of_adam_in_half_the_memory() -> None:
    (full, state), (half, small) = walked("adamw"), walked("adamw_bf16")
    assert np.linalg.norm(half - full) < 0.01 * np.linalg.norm(full)
    assert not np.array_equal(half, full)
    size, smaller = (sum(x.nbytes for x in jax.tree.leaves(s) if x.ndim) for s in (state, small))
    assert smaller == size / 2


def test_adafactor_goes_the_same_way_with_next_to_no_memory() -> None:
    (full, state), (found, small) = walked("adamw"), walked("adafactor")
    size, smaller = (sum(x.nbytes for x in jax.tree.leaves(s)) for s in (state, small))
    assert smaller < 0.02 * size
    assert np.sum(found * full) > 0.9 * np.linalg.norm(found) * np.linalg.norm(full)
    # Its first step is the sign of the gradient by and large, and its root mean square at most the learning rate.
    first = walked("adafactor", 1)[0]
    assert 0.005 < np.sqrt(np.mean(first**2)) <= 0.0101


@pytest.mark.parametrize("size", [1e-3, 0.0, 1.0, 40.0])
def test_gradients_are_clipped_to_the_norm_that_they_may_have_together(size: float) -> None:
    rng = np.random.default_rng(0)
    gradient = {"w": rng.normal(size=SHAPE), "b": rng.normal(size=3)}
    norm = np.sqrt(sum(np.sum(x**2) for x in gradient.values()))
    gradient = {name: size * x / norm for name, x in gradient.items()}
    tx = optimizers._clipped(2.0)
    found, _ = tx.update({name: jnp.asarray(x, jnp.float32) for name, x in gradient.items()}, tx.init(gradient))
    for name, x in gradient.items():
        np.testing.assert_allclose(found[name], x * min(1, 2 / size) if size else x, rtol=1e-6)


def test_an_adam_step_makes_no_clipped_copy_of_the_gradient() -> None:
    tx = rl.optimizer(OptimizerConfig(0.01), 5)
    like = [jax.ShapeDtypeStruct((512, 512), jnp.float32)]
    state = jax.eval_shape(tx.init, like)

    def step(params: list, state: tuple, gradient: list) -> tuple:
        changes, state = tx.update(gradient, state, params)
        return jax.tree.map(jnp.add, params, changes), state

    memory = jax.jit(step, donate_argnums=(0, 1)).lower(like, state, like).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 512 * 512 * 4 / 2


def test_unknown_kinds_and_a_b2_too_slow_for_bfloat16_are_refused() -> None:
    with pytest.raises(UserError, match="optimizer.kind: 'lion' is not one of adamw"):
        rl.optimizer(OptimizerConfig(0.1, kind="lion"), 5)
    with pytest.raises(UserError, match="optimizer.b2: 0.999 is not at most 0.99, as bfloat16 moments need"):
        rl.optimizer(OptimizerConfig(0.1, b2=0.999, kind="adamw_bf16"), 5)


@pytest.mark.parametrize("kind", [pytest.param("adamw_bf16", marks=pytest.mark.slow), "adafactor"])
def test_states_lie_on_a_mesh_and_updates_compile_once(kind: str) -> None:
    config = ModelConfig(vocab_size=128, width=128, layers=1, heads=2, kv_heads=2, head_width=4, ffn_width=128)
    mesh = make_mesh(MeshConfig(2, 2, 2))
    params = init_params(config, jax.random.key(0))
    params = jax.device_put(params, parameter_shardings(parameter_specs(config), mesh))
    tx = rl.optimizer(OptimizerConfig(1e-2, kind=kind), 5)
    state = rl.init_state(params, tx)
    before = rl.single_batch_step._cache_size()
    batch = jax.device_put(rl.supervised_batch(answer_rows([((2, 3), (5, 7, 9))] * 8, 6)), rows_sharding(mesh))
    seen = []
    for _ in range(4):
        state, metrics = rl.train_step(state, config, tx, None, [batch])
        seen.append(float(metrics["loss"]))
    assert rl.single_batch_step._cache_size() == before + 1 and seen[-1] < seen[0]
