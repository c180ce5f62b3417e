"""Train state and its updates: a gradient summed over microbatches of one shape, then one step along it.

A loss is sum_t weight_t * token_objective_t, with weights made once for the whole step. So sums over microbatches are
the sums over the step, and how it is cut changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from rlvr_limit.distributed.mesh import constrain, mesh_of, replicated
from rlvr_limit.models.decoder import ModelConfig, ParameterSpec, Params, parameter_specs
from rlvr_limit.models.log_probs import AnswerRows, answer_log_probs, packed_positions
from rlvr_limit.rl import losses, value
from rlvr_limit.rl.batch import Objective, PolicyBatch, SupervisedBatch
from rlvr_limit.rl.lora import Lora, adapter_specs, attached

Batch = PolicyBatch | SupervisedBatch
Metrics = dict[str, jax.Array]

PER_TOKEN = ("entropy", "kl_sampler", "ratio", "clipped")
"""Metrics that are means over answer tokens; microbatches hold their sums."""

WIDE = 4
"""A vocabulary of so many times the model's width is wide: computing logits at answer tokens alone pays from there."""


@dataclass(frozen=True)
class Compute:
    """What a gradient keeps in memory; static under jit. It changes nothing but rounding."""

    remat: str = "none"  # one of layers.REMAT
    max_live_logits: int = 2**25  # of a device at a time; 128 MB in float32
    trains_vision: bool = True  # else the vision tower's gradient is 0, and is not computed
    logit_positions: int | None = None  # `packed` of log_probs.answer_log_probs; None: prompts and padding too

    def at_answers(self, config: ModelConfig, batches: Sequence[Batch], shards: int) -> Compute:
        """The same with logits at about as many places as these batches, of so many shards, have answer tokens."""
        if config.vocab_size < WIDE * config.width:
            return self
        counts = [
            packed_positions(config, b.rows.answer_BT, shards, max_live_logits=self.max_live_logits) for b in batches
        ]
        return replace(self, logit_positions=max(counts))


class TrainState(flax.struct.PyTreeNode):
    """Everything a run needs to go on; data and random numbers follow from step."""

    params: Params
    opt_state: Any
    step: jax.Array


class ActorCritic(flax.struct.PyTreeNode):
    """What PPO trains: a policy as the other algorithms, and a probe, or a critic."""

    policy: TrainState
    value: value.ValueState | TrainState


class GradientSums(flax.struct.PyTreeNode):
    """What microbatches add up: the gradient, float32, and metrics over their answer tokens (max_*: the largest)."""

    gradient: Params
    metrics: Metrics


def init_state(params: Params, tx: optax.GradientTransformation, dtype: str = "") -> TrainState:
    """A fresh state at step 0; params are copied, since updates donate their buffers.

    dtype: what the state's weights are kept in, "" for what they come in. Everything lies on the mesh of params as an
    update leaves it, or the second update would compile again.
    """
    params = jax.tree.map(jnp.asarray, params)
    scalars = replicated(mesh_of(params))

    def place(x: jax.Array, like: jax.Array) -> jax.Array:
        is_alike = isinstance(like.sharding, NamedSharding) and x.shape == like.shape
        return jax.device_put(x, like.sharding if is_alike else scalars)

    params = jax.tree.map(lambda x: jnp.copy(place(x, x)).astype(dtype or x.dtype), params)
    step = jax.device_put(jnp.zeros((), jnp.int32), scalars)
    opt_state = optax.tree_utils.tree_map_params(
        tx, place, tx.init(params), params, transform_non_params=lambda x: jax.device_put(x, scalars)
    )
    return TrainState(params, opt_state, step)


def weights(state: TrainState, config: ModelConfig) -> Params:
    """The state's weights in the model's own dtype; the same arrays where they are kept in it."""
    if all(x.dtype == config.dtype for x in jax.tree.leaves(state.params)):
        return state.params
    return _cast(state.params, config.dtype)


@partial(jax.jit, static_argnums=1)
def _cast(params: Params, dtype: str) -> Params:
    return jax.tree.map(lambda x: x.astype(dtype), params)


