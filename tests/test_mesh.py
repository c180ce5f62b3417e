"""Sharded over eight virtual devices, a model scores, learns and samples as it does on one."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from rlvr_limit import likelihood, rl
from rlvr_limit.engine import Engine, EngineConfig, Request, prompt_key
from rlvr_limit.mesh import MeshConfig, make_mesh, mesh_of, parameter_shardings, rows_sharding
from rlvr_limit.model import ModelConfig, init_params, parameter_specs
from rlvr_limit.types import SamplingParams, UserError

MODEL = ModelConfig(vocab_size=24, width=16, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=32)
PAIRS = [((2, 3, 4), (5, 6, 7, 1)), ((8, 9), (10, 11, 1)), ((2,), (3, 4, 5, 6, 1)), ((7, 7, 7, 7), (8,))] * 2


@pytest.fixture(scope="module")
def params() -> object:
    return init_params(MODEL, jax.random.key(0))


@pytest.fixture(scope="module")
def sharded(params: object) -> object:
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    return jax.device_put(params, parameter_shardings(parameter_specs(MODEL), mesh))


def test_parameters_are_spread_over_the_mesh(sharded: dict) -> None:
    gate = sharded["layers"][0]["gate"]
    assert gate.sharding.shard_shape(gate.shape) == (8, 16)


def test_dimension_that_does_not_divide_stays_whole() -> None:
    mesh = make_mesh(MeshConfig(tensor=4))
    shardings = parameter_shardings(parameter_specs(MODEL), mesh)
    assert shardings["layers"][0]["k"].shard_shape((16, 2, 8)) == (16, 2, 8)
    assert shardings["layers"][0]["q"].shard_shape((16, 4, 8)) == (16, 1, 8)


def test_too_few_devices_are_refused() -> None:
    with pytest.raises(UserError, match="config.mesh"):
        make_mesh(MeshConfig(data=1000))


def test_sharded_scores_equal_those_of_one_device(params: object, sharded: object) -> None:
    one = list(likelihood.score(params, MODEL, PAIRS, 9, batch=8))
    many = list(likelihood.score(sharded, MODEL, PAIRS, 9, batch=8))
    np.testing.assert_allclose(np.concatenate(many), np.concatenate(one), atol=1e-5)


def test_sharded_update_equals_that_of_one_device(params: object, sharded: object) -> None:
    tx = rl.optimizer(rl.OptimizerConfig(1e-2, warmup=1), 10)
    rows = likelihood.to_rows(PAIRS, 9)
    one, found = rl.supervised_update(rl.init_state(params, tx), MODEL, tx, rows)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    spread = jax.device_put(rows, rows_sharding(mesh))
    many, also = rl.supervised_update(rl.init_state(sharded, tx), MODEL, tx, spread)
    np.testing.assert_allclose(also["loss"], found["loss"], rtol=1e-5)
    np.testing.assert_allclose(also["grad_norm"], found["grad_norm"], rtol=1e-4)
    assert int(one.step) == int(many.step) == 1


def test_updates_compile_once_on_one_device(params: object) -> None:
    tx = rl.optimizer(rl.OptimizerConfig(1e-2, warmup=1), 10)
    state, before = rl.init_state(params, tx), rl.supervised_update._cache_size()
    rows = jax.device_put(likelihood.to_rows(PAIRS, 9), rows_sharding(mesh_of(state.params)))
    for _ in range(3):
        state, _ = rl.supervised_update(state, MODEL, tx, rows)
    assert rl.supervised_update._cache_size() == before + 1


def test_sharded_sampler_gives_its_tokens_the_log_probs_of_one_device(params: object, sharded: object) -> None:
    engine = Engine(sharded, MODEL, EngineConfig(slots=16, window=4, prompt_places=4, prefill_rows=2), 8)
    request = Request("p", (2, 3, 4), prompt_key(0, "eval", "p"), tuple(range(16)), SamplingParams(1.0, 1.0, 8, (1,)))
    samples = list(engine.generate([request]))
    assert len(samples) == 16
    scores = likelihood.score(params, MODEL, [(request.prompt_ids, s.tokens) for s in samples], 12, batch=16)
    for sample, logp in zip(samples, scores, strict=True):
        np.testing.assert_allclose(sample.logp_model, logp, atol=1e-5)
