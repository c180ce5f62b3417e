"""Sharded over eight virtual devices, a model scores, learns and samples as it does on one."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_limit import rl
from rlvr_limit.distributed.mesh import (
    arrange_devices,
    make_mesh,
    mesh_of,
    over_hosts,
    parameter_shardings,
    rows_sharding,
)
from rlvr_limit.engine import programs
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import Request, prompt_key
from rlvr_limit.models import decoder, log_probs
from rlvr_limit.models.decoder import ModelConfig, init_params, parameter_specs
from rlvr_limit.settings import EngineConfig, MeshConfig, OptimizerConfig
from rlvr_limit.types import Sample, SamplingParams, UserError
from tests.support.numpy_decoder import in_float64, numpy_log_softmax

MODEL = ModelConfig(vocab_size=24, width=16, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=32)
PAIRS = [((2, 3, 4), (5, 6, 7, 1)), ((8, 9), (10, 11, 1)), ((2,), (3, 4, 5, 6, 1)), ((7, 7, 7, 7), (8,))] * 2

WIDE = ModelConfig(vocab_size=64, width=32, layers=2, heads=16, kv_heads=8, head_width=8, ffn_width=64, qk_norm=True)
"""Eight devices divide every axis of it, whichever mesh they form."""
MESHES = {shape: MeshConfig(*shape) for shape in ((8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2))}
SLOWER = [pytest.param(shape, marks=pytest.mark.slow) for shape in ((8, 1, 1), (1, 8, 1), (1, 1, 8))]
ON_EVERY_MESH = pytest.mark.parametrize("shape", [*SLOWER, (2, 2, 2)], ids=str)


def placed(params: object, config: ModelConfig, shape: tuple[int, int, int]) -> object:
    """Parameters on the mesh of this shape."""
    return jax.device_put(params, parameter_shardings(parameter_specs(config), make_mesh(MESHES[shape])))


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
    one, many = (log_probs.score_pairs(under, MODEL, PAIRS) for under in (params, sharded))
    for mine, other in zip(one, many, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)


def test_each_device_packs_its_own_answers_and_no_hidden_state_travels_for_it(params: object) -> None:
    spread = placed(params, MODEL, (8, 1, 1))
    *_, (_, rows) = log_probs.prefix_batches(PAIRS * 8, 1024, 8)
    rows = jax.device_put(rows, rows_sharding(mesh_of(spread)))

    def moved(packed: int | None) -> int:
        text = log_probs.score_prefix_batch.lower(spread, MODEL, rows, packed).compile().as_text()
        return sum(text.count(f" {name}(") for name in ("all-gather", "all-reduce", "all-to-all", "collective-permute"))

    assert moved(log_probs.packed_positions(MODEL, np.asarray(rows.answer_BT), 8)) == moved(None) == 0


@pytest.mark.slow  # tests/rl/test_accumulation.py holds gradient and three steps of the same mesh by default
def test_sharded_update_equals_that_of_one_device(params: object, sharded: object) -> None:
    tx = rl.optimizer(OptimizerConfig(1e-2, warmup=1), 10)
    batch = rl.supervised_batch(log_probs.answer_rows(PAIRS, 9))
    one, found = rl.train_step(rl.init_state(params, tx), MODEL, tx, None, [batch])
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    spread = jax.device_put(batch, rows_sharding(mesh))
    many, also = rl.train_step(rl.init_state(sharded, tx), MODEL, tx, None, [spread])
    np.testing.assert_allclose(also["loss"], found["loss"], rtol=1e-5)
    np.testing.assert_allclose(also["grad_norm"], found["grad_norm"], rtol=1e-4)
    assert int(one.step) == int(many.step) == 1


@pytest.mark.parametrize("shape", [None, *SLOWER, (2, 2, 2)], ids=str)
def test_updates_compile_once(params: object, shape: tuple[int, int, int] | None) -> None:
    tx = rl.optimizer(OptimizerConfig(1e-2, warmup=1), 10)
    state = rl.init_state(placed(params, MODEL, shape) if shape else params, tx)
    before = rl.single_batch_step._cache_size()
    batch = rl.supervised_batch(log_probs.answer_rows(PAIRS, 9))
    batch = jax.device_put(batch, rows_sharding(mesh_of(state.params)))
    for _ in range(3):
        state, _ = rl.train_step(state, MODEL, tx, None, [batch])
    assert rl.single_batch_step._cache_size() == before + 1


@pytest.mark.slow  # the tokens' distance from a boundary, below, holds the log-probs of the same mesh
def test_sharded_sampler_gives_its_tokens_the_log_probs_of_one_device(params: object, sharded: object) -> None:
    engine = Engine(
        sharded, MODEL, EngineConfig(max_num_seqs=16, steps_per_call=4, max_prompt_len=4, prefill_rows=2), 8
    )
    request = Request("p", (2, 3, 4), prompt_key(0, "eval", "p"), tuple(range(16)), SamplingParams(1.0, 1.0, 8, (1,)))
    samples = list(engine.generate([request]))
    assert len(samples) == 16
    scores = log_probs.score_pairs(params, MODEL, [(request.prompt_ids, s.tokens) for s in samples])
    for sample, (logp, _) in zip(samples, scores, strict=True):
        np.testing.assert_allclose(sample.logp_model, logp, atol=1e-5)


@pytest.fixture(scope="module")
def wide() -> object:
    return init_params(WIDE, jax.random.key(1))


@partial(jax.jit, static_argnums=1)
def logits(params: object, config: ModelConfig, tokens_BT: jax.Array) -> jax.Array:
    return decoder.logits(params, decoder.forward_causal(params, config, tokens_BT)[0])


@ON_EVERY_MESH
def test_logits_on_any_mesh_equal_those_of_one_device(wide: object, shape: tuple[int, int, int]) -> None:
    tokens = np.random.default_rng(0).integers(WIDE.vocab_size, size=(8, 64)).astype(np.int32)
    one, many = logits(wide, WIDE, tokens), logits(placed(wide, WIDE, shape), WIDE, tokens)
    away = np.abs(np.asarray(many) - np.asarray(one)).max()
    print(f"{shape}: largest difference {away:.1e}, standard deviation {np.std(one):.2f}")
    assert 0.5 < np.std(one) < 2 and away <= 1e-5
    assert not many.sharding.is_fully_replicated


def test_one_device_adds_no_constraint_to_any_program(wide: object) -> None:
    tokens = np.zeros((2, 4), np.int32)
    alone = jax.device_put(wide, parameter_shardings(parameter_specs(WIDE), make_mesh(MeshConfig())))
    for params in (wide, alone):
        assert "sharding_constraint" not in str(logits.trace(params, WIDE, tokens).jaxpr)
    assert "sharding_constraint" in str(logits.trace(placed(wide, WIDE, (2, 2, 2)), WIDE, tokens).jaxpr)


def test_pages_are_cut_by_rows_and_heads(wide: object) -> None:
    engine = Engine(
        placed(wide, WIDE, (2, 2, 2)), WIDE, EngineConfig(max_num_seqs=16, page_size=16, max_prompt_len=4), 8
    )
    shapes, spec = engine.shapes, engine.program_spec(16)
    assert (shapes.shards, shapes.max_num_seqs, spec.tile) == (4, 4, 4)
    k, v = (x.shape for x in shapes.abstract_pool(WIDE)[0])
    assert spec.sharding(k, *programs.CACHE_AXES).shard_shape(k) == (shapes.pages, 4, 8, 16)
    assert spec.sharding(v, *programs.CACHE_AXES).shard_shape(v) == (shapes.pages, 4, 16, 8)
    assert spec.sharding((16,), "rows").shard_shape((16,)) == (4,)


LONGEST = 12
PROMPTS = [(2, 3, 4), (5, 6, 7, 8), (9,), (10, 63)]
SAMPLES = 128


def draw(params: object, slots: int) -> dict[tuple[int, int], Sample]:
    """SAMPLES of each prompt, some under top-p, keyed by (prompt, index)."""
    engine = Engine(
        params, WIDE, EngineConfig(max_num_seqs=slots, steps_per_call=4, max_prompt_len=4, prefill_rows=4), LONGEST
    )
    asked = [
        Request(
            str(i), prompt, prompt_key(5, "eval", str(i)), tuple(range(SAMPLES)), SamplingParams(1.0, top_p, LONGEST)
        )
        for i, (prompt, top_p) in enumerate(zip(PROMPTS, (1.0, 1.0, 0.9, 1.0), strict=True))
    ]
    return {(int(s.problem_id), s.index): s for s in engine.generate(asked)}


@pytest.fixture(scope="module")
def drawn_on_one(wide: object) -> dict[tuple[int, int], Sample]:
    """By one device with 64 slots: as many rows as each device has in the runs over eight."""
    return draw(wide, 64)


def test_tokens_are_bitwise_those_of_one_device_where_only_rows_are_spread(wide: object, drawn_on_one: dict) -> None:
    many = draw(placed(wide, WIDE, (8, 1, 1)), 8 * 64)
    assert {key: s.tokens for key, s in many.items()} == {key: s.tokens for key, s in drawn_on_one.items()}
    away = max(np.abs(np.subtract(s.logp_model, drawn_on_one[key].logp_model)).max() for key, s in many.items())
    print(f"(8, 1, 1): {len(many) * LONGEST} tokens equal, log-probs within {away:.1e}")
    assert away <= 1e-5


def margin(weights: object, key: tuple[int, int], tokens: tuple[int, ...]) -> float:
    """How far the uniform of the token after `tokens` lies from the nearest boundary of its CDF or of top-p's set."""
    prompt, index = key
    data = jax.random.wrap_key_data(jnp.array(prompt_key(5, "eval", str(prompt)), jnp.uint32))
    u = float(jax.random.uniform(jax.random.fold_in(jax.random.fold_in(data, index), len(tokens))))
    p = np.exp(numpy_log_softmax(weights, WIDE, [*PROMPTS[prompt], *tokens])[-1])
    if prompt != 2:
        return np.abs(np.cumsum(p) - u).min()
    mass = np.cumsum(np.sort(p)[::-1])
    kept = np.where(p >= np.sort(p)[::-1][np.argmax(mass >= 0.9)], p, 0)
    return min(np.abs(np.cumsum(kept) / kept.sum() - u).min(), np.abs(mass - 0.9).min())