def train_step(
    state: TrainState,
    config: ModelConfig,
    tx: optax.GradientTransformation,
    objective: Objective | None,
    batches: Sequence[Batch],
    compute: Compute = Compute(),
    lora: Lora | None = None,
    base: Params | None = None,
) -> tuple[TrainState, Metrics]:
    """One optimizer step on all batches, which have one shape. state is donated.

    objective None: the loss is -log P(answer | prompt). With lora, state.params are adapters of the parameters `base`.
    Where they are a critic's, the loss is value_loss, and there are no metrics but loss and grad_norm.
    Metrics: loss and grad_norm; with an objective also entropy (nats a token, of the whole distribution), kl_sampler
    (k3 estimate of KL(sampler || trainer), Schulman 2020), max_delta_logp, ratio (mean over tokens, 1 on policy) and
    clipped (share of tokens outside the clip).
    """
    if len(batches) == 1 and not is_packed(batches[0]):
        return single_batch_step(state, config, tx, objective, compute, batches[0], lora, base)
    sums = zero_sums(state.params, objective)
    for batch in batches:
        sums = accumulate(state.params, config, objective, compute, batch, sums, lora, base)
    return apply(state, config, tx, sums, lora)


def is_packed(batch: Batch) -> bool:
    """Whether a row holds several sequences. A step has any number of such batches, so one is no program of its own."""
    return isinstance(batch.rows, AnswerRows) and batch.rows.segment_BT is not None


@partial(jax.jit, static_argnums=(1, 2, 3, 4, 6), donate_argnums=0)
def single_batch_step(
    state: TrainState,
    config: ModelConfig,
    tx: optax.GradientTransformation,
    objective: Objective | None,
    compute: Compute,
    batch: Batch,
    lora: Lora | None = None,
    base: Params | None = None,
) -> tuple[TrainState, Metrics]:
    """The update of a step that is one batch, as one program."""
    return apply(state, config, tx, _gradient(state.params, config, objective, compute, batch, lora, base), lora)


@partial(jax.jit, static_argnums=(1, 2, 3, 6), donate_argnums=5)
def accumulate(
    params: Params,
    config: ModelConfig,
    objective: Objective | None,
    compute: Compute,
    batch: Batch,
    sums: GradientSums,
    lora: Lora | None = None,
    base: Params | None = None,
) -> GradientSums:
    """sums and what a batch adds to them. sums is donated."""
    old = sums.gradient
    # The gradient of a layer is added on the way: those of all layers would else lie there until the end.
    inside = lora is None and all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    new = _gradient(params, config, objective, compute, batch, lora, base, old["layers"] if inside else None)
    if inside:
        old = old | {"layers": jax.tree.map(lambda _: None, old["layers"])}

    def add(spec: ParameterSpec, new: jax.Array, old: jax.Array | None) -> jax.Array:
        return constrain(new if old is None else old + new.astype(old.dtype), *spec.axes)

    def join(name: str) -> jax.Array:
        both = sums.metrics[name], new.metrics[name]
        return constrain(jnp.maximum(*both) if name.startswith("max_") else sum(both))

    specs = _specs(params, config, lora)
    gradient = jax.tree.map(add, specs, new.gradient, old, is_leaf=lambda x: isinstance(x, ParameterSpec))
    return GradientSums(gradient, {name: join(name) for name in new.metrics})


@partial(jax.jit, static_argnums=(1, 2, 4), donate_argnums=0)
def apply(
    state: TrainState,
    config: ModelConfig,
    tx: optax.GradientTransformation,
    sums: GradientSums,
    lora: Lora | None = None,
) -> tuple[TrainState, Metrics]:
    """The step along a summed gradient, and the metrics of all batches. state is donated.

    The next state lies where init_state put the first one: elsewhere, the next update would compile again.
    """
    specs = _specs(state.params, config, lora)

    def place(x: jax.Array, spec: ParameterSpec) -> jax.Array:
        # An optimizer may keep less of a parameter than one number for each of its own.
        return constrain(x, *(spec.axes if x.shape == spec.shape else [None] * x.ndim))

    gradient = jax.tree.map(lambda x, like: x.astype(like.dtype), sums.gradient, state.params)
    changes, opt_state = tx.update(gradient, state.opt_state, state.params)
    params = jax.tree.map(place, optax.apply_updates(state.params, changes), specs)
    opt_state = optax.tree_utils.tree_map_params(tx, place, opt_state, specs, transform_non_params=constrain)
    metrics = dict(sums.metrics)
    count = jnp.maximum(metrics.pop("tokens", 1.0), 1.0)
    metrics = {name: x / count if name in PER_TOKEN else x for name, x in metrics.items()}
    metrics["grad_norm"] = optax.tree.norm(sums.gradient)
    return TrainState(params, opt_state, constrain(state.step + 1)), metrics


