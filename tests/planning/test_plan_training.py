"""What a plan says of training: the state that training has, and every program that an update runs."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from rlvr_limit import planning, rl
from rlvr_limit.distributed.mesh import TRAINING_AXIS, sharding
from rlvr_limit.engine.shapes import by_default, segment_engine_config, shapes_of
from rlvr_limit.models.decoder import ModelConfig, init_params, parameter_count
from rlvr_limit.models.log_probs import AnswerRows, answer_log_probs
from rlvr_limit.planning import compiling, prepare, programs, updates
from rlvr_limit.settings import EngineConfig, MeshConfig, Settings, Training
from rlvr_limit.training.learner import Learner
from tests.support import hlo
from tests.support.plans import TINY
from tests.support.studies import settings_of


def test_updates_of_recipes_have_the_state_that_training_has() -> None:
    s = settings_of("countdown_smoke")
    model, shapes = prepare.model_of(s), by_default(prepare.assumed(s).engine)
    mesh = programs.make_mesh(MeshConfig(), jax.devices()[:1])
    assert [p.name for update in recipe_programs(s, model, shapes, mesh, 1) for p in update.programs] == [
        "supervised update of 32 x 14 tokens",
        "policy update of 8 x 14 tokens",
    ]
    tx = rl.optimizer(s.arms["grpo"].rl.optimizer, 10)
    for lora in (None, rl.Lora(2, 4.0)):
        params, compute = init_params(model, jax.random.key(0)), rl.Compute()
        _, real = Learner(model, mesh, mesh, tx, compute, (6, 8), lora=lora).begin(params, "", seed=0)
        planned = updates.abstract_state(model, mesh, tx, "", lora)
        assert jax.tree.structure(real) == jax.tree.structure(planned)
        for x, y in zip(jax.tree.leaves(real), jax.tree.leaves(planned), strict=True):
            assert (x.shape, x.dtype) == (y.shape, y.dtype)


def test_updates_are_as_long_as_the_answers_that_the_recipe_learns_from() -> None:
    s = settings_of("countdown_smoke")
    model, engine = prepare.model_of(s), by_default(prepare.assumed(s).engine)
    mesh = programs.make_mesh(MeshConfig(), jax.devices()[:1])
    arms = {"grpo": dataclasses.replace(s.arms["grpo"], rl=dataclasses.replace(s.arms["grpo"].rl, max_tokens=3))}
    (update,) = recipe_programs(dataclasses.replace(s, arms=arms), model, engine, mesh, 1)
    assert s.sampling.max_tokens == 8 and [p.name for p in update.programs] == ["policy update of 8 x 9 tokens"]


def test_adapters_take_less_than_all_parameters_and_their_base_is_counted_once() -> None:
    s = settings_of("countdown_smoke")
    model, engine = prepare.model_of(s), by_default(prepare.assumed(s).engine)
    mesh = programs.make_mesh(MeshConfig(), jax.devices()[:1])
    found = {}
    for rank in (0, 2):
        recipe = dataclasses.replace(s.arms["grpo"].rl, lora_rank=rank)
        training = dataclasses.replace(s.training, tokens=64)
        program, step = updates.RecipeUpdates(model, engine, mesh, training, recipe, s.sampling.max_tokens).programs()
        compiled = compiling.compile_program(program, planning.find_target("cpu"), True)
        assert all(("adapters of rank 2" in each.name) == bool(rank) for each in (program, step))
        found[rank] = program.resident, compiled.alone - compiled.temporaries
    weights = programs.device_bytes(programs.abstract_params(model, mesh))
    assert found[2][0] < 0.2 * found[0][0] and found[0][0] >= 2 * weights
    # Without adapters weights and their gradient; with them weights, few adapters and their gradient.
    assert weights < found[2][1] < 1.5 * weights and found[0][1] > 1.9 * weights


def test_a_probe_has_a_program_of_its_own_beside_the_policys_optimizer() -> None:
    s = settings_of("countdown_smoke")
    model, engine = prepare.model_of(s), by_default(prepare.assumed(s).engine)
    mesh = programs.make_mesh(MeshConfig(), jax.devices()[:1])
    recipe = s.arms["grpo"].rl
    ppo = dataclasses.replace(recipe, algorithm="ppo", value_optimizer=recipe.optimizer)
    training, longest = dataclasses.replace(s.training, tokens=64), s.sampling.max_tokens
    policy, _, value = updates.RecipeUpdates(model, engine, mesh, training, ppo, longest).programs()
    # A row holds a prompt and as many of the answers to it as 64 tokens have room for.
    assert value.name == "probe's gradient of 1 x 64 tokens"
    assert policy.resident == value.resident > 1.9 * programs.device_bytes(programs.abstract_params(model, mesh))
    compiled = compiling.compile_program(value, planning.find_target("cpu"), True)
    # A forward pass: it is given all weights, and gives a gradient of the head alone.
    assert compiled.alone > programs.device_bytes(programs.abstract_params(model, mesh))


def test_a_critic_is_a_second_state_beside_the_sampler_and_beside_the_policys_update() -> None:
    s = settings_of("countdown_smoke")
    model, engine = prepare.model_of(s), by_default(prepare.assumed(s).engine)
    mesh = programs.make_mesh(MeshConfig(), jax.devices()[:1])
    recipe = s.arms["grpo"].rl
    ppo = dataclasses.replace(recipe, algorithm="ppo", critic="full", value_optimizer=recipe.optimizer)
    params = init_params(model, jax.random.key(0))
    real = rl.init_state(rl.critic_params(model, params), rl.optimizer(recipe.optimizer, 1))
    for tokens, names in ((0, ["policy update", "critic update"]), (64, 2 * ["gradient", "step"])):
        training = dataclasses.replace(s.training, tokens=tokens)
        with_critic, without = (
            updates.RecipeUpdates(model, engine, mesh, training, r, s.sampling.max_tokens) for r in (ppo, recipe)
        )
        planned = with_critic.critic
        assert jax.tree.map(lambda x: (x.shape, x.dtype), planned) == jax.tree.map(lambda x: (x.shape, x.dtype), real)
        critic, policy = programs.device_bytes(planned), programs.device_bytes(without.state)
        assert 0.9 * policy < critic < policy  # a critic has no unembedding
        assert with_critic.kept == critic and with_critic.beside_sampler(1) == without.beside_sampler(1) + critic
        made = with_critic.programs()
        assert all(p.name.startswith(name) for p, name in zip(made, names, strict=True))
        for i, (mine, plain) in enumerate(zip(made[: len(made) // 2], without.programs(), strict=True)):
            assert mine.resident == plain.resident + critic
            beside = made[len(made) // 2 + i]
            # While a gradient is taken, its own optimizer's state lies beside it too.
            states = (planned.opt_state, without.state.opt_state) if tokens and not i else ((), ())
            own, others = map(programs.device_bytes, states)
            assert "critic" in beside.name and beside.resident - own == plain.resident - others + policy
        assert compiling.compile_program(made[-1], planning.find_target("cpu"), True).alone > critic / 2


def test_the_larger_cache_of_segments_is_counted_with_the_state_beside_it() -> None:
    s = settings_of("countdown_smoke")
    model, engine = (
        prepare.model_of(s),
        dataclasses.replace(by_default(prepare.assumed(s).engine), prefix_rows=2),
    )
    mesh = programs.make_mesh(MeshConfig(), jax.devices()[:1])
    recipe = dataclasses.replace(s.arms["grpo"].rl, segment=4, importance_cap=2.0)
    arms = {"grpo": dataclasses.replace(s.arms["grpo"], rl=recipe)}
    (update,) = recipe_programs(dataclasses.replace(s, arms=arms), model, engine, mesh, 1)
    _, *drawing = update.programs
    longest = engine.max_prompt_len + s.sampling.max_tokens
    # The cache that the job itself asks for, at its own longest segment.
    sizes = shapes_of(segment_engine_config(engine, longest), mesh, recipe.segment)
    assert sizes.prefill_lengths[-1] >= longest
    assert [p.name for p in drawing] == [
        f"prefill of {engine.prefill_rows} x {sizes.prefill_lengths[-1]} tokens, segments of 4 tokens",
        f"decode_window of {engine.max_num_seqs} rows, segments of 4 tokens",
    ]
    asked, usual = (programs.device_bytes(programs.pool(model, x, mesh)) for x in (sizes, shapes_of(engine, mesh, 4)))
    assert asked > usual
    weights = programs.device_bytes(programs.abstract_params(model, mesh))
    for program in drawing:
        compiled = compiling.compile_program(program, planning.find_target("cpu"), True)
        held = compiled.alone - compiled.temporaries
        # A prefill makes no logits, and so is not given all weights.
        assert asked + weights * (program is not drawing[0]) <= held and 2 * weights <= program.resident < 2.1 * weights
        assert compiled.fits(asked + program.resident) is False


def test_training_over_hosts_cuts_the_state_over_all_their_devices_and_samples_beside_a_copy() -> None:
    s = settings_of("countdown_smoke")
    model, engine = prepare.model_of(s), by_default(prepare.assumed(s).engine)
    own = MeshConfig(tensor=2)
    seen: list[tuple] = []
    for hosts in (1, 4):
        mesh = programs.make_mesh(own, jax.devices()[: 2 * hosts], hosts, TRAINING_AXIS)
        assert dict(mesh.shape) == {"data": 1, "fsdp": hosts, "tensor": 2}
        seen.append((recipe_programs(s, model, engine, mesh, hosts), mesh))
    (one, _), (four, mesh) = seen
    whole = 4 * parameter_count(model)
    for update, alone in zip(four, one, strict=True):
        assert whole / 8 <= update.parameters < 1.1 * whole / 8 and whole / 2 <= alone.parameters < 1.1 * whole / 2
        assert abs(update.optimizer - 2 * update.parameters) < 100
    assert four[0].beside_sampler is None
    # On one host the sampler takes the state's own arrays.
    assert one[1].beside_sampler == one[1].optimizer
    assert four[1].beside_sampler == four[1].optimizer + four[1].parameters
    text = hlo.text_of(four[1].programs[0], planning.find_target("cpu"))
    assert set(hlo.sends(text, mesh.shape).axes) == {"fsdp", "tensor"}


def test_the_unembedding_is_fetched_once_however_many_chunks_of_logits_there_are() -> None:
    """64 positions a device, in one chunk or eight; without the pass that would take a fetch out of a loop for XLA:CPU,
    and does not for XLA:TPU and XLA:GPU."""
    mesh = programs.make_mesh(MeshConfig(fsdp=4, tensor=2), jax.devices()[:8])
    config = dataclasses.replace(TINY, vocab_size=4096)
    params = programs.abstract_params(config, mesh)
    lie = sharding(mesh, (8,), ("rows",))
    rows = AnswerRows(*(jax.ShapeDtypeStruct((8, 32), dtype, sharding=lie) for dtype in (jnp.int32, bool)))

    def gathered(chunk: int) -> float:
        scores = jax.jit(lambda params, rows: answer_log_probs(params, config, rows, chunk))
        as_it_stands = {"xla_disable_hlo_passes": "while-loop-invariant-code-motion"}
        text = scores.trace(params, rows).lower().compile(compiler_options=as_it_stands).as_text()
        return dict(hlo.sends(text, mesh.shape).collectives)["all-gather"]

    assert gathered(64) == gathered(8)


def recipe_programs(s: Settings, model: ModelConfig, engine: EngineConfig, mesh: Any, hosts: int) -> Any:
    """What the config's recipes train, a minibatch at once."""
    return updates.recipe_programs(prepare.assumed(s).trained, model, engine, mesh, hosts, Training(tokens=-1))
