"""What a config's recipes train, and every program that their updates run, as abstract values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import jax
import optax

from rlvr_limit import rl
from rlvr_limit.distributed.mesh import row_devices, shard_count
from rlvr_limit.engine.shapes import segment_engine_config, shapes_of
from rlvr_limit.models.decoder import ModelConfig, Params, parameter_specs
from rlvr_limit.models.image_layout import MIN_PATCHES
from rlvr_limit.models.log_probs import AnswerRows, PrefixBatch, padded_length
from rlvr_limit.planning import programs
from rlvr_limit.planning.memory import BackwardPass
from rlvr_limit.planning.programs import F32, I32, AnyMesh, DeviceProgram, RecipePrograms, device_bytes
from rlvr_limit.planning.workload import Workload
from rlvr_limit.rl.lora import adapter_specs
from rlvr_limit.settings import EngineConfig, Reinforced, Supervised, Training
from rlvr_limit.study import recipes


class TrainedArm(NamedTuple):
    """An arm that is trained here."""

    name: str
    recipe: Supervised | Reinforced
    answer_len: int  # most tokens of an answer in training


def recipe_programs(
    trained: Sequence[TrainedArm],
    model: ModelConfig,
    engine: EngineConfig,
    mesh: AnyMesh,
    hosts: int,
    training: Training,
    workload: Workload | None = None,
) -> Sequence[RecipePrograms]:
    """What the recipes of arms train on the mesh of so many hosts; those of one kind and batch are one."""
    known: dict[tuple[str, ...], RecipePrograms] = {}
    for arm in trained:
        updates = RecipeUpdates(model, engine, mesh, training, arm.recipe, arm.answer_len, workload)
        made = updates.programs()
        sizes = device_bytes(updates.state.params), device_bytes(updates.state.opt_state), updates.kept
        is_drawn_for = isinstance(arm.recipe, Reinforced)
        beside = updates.beside_sampler(hosts) if is_drawn_for else None
        known.setdefault(tuple(p.name for p in made), RecipePrograms(arm.name, *sizes, beside, made))
    return tuple(known.values())


@dataclass(frozen=True)
class RecipeUpdates:
    """The updates of one recipe."""

    model: ModelConfig
    engine: EngineConfig
    mesh: AnyMesh
    training: Training
    recipe: Supervised | Reinforced
    answer_len: int
    workload: Workload | None = None  # whose images are seen

    @cached_property
    def tx(self) -> optax.GradientTransformation:
        updates = self.recipe.steps * getattr(self.recipe, "minibatches", 1)
        return rl.optimizer(self.recipe.optimizer, updates, self.training.vision)

    @property
    def lora(self) -> rl.Lora | None:
        return recipes.adapters(self.recipe)

    @property
    def trains_vision(self) -> bool:
        """Whether the vision tower, where there is one, is trained; adapters leave it alone."""
        return self.training.vision and not self.lora

    @cached_property
    def state(self) -> rl.TrainState:
        """The state that the recipe begins from."""
        return abstract_state(self.model, self.mesh, self.tx, self.training.param_dtype, self.lora)

    @cached_property
    def critic(self) -> rl.TrainState | None:
        """The critic that the recipe begins from, if it trains one."""
        if getattr(self.recipe, "critic", "probe") == "probe":
            return None
        return abstract_state(self.model, self.mesh, self.value_tx, self.training.param_dtype, None, is_critic=True)

    @cached_property
    def value_tx(self) -> optax.GradientTransformation:
        return rl.optimizer(self.recipe.value_optimizer, self.recipe.steps * self.recipe.minibatches)

    @cached_property
    def base(self) -> Params:
        """The weights that the run starts from: those of the reference policy, or what adapters belong to."""
        return programs.abstract_params(self.model, self.mesh)

    @property
    def kept(self) -> int:
        """Bytes of weights beside the state, of each device; with those of a critic and of its optimizer."""
        critic = device_bytes(self.critic) if self.critic else 0
        others = bool(self.lora or getattr(self.recipe, "kl", 0))
        # A teacher of reinforcement scores in every step; it is taken to be as large as its pupil.
        others += isinstance(self.recipe, Reinforced) and bool(self.recipe.teacher)
        return critic + others * device_bytes(self.base)

    @property
    def state_bytes(self) -> int:
        """Bytes of each device that a kept state has: parameters and optimizer."""
        return device_bytes(self.state.params) + device_bytes(self.state.opt_state)

    @property
    def held_bytes(self) -> int:
        """Bytes of each device beside an update's temporaries: the state, sums of gradients, weights that are kept."""
        sums = sum(4 * device_bytes(x) // x.dtype.itemsize for x in jax.tree.leaves(self.state.params))
        return self.state_bytes + sums + self.kept

    @property
    def row_places(self) -> int:
        """Tokens of the longest prompt and answer together."""
        return self.engine.max_prompt_len + self.answer_len

    def at_once(self, tokens: int) -> BackwardPass:
        """What a device goes over at once with training.tokens of so many."""
        rows, places, prompts = self._shape(tokens)
        devices = row_devices(self.mesh)
        images, patches = self._images(tokens)
        mine = -(-rows // devices) * places + -(-prompts // devices) * (self.engine.max_prompt_len - 1)
        keys = places + (self.engine.max_prompt_len - 1 if prompts else 0)
        # Images whose number does not divide lie whole on every device.
        return BackwardPass(mine, keys, images // devices if images % devices == 0 else images, patches)

    def _shape(self, tokens: int) -> tuple[int, int, int]:
        """(rows of a batch, their places, prompts that stand in rows of their own) of all devices."""
        recipe = self.recipe
        if tokens > 0:
            lengths = self.engine.max_prompt_len, self.answer_len
            return *recipes.microbatch(recipe, tokens, row_devices(self.mesh), *lengths), 0
        if isinstance(recipe, Supervised):
            return recipe.batch, self.row_places, 0
        batch = recipe.prompts * recipe.answers // recipe.minibatches
        shards = shard_count(self.mesh, batch)
        most = padded_length(min(-(-recipe.prompts // shards) + (shards > 1), batch // shards), 1)
        return batch, self.answer_len, shards * min(most, batch // shards)

    def _images(self, tokens: int) -> tuple[int, int]:
        """(images of such a batch, patches of each), as they are padded; (0, 0) where nothing is seen."""
        if not (self.model.vision and self.workload and self.workload.images):
            return 0, 0
        seen, answers = self.workload.images, getattr(self.recipe, "answers", 1)
        rows, places, prompts = self._shape(tokens)
        # Packed rows have room for so many prompts, each with all of its answers.
        group = self.workload.prompt_tokens + answers * min(self.workload.mean_tokens, self.answer_len)
        shown = math.ceil(rows * places / group) if tokens > 0 else prompts or rows
        return padded_length(math.ceil(shown * seen.per_problem), 1), padded_length(seen.most, MIN_PATCHES)

    def beside_sampler(self, hosts: int) -> int:
        """Bytes of each device that lie there while answers are drawn, besides the sampler's own."""
        # On one host a state in the model's own dtype is what is sampled from, as it lies; another one is copied.
        is_sampled = hosts == 1 and not self.lora and self.training.param_dtype in ("", self.model.dtype)
        sampled = programs.abstract_for_inference(self.model, self.mesh)
        is_sampled &= jax.tree.structure(sampled) == jax.tree.structure(self.base)
        return device_bytes(self.state.opt_state) + self.kept + (0 if is_sampled else device_bytes(self.state.params))

    def programs(self) -> tuple[DeviceProgram, ...]:
        if isinstance(self.recipe, Supervised):
            return self._step("supervised", "", None, rl.SupervisedBatch(*self._rows()), 0)
        return self._policy() + (self._segments() if self.recipe.segment else ())

    def _policy(self) -> tuple[DeviceProgram, ...]:
        """The policy's update, and that of a critic, or a probe's gradient, where there is one."""
        recipe, objective = self.recipe, recipes.objective(self.recipe)
        rows, number = self._rows()
        batch = rl.PolicyBatch(
            rows,
            *(number, number, number),
            reference_BT=number if objective.kl else None,
            value_BT=number if recipe.value_optimizer else None,
            return_BT=number if recipe.value_optimizer else None,
            proximal_BT=number if recipe.importance_cap else None,
        )
        # A program of adapters is given what they belong to.
        kept = 0 if self.lora else self.kept
        besides = ", with a reference policy" if recipe.kl or recipe.teacher else ""
        made = self._step("policy", besides, objective, batch, kept)
        if not recipe.value_optimizer:
            return made
        if self.critic:
            other = kept - device_bytes(self.critic) + device_bytes(self.state)
            return made + self._step("critic", "", objective, batch, other)
        # Adapters add less to a forward pass than is worth a program of its own.
        policy = self.base if self.lora else self.state.params
        head = programs.abstract(rl.head_specs(self.model), "float32", self.mesh)
        value = DeviceProgram(
            f"probe's gradient of {_size(batch)}",
            partial(rl.value_gradient.trace, head, policy, self.model, objective, batch),
            device_bytes(self.state.opt_state) + kept,
        )
        return *made, value

    def _step(
        self, kind: str, besides: str, objective: rl.Objective | None, batch: Any, kept: int
    ) -> tuple[DeviceProgram, ...]:
        """The programs of rl.train_step: one, or the gradient of a packed batch and the step along a sum of such."""
        lora, compute = self.lora, rl.Compute(self.training.remat or "none", trains_vision=self.training.vision)
        state, tx = (self.critic, self.value_tx) if kind == "critic" else (self.state, self.tx)
        base = self.base if lora else None
        besides += f", adapters of rank {lora.rank}" if lora else ""
        if not rl.is_packed(batch):
            args = state, self.model, tx, objective, compute, batch, lora, base
            name = f"{kind} update of {_size(batch)}{besides}"
            return (DeviceProgram(name, partial(rl.single_batch_step.trace, *args), kept),)
        sums = rl.shape_of_sums(state.params, objective, self.mesh)
        args = state.params, self.model, objective, compute, batch, sums, lora, base
        gradient = DeviceProgram(
            f"gradient of {_size(batch)}, {kind}{besides}",
            partial(rl.accumulate.trace, *args),
            device_bytes(state.opt_state) + kept,
        )
        step = DeviceProgram(
            f"step along it, {kind}{besides}",
            partial(rl.apply.trace, state, self.model, tx, sums, lora),
            kept + (device_bytes(base) if lora else 0),
        )
        return gradient, step

    def _rows(self) -> tuple[AnswerRows | PrefixBatch, jax.ShapeDtypeStruct]:
        """Rows of prompts with answers, or of answers behind prompts, and an array of a number for each token."""
        count, length, prompts = self._shape(self.training.tokens)
        array = programs.row_arrays(self.mesh, count)
        packed = self.training.tokens > 0
        if prompts:
            rows = programs.prefix_batch(self.mesh, count, prompts, self.engine.max_prompt_len - 1, length)
        else:
            more = (array(I32, count, length),) * 3 if packed else ()
            rows = AnswerRows(array(I32, count, length), array(bool, count, length), *more)
        images, patches = self._images(self.training.tokens)
        if images:
            of = (prompts, self.engine.max_prompt_len - 1) if prompts else (count, length)
            seen = programs.seen_rows(self.mesh, self.model.vision, of, images, patches)
            rows = rows._replace(seen=seen._replace(delta_B=None) if packed else seen)
        return rows, array(F32, count, length)

    def _segments(self) -> tuple[DeviceProgram, ...]:
        """What draws segments: a prompt may be one with most of its answer, which asks for a larger cache."""
        model, mesh, segment = self.model, self.mesh, self.recipe.segment
        engine = segment_engine_config(self.engine, self.engine.max_prompt_len + self.answer_len)
        sizes = shapes_of(engine, mesh, min(segment, self.answer_len))
        drawing = (
            programs.prefill(model, engine, sizes, mesh, sizes.prefill_lengths[-1]),
            programs.decode_window(model, sizes, mesh, sizes.buckets[-1]),
        )
        kind, beside = f"segments of {segment:,} tokens", self.beside_sampler(hosts=1)
        return tuple(p._replace(name=f"{p.name}, {kind}", resident=beside) for p in drawing)


def _size(batch: Any) -> str:
    rows = batch.rows
    count, length = batch.weight_BT.shape
    # The prompts of a prefix batch stand apart; what is computed is as long as if they did not.
    length += rows.prefix_PS.shape[1] + 1 if isinstance(rows, PrefixBatch) else 0
    shown = rows.seen.images.patches_INC.shape if rows.seen else None
    return f"{count} x {length:,} tokens" + (f" with {shown[0]} images of {shown[1]:,} patches" if shown else "")


def abstract_state(
    model: ModelConfig,
    mesh: AnyMesh,
    tx: optax.GradientTransformation,
    param_dtype: str,
    lora: rl.Lora | None,
    is_critic: bool = False,
) -> rl.TrainState:
    """A train state where rl.init_state lays it: moments as the parameters, or adapters, scalars everywhere."""
    whole = rl.critic_specs(model) if is_critic else parameter_specs(model)
    specs = adapter_specs(model, lora) if lora else whole
    params = programs.abstract(specs, "float32" if lora else param_dtype or model.dtype, mesh)

    def scalar(x: Any) -> jax.ShapeDtypeStruct:
        return programs.replicated(x, mesh)

    def like(x: Any, parameter: Any) -> jax.ShapeDtypeStruct:
        return programs.placed(x, parameter.sharding) if x.shape == parameter.shape else scalar(x)

    moments = optax.tree_utils.tree_map_params(
        tx, like, jax.eval_shape(tx.init, params), params, transform_non_params=scalar
    )
    return rl.TrainState(params, moments, scalar(jax.ShapeDtypeStruct((), I32)))
