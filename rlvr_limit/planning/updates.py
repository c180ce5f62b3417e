"""What a config takes on a machine that is not here: --config.job=plan --config.target=NAME. No weights are needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh

from rlvr_limit import planning, rl
from rlvr_limit.distributed.mesh import row_devices, shard_count, sharding
from rlvr_limit.engine.shapes import segment_engine_config, shapes_of
from rlvr_limit.models.decoder import ModelConfig, parameter_specs
from rlvr_limit.models.log_probs import AnswerRows, PrefixBatch, padded_length
from rlvr_limit.planning import Benchmark, Program, Update, Workload
from rlvr_limit.planning import programs as abstract
from rlvr_limit.rl.lora import adapter_specs
from rlvr_limit.settings import EngineConfig, Reinforced, Settings, Supervised, Training, schema
from rlvr_limit.study import recipes
from rlvr_limit.study.arms import expand
from rlvr_limit.study.checks import check
from rlvr_limit.tasks import countdown
from rlvr_limit.tasks.benchmarks import BENCHMARKS
from rlvr_limit.types import UserError

PROBLEMS = {benchmark.name: benchmark.rows for benchmark in BENCHMARKS}
"""Problems of each benchmark, as published: a plan reads no data."""

PROMPT_PLACES = 1344
"""Assumed where a config leaves it to the prompts: OlympiadBench's longest, with its template, in Qwen2.5's tokens."""

PROMPT_TOKENS = 128
ANSWER_TOKENS = 1024
"""Assumed means of a prompt and of an answer."""


def model_of(s: Settings) -> ModelConfig:
    """The decoder of the config's shape; of a task with a vocabulary of its own, with that."""
    if s.model is None:
        raise UserError("config.model: a plan reads no weights, so the shape of the decoder must be given here")
    shape = schema.to_jsonable(s.model)
    if s.task:
        shape["vocab_size"] = countdown.tokenizer(s.task).vocab_size
    if not shape["vocab_size"]:
        raise UserError("config.model.vocab_size: found 0, but the size of the vocabulary is right")
    return ModelConfig(**shape, dtype=s.dtype)


def engine_of(s: Settings) -> EngineConfig:
    """The engine's shapes, with an assumption where they follow from the prompts."""
    return s.engine if s.engine.max_prompt_len else dataclasses.replace(s.engine, max_prompt_len=PROMPT_PLACES)


def workload_of(s: Settings, model: ModelConfig) -> Workload:
    """The work of the config. Raises UserError for a benchmark whose size is not known."""
    longest = s.sampling.max_tokens
    if model.context and not s.sampling.allow_beyond_context:
        longest = min(longest, model.context - PROMPT_TOKENS)
    if s.task:
        benchmarks = (Benchmark("countdown", s.task.eval_problems, s.sampling.n),)
    else:
        benchmarks = tuple(_benchmark(s, name) for name in s.benchmarks)
    return Workload(
        benchmarks,
        arms=len(expand(s.arms)),
        max_tokens=longest,
        mean_tokens=min(ANSWER_TOKENS, longest),
        prompt_tokens=min(PROMPT_TOKENS, engine_of(s).max_prompt_len),
        scored=s.score.answers,
        score_tokens=s.score.tokens,
    )


def _benchmark(s: Settings, name: str) -> Benchmark:
    if name not in PROBLEMS:
        raise UserError(f"config.benchmarks: found {name!r}, but one of {', '.join(PROBLEMS)} is right")
    problems = min(PROBLEMS[name], s.limit) if s.limit else PROBLEMS[name]
    return Benchmark(name, problems, s.sampling.n_of.get(name, s.sampling.n))


def updates(
    s: Settings, model: ModelConfig, engine: EngineConfig, mesh: Mesh | AbstractMesh, hosts: int
) -> Sequence[Update]:
    """The updates of the config's recipes, on the mesh of so many hosts; those of one kind and batch are one."""
    found: dict[tuple[str, ...], Update] = {}
    places = engine.max_prompt_len, s.sampling.max_tokens
    base = abstract.device_bytes(abstract.abstract_params(model, mesh))
    for name, arm in s.arms.items():
        recipe = None if arm.weights else arm.recipe
        if recipe is None:
            continue
        _, state = _begun(model, mesh, s.training, recipe)
        parameters, optimizer = map(abstract.device_bytes, (state.params, state.opt_state))
        if isinstance(recipe, Supervised):
            kept, beside = base if recipe.lora_rank else 0, None
            programs = _supervised(model, mesh, s.training, recipe, sum(places))
        else:
            kept = base if recipe.lora_rank or recipe.kl else 0
            # On one host a state in the model's own dtype is what is sampled from; another one is copied.
            is_sampled = hosts == 1 and not recipe.lora_rank and s.training.param_dtype in ("", model.dtype)
            beside = parameters + optimizer + kept - (parameters if is_sampled else 0)
            programs = _reinforced(model, mesh, s.training, recipe, places)
            programs += _segments(model, engine, mesh, s.training, recipe, places) if recipe.segment else ()
        known = tuple(program.name for program in programs)
        found.setdefault(known, Update(name, parameters, optimizer, kept, beside, programs))
    return tuple(found.values())