@pytest.mark.slow
@pytest.mark.parametrize("shape", [*SLOWER[1:], (2, 2, 2)], ids=str)
def test_first_differing_tokens_on_other_meshes_lie_at_a_boundary(
    wide: object, drawn_on_one: dict, shape: tuple[int, int, int]
) -> None:
    away, margins = 0.0, []
    for key, sample in draw(placed(wide, WIDE, shape), 64 * shape[0] * shape[1]).items():
        pairs = zip(sample.tokens, drawn_on_one[key].tokens, strict=True)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), LONGEST)
        if same:
            apart = np.subtract(sample.logp_model[:same], drawn_on_one[key].logp_model[:same])
            away = max(away, np.abs(apart).max())
        if same < LONGEST:
            margins.append(margin(in_float64(wide), key, sample.tokens[:same]))
    print(f"{shape}: {len(margins)} of {len(drawn_on_one)} samples differ, margins {margins}, log-probs {away:.1e}")
    assert away <= 1e-5 and max(margins, default=0) <= 1e-5


@pytest.mark.parametrize("axis", ["data", "fsdp", "tensor"])
def test_devices_of_hosts_lie_side_by_side_along_the_axis_that_grows(axis):
    """Three hosts of 2 x 1 x 4 devices, numbered host by host."""
    config = MeshConfig(data=2, tensor=4)
    found = arrange_devices(config, list(range(24)), 3, axis)
    whole = over_hosts(config, 3, axis)
    assert found.shape == (whole.data, whole.fsdp, whole.tensor)
    parts = np.split(found, 3, axis=("data", "fsdp", "tensor").index(axis))
    assert [part.ravel().tolist() for part in parts] == [list(range(8 * host, 8 * host + 8)) for host in range(3)]