def zero_sums(params: Params, objective: Objective | None) -> GradientSums:
    """Sums over no batch, lying as those over one do."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), shape_of_sums(params, objective))


def shape_of_sums(params: Params, objective: Objective | None, mesh: Mesh | AbstractMesh | None = None) -> GradientSums:
    """ShapeDtypeStructs of sums; mesh: that of params, if they are abstract."""

    def like(shape: tuple[int, ...], sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

    gradient = jax.tree.map(lambda x: like(x.shape, x.sharding), params)
    names = ("loss",) if objective is None or _is_critic(params) else ("loss", "tokens", *PER_TOKEN, "max_delta_logp")
    scalars = replicated(mesh or mesh_of(params))
    return GradientSums(gradient, {name: like((), scalars) for name in names})


def _gradient(
    params: Params,
    config: ModelConfig,
    objective: Objective | None,
    compute: Compute,
    batch: Batch,
    lora: Lora | None,
    base: Params | None,
    layer_sums: list[Params] | None = None,
) -> GradientSums:
    def loss_of(trained: Params) -> tuple[jax.Array, Metrics]:
        if not compute.trains_vision and "vision" in trained:
            trained = trained | {"vision": jax.lax.stop_gradient(trained["vision"])}
        if _is_critic(params):
            head = trained[value.HEAD]
            value_BT = value.values(trained, head, config, batch.rows, compute.remat, layer_sums)
            loss = value.value_loss(value_BT, batch, objective)
            return loss, {"loss": loss}
        logp, entropy = answer_log_probs(
            trained if lora is None else attached(base, trained, lora),
            config,
            batch.rows,
            packed=compute.logit_positions,
            max_live_logits=compute.max_live_logits,
            remat=compute.remat,
            grad_sums=layer_sums,
        )
        entropy = jax.lax.stop_gradient(entropy)
        objective_BT = -logp if objective is None else losses.token_objective(logp, batch, objective)
        loss = jnp.sum(batch.weight_BT * objective_BT)
        return loss, {"loss": loss} | _token_metrics(jax.lax.stop_gradient(logp), entropy, batch, objective)

    return GradientSums(*jax.grad(loss_of, has_aux=True)(params))


def _token_metrics(logp_BT: jax.Array, entropy_BT: jax.Array, batch: Batch, objective: Objective | None) -> Metrics:
    """Sums over answer tokens, and their number."""
    if objective is None:
        return {}
    answer = batch.rows.answer_BT
    delta = jnp.where(answer, logp_BT - batch.behaviour_BT, 0.0)
    log_ratio = losses.log_ratio(delta, 0.0)
    taken = losses.policy_log_ratio(logp_BT, batch.behaviour_BT, batch.rows, objective.ratio)
    outside = answer & ((taken < jnp.log1p(-objective.clip_low)) | (taken > jnp.log1p(objective.clip_high)))
    return {
        "tokens": jnp.sum(answer, dtype=jnp.float32),
        "entropy": jnp.sum(entropy_BT),
        "kl_sampler": jnp.sum(jnp.exp(log_ratio) - 1 - log_ratio),
        "max_delta_logp": jnp.max(jnp.abs(delta)),
        "ratio": jnp.sum(jnp.where(answer, jnp.exp(taken), 0.0)),
        "clipped": jnp.sum(outside, dtype=jnp.float32),
    }


def _is_critic(params: Params) -> bool:
    return value.HEAD in params


def _specs(params: Params, config: ModelConfig, lora: Lora | None) -> Params:
    if _is_critic(params):
        return value.critic_specs(config)
    return parameter_specs(config) if lora is None else adapter_specs(config, lora)