def _begun(
    model: ModelConfig, mesh: Mesh | AbstractMesh, training: Training, recipe: Supervised | Reinforced
) -> tuple[optax.GradientTransformation, rl.TrainState]:
    """The optimizer of a recipe and the state that it begins from."""
    count = recipe.steps * (recipe.minibatches if isinstance(recipe, Reinforced) else 1)
    tx = rl.optimizer(recipe.optimizer, count)
    return tx, _state(model, mesh, tx, training.param_dtype, recipes.adapters(recipe))


def _supervised(
    model: ModelConfig, mesh: Mesh | AbstractMesh, training: Training, recipe: Supervised, places: int
) -> tuple[Program, ...]:
    (tx, state), compute = _begun(model, mesh, training, recipe), rl.Compute(training.remat)
    size = _microbatch(mesh, training, places) if training.tokens else (recipe.batch, places)
    batch = rl.SupervisedBatch(*_rows(mesh, *size, packed=bool(training.tokens)))
    return _step(mesh, "supervised", "", model, None, compute, tx, state, batch, 0, recipes.adapters(recipe))


def _reinforced(
    model: ModelConfig, mesh: Mesh | AbstractMesh, training: Training, recipe: Reinforced, places: tuple[int, int]
) -> tuple[Program, ...]:
    """The policy's update, and the gradient of the value head where there is one; places of prompts and of answers."""
    (tx, state), compute = _begun(model, mesh, training, recipe), rl.Compute(training.remat)
    batch = recipe.prompts * recipe.answers // recipe.minibatches
    packed = bool(training.tokens)
    size = _microbatch(mesh, training, sum(places)) if packed else (batch, sum(places))
    rows, number = _rows(mesh, *size, packed) if packed else _shared(mesh, batch, recipe.prompts, places)
    answers = rl.PolicyBatch(
        rows,
        *(number, number, number),
        reference_BT=number if recipes.objective(recipe).kl else None,
        value_BT=number if recipe.value_optimizer else None,
        return_BT=number if recipe.value_optimizer else None,
        proximal_BT=number if recipe.importance_cap else None,
    )
    # The weights that the run started from are there as the reference policy, or as what adapters belong to: then they
    # are among what the program is given.
    base = abstract.abstract_params(model, mesh)
    kept = abstract.device_bytes(base) if recipe.kl and not recipe.lora_rank else 0
    besides = ", with a reference policy" if recipe.kl else ""
    found = _step(
        mesh,
        "policy",
        besides,
        model,
        recipes.objective(recipe),
        compute,
        tx,
        state,
        answers,
        kept,
        recipes.adapters(recipe),
    )
    if not recipe.value_optimizer:
        return found
    # Adapters add less to a forward pass than is worth a program of its own.
    policy = base if recipe.lora_rank else state.params
    head = abstract.replicated(
        {"weight_D": jax.ShapeDtypeStruct((model.width,), "float32"), "bias": jax.ShapeDtypeStruct((), "float32")}, mesh
    )
    value = Program(
        f"value head's gradient of {size[0]} x {size[1]:,} tokens",
        lambda: rl.value_gradient.trace(head, policy, model, recipes.objective(recipe), answers),
        mesh.shape,
        abstract.device_bytes(state.opt_state) + kept,
    )
    return *found, value


def _step(
    mesh: Mesh | AbstractMesh,
    kind: str,
    besides: str,
    model: ModelConfig,
    objective: rl.Objective | None,
    compute: rl.Compute,
    tx: optax.GradientTransformation,
    state: rl.TrainState,
    batch: rl.PolicyBatch | rl.SupervisedBatch,
    kept: int,
    lora: rl.Lora | None,
) -> tuple[Program, ...]:
    """The programs of rl.train_step: one, or the gradient of a packed batch and the step along a sum of such."""
    rows, places = batch.weight_BT.shape
    # The prompts of a prefix batch stand apart; what is computed is as long as if they did not.
    places += batch.rows.prefix_PS.shape[1] + 1 if isinstance(batch.rows, PrefixBatch) else 0
    base = abstract.abstract_params(model, mesh) if lora else None
    size, besides = f"{rows} x {places:,} tokens", besides + (f", adapters of rank {lora.rank}" if lora else "")
    if not rl.is_packed(batch):
        trace = partial(rl.single_batch_step.trace, state, model, tx, objective, compute, batch, lora, base)
        return (Program(f"{kind} update of {size}{besides}", trace, mesh.shape, kept),)
    sums = rl.shape_of_sums(state.params, objective, mesh)
    gradient = Program(
        f"gradient of {size}, {kind}{besides}",
        partial(rl.accumulate.trace, state.params, model, objective, compute, batch, sums, lora, base),
        mesh.shape,
        abstract.device_bytes(state.opt_state) + kept,
    )
    step = Program(
        f"step along it, {kind}{besides}",
        partial(rl.apply.trace, state, model, tx, sums, lora),
        mesh.shape,
        kept + (abstract.device_bytes(base) if lora else 0),
    )
    return gradient, step


def _microbatch(mesh: Mesh | AbstractMesh, training: Training, places: int) -> tuple[int, int]:
    return rl.microbatch_shape(places, training.tokens, row_devices(mesh))


def _rows(
    mesh: Mesh | AbstractMesh, batch: int, places: int, packed: bool = False
) -> tuple[AnswerRows, jax.ShapeDtypeStruct]:
    """Rows, and an array of one number a token that lies as they do."""
    lie = sharding(mesh, (batch,), ("rows",))

    def tokens(dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, places), dtype, sharding=lie)

    more = (tokens(jnp.int32),) * 3 if packed else ()
    return AnswerRows(tokens(jnp.int32), tokens(bool), *more), tokens(jnp.float32)


def _shared(
    mesh: Mesh | AbstractMesh, batch: int, prompts: int, places: tuple[int, int]
) -> tuple[PrefixBatch, jax.ShapeDtypeStruct]:
    """_rows of answers behind prompts, of which each part of the rows has its share and one that was cut."""
    lie, shards = sharding(mesh, (batch,), ("rows",)), shard_count(mesh, batch)
    most = padded_length(min(-(-prompts // shards) + (shards > 1), batch // shards), 1)

    def of(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=lie)

    asked, drawn = shards * min(most, batch // shards), (batch, places[1])
    i32 = jnp.int32
    rows = PrefixBatch(
        of(i32, asked, places[0] - 1),
        of(i32, asked),
        of(i32, batch),
        of(i32, *drawn),
        of(i32, *drawn),
        of(bool, *drawn),
    )
    return rows, of(jnp.float32, *drawn)


def _segments(
    model: ModelConfig,
    engine: EngineConfig,
    mesh: Mesh | AbstractMesh,
    training: Training,
    recipe: Reinforced,
    places: tuple[int, int],
) -> tuple[Program, ...]:
    """What draws segments: its prompts may be prompts with most of their answers, which asks for a larger cache. The
    state that is trained lies beside it."""
    larger = segment_engine_config(engine, sum(places))
    sizes = shapes_of(larger, mesh, min(recipe.segment, places[1]))
    state = _state(
        model, mesh, rl.optimizer(recipe.optimizer, recipe.steps), training.param_dtype, recipes.adapters(recipe)
    )
    copied = recipe.lora_rank or (training.param_dtype or model.dtype) != model.dtype
    beside = abstract.device_bytes(state.opt_state) + (abstract.device_bytes(state.params) if copied else 0)
    if recipe.kl or recipe.lora_rank:
        beside += abstract.device_bytes(abstract.abstract_params(model, mesh))
    drawing = (
        abstract.prefill(model, larger, sizes, mesh, sizes.prefill_lengths[-1]),
        abstract.decode_window(model, sizes, mesh, sizes.buckets[-1]),
    )
    kind = f"segments of {recipe.segment:,} tokens"
    return tuple(program._replace(name=f"{program.name}, {kind}", resident=beside, token_loop=0) for program in drawing)


def _state(
    model: ModelConfig,
    mesh: Mesh | AbstractMesh,
    tx: optax.GradientTransformation,
    param_dtype: str,
    lora: rl.Lora | None,
) -> rl.TrainState:
    """A train state where rl.init_state lays it: moments as the parameters, or adapters, scalars replicated."""
    specs = adapter_specs(model, lora) if lora else parameter_specs(model)
    dtype = "float32" if lora else param_dtype or model.dtype
    params = abstract.abstract(specs, dtype, mesh)

    def like(x: Any, parameter: Any) -> jax.ShapeDtypeStruct:
        if x.shape != parameter.shape:
            return scalar(x)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=parameter.sharding)

    def scalar(x: Any) -> jax.ShapeDtypeStruct:
        return abstract.replicated(x, mesh)

    moments = optax.tree_utils.tree_map_params(
        tx, like, jax.eval_shape(tx.init, params), params, transform_non_params=scalar
    )
    return rl.TrainState(params, moments, scalar(jax.ShapeDtypeStruct((), jnp.int32)))


def print_plan(s: Settings) -> None:
    """Prints what every program of the config needs on config.target. Raises UserError, one line."""
    check(s)
    target = planning.find(s.target)
    model = model_of(s)
    engine = engine_of(s)
    workload = workload_of(s, model)

    def trained(mesh: Mesh | AbstractMesh, hosts: int) -> Sequence[Update]:
        return updates(s, model, engine, mesh, hosts)

    found = planning.plan(model, engine, workload, target, s.mesh, trained, s.hosts.hosts_per_replica)
    print(planning.render(found))
    if not s.engine.max_prompt_len:
        print(f"config.engine.max_prompt_len = 0 leaves it to the prompts: {PROMPT_PLACES:,} were assumed")
