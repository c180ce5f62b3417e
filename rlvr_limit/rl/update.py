"""Train state and its updates: a gradient summed over microbatches of one shape, then one step along it.

A loss is sum_t weight_t * token_objective_t with weights made once for the whole step, so that sums over microbatches
are the sums over the step: how it is cut changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
from rlvr_limit.rl import losses
from rlvr_limit.rl.batch import Objective, PolicyBatch
from rlvr_limit.rl.lora import Lora, adapter_specs, attached

Metrics = dict[str, jax.Array]

PER_TOKEN = ("entropy", "kl_sampler", "ratio", "clipped")
"""Metrics that are means over answer tokens; microbatches hold their sums."""


WIDE = 4
"""Tokens of a vocabulary for each of the model's width from which on logits are worth choosing."""


@dataclass(frozen=True)
class Compute:
    """What a gradient keeps in memory; static under jit, and without influence on the result but for rounding.

    remat: one of model.REMAT. held: logits that a device holds at a time; 2**25 are 128 MB in float32. packed: as of
    log_probs.answer_log_probs, None: the vocabulary is gone through at every place, prompts and padding included.
    """

    remat: str = "none"
    held: int = 2**25
    packed: int | None = None

    def packed_for(self, config: ModelConfig, batches: Sequence[PolicyBatch | SupervisedBatch], shards: int) -> Compute:
        """The same for answers of these batches on the host, their rows cut into so many shards.

        Where the vocabulary is narrow, choosing places costs more than they do.
        """
        if config.vocab_size < WIDE * config.width:
            return self
        answers = [batch.rows.answer_BT for batch in batches]
        return replace(
            self, packed=max(packed_positions(config, x, shards, max_live_logits=self.held) for x in answers)
        )


class TrainState(flax.struct.PyTreeNode):
    """Everything a run needs to go on; data and random numbers follow from step."""

    params: Params
    opt_state: Any
    step: jax.Array


class SupervisedBatch(flax.struct.PyTreeNode):
    """Demonstrations, and what each token's -log P counts in the loss, float32 [B, T]; 0 outside answers."""

    rows: AnswerRows
    weight_BT: jax.Array


class Sums(flax.struct.PyTreeNode):
    """What microbatches add up: the gradient, float32, and metrics over their answer tokens (max_*: the largest)."""

    gradient: Params
    metrics: Metrics


def init_state(params: Params, tx: optax.GradientTransformation, dtype: str = "") -> TrainState:
    """A fresh state at step 0; params are copied, since updates give their buffers away.

    dtype: what the state's weights are kept in, "" for what they come in. "float32" for a model that computes in
    bfloat16 keeps changes that are too small for bfloat16 weights. Everything lies on the mesh of params as an update
    leaves it, or the second update would compile again.
    """
    params = jax.tree.map(jnp.asarray, params)
    scalars = replicated(mesh_of(params))

    def place(x: jax.Array, like: jax.Array) -> jax.Array:
        mine = isinstance(like.sharding, NamedSharding) and x.shape == like.shape
        return jax.device_put(x, like.sharding if mine else scalars)

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
    return _rounded(state.params, config.dtype)


@partial(jax.jit, static_argnums=1)
def _rounded(params: Params, dtype: str) -> Params:
    return jax.tree.map(lambda x: x.astype(dtype), params)


def accumulated_update(
    state: TrainState,
    config: ModelConfig,
    tx: optax.GradientTransformation,
    objective: Objective | None,
    batches: Iterable[PolicyBatch | SupervisedBatch],
    compute: Compute = Compute(),
    lora: Lora | None = None,
    base: Params | None = None,
) -> tuple[TrainState, Metrics]:
    """One optimizer step over microbatches of one shape, one compiled program for all of them and one for the step.

    Equal to policy_update (supervised_update where objective is None) of all of them at once, metrics included, but for
    rounding. state is given away. With lora, state.params are adapters of the parameters `base`.
    """
    sums = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), no_sums(state.params, objective))
    for batch in batches:
        sums = accumulate(state.params, config, objective, compute, batch, sums, lora, base)
    return apply(state, config, tx, sums, lora)


@partial(jax.jit, static_argnums=(1, 2, 3, 6), donate_argnums=5)
def accumulate(
    params: Params,
    config: ModelConfig,
    objective: Objective | None,
    compute: Compute,
    batch: PolicyBatch | SupervisedBatch,
    sums: Sums,
    lora: Lora | None = None,
    base: Params | None = None,
) -> Sums:
    """sums and what a microbatch adds to them; objective None: the supervised loss. sums is given away."""
    old = sums.gradient
    # The gradient of a layer is added on the way: those of all layers would else lie there until the end.
    inside = lora is None and all(x.dtype == jnp.float32 for x in jax.tree.leaves(params))
    found = _sums(params, config, objective, compute, batch, lora, base, old["layers"] if inside else None)
    if inside:
        old = old | {"layers": jax.tree.map(lambda _: None, old["layers"])}

    def add(spec: ParameterSpec, new: jax.Array, old: jax.Array | None) -> jax.Array:
        return constrain(new if old is None else old + new.astype(old.dtype), *spec.axes)

    def join(name: str) -> jax.Array:
        both = sums.metrics[name], found.metrics[name]
        return constrain(jnp.maximum(*both) if name.startswith("max_") else sum(both))

    specs = _specs(config, lora)
    gradient = jax.tree.map(add, specs, found.gradient, old, is_leaf=lambda x: isinstance(x, ParameterSpec))
    return Sums(gradient, {name: join(name) for name in found.metrics})


@partial(jax.jit, static_argnums=(1, 2, 4), donate_argnums=0)
def apply(
    state: TrainState, config: ModelConfig, tx: optax.GradientTransformation, sums: Sums, lora: Lora | None = None
) -> tuple[TrainState, Metrics]:
    """The step along a summed gradient, and the metrics of all microbatches. state is given away."""
    return _apply(state, config, tx, sums, lora)


@partial(jax.jit, static_argnums=(1, 2, 4), donate_argnums=0)
def supervised_update(
    state: TrainState,
    config: ModelConfig,
    tx: optax.GradientTransformation,
    rows: AnswerRows,
    compute: Compute = Compute(),
) -> tuple[TrainState, Metrics]:
    """One step on -log P(answer | prompt) as one program; metrics: loss (nats a token), grad_norm."""
    weight_BT = rows.answer_BT / jnp.maximum(jnp.sum(rows.answer_BT), 1)
    batch = SupervisedBatch(rows, weight_BT)
    return _apply(state, config, tx, _sums(state.params, config, None, compute, batch))


@partial(jax.jit, static_argnums=(1, 2, 3, 5), donate_argnums=0)
def policy_update(
    state: TrainState,
    config: ModelConfig,
    tx: optax.GradientTransformation,
    objective: Objective,
    batch: PolicyBatch,
    compute: Compute = Compute(),
) -> tuple[TrainState, Metrics]:
    """One policy-gradient step as one program. Metrics: loss, grad_norm, entropy (nats a token, of the whole
    distribution), kl_sampler (k3 estimate of KL(sampler || trainer), Schulman 2020), max_delta_logp, ratio (mean over
    tokens, 1 on policy) and clipped (share of tokens outside the clip)."""
    return _apply(state, config, tx, _sums(state.params, config, objective, compute, batch))


def _sums(
    params: Params,
    config: ModelConfig,
    objective: Objective | None,
    compute: Compute,
    batch: PolicyBatch | SupervisedBatch,
    lora: Lora | None = None,
    base: Params | None = None,
    sums: list[Params] | None = None,
) -> Sums:
    def loss_of(trained: Params) -> tuple[jax.Array, Metrics]:
        params = trained if lora is None else attached(base, trained, lora)
        found = answer_log_probs(
            params,
            config,
            batch.rows,
            packed=compute.packed,
            max_live_logits=compute.held,
            remat=compute.remat,
            grad_sums=sums,
        )
        logp, entropy = found[0], jax.lax.stop_gradient(found[1])
        objective_BT = -logp if objective is None else losses.token_objective(logp, batch, objective)
        loss = jnp.sum(batch.weight_BT * objective_BT)
        return loss, {"loss": loss} | _token_metrics(jax.lax.stop_gradient(logp), entropy, batch, objective)

    return Sums(*jax.grad(loss_of, has_aux=True)(params))


def _token_metrics(
    logp_BT: jax.Array, entropy_BT: jax.Array, batch: PolicyBatch | SupervisedBatch, objective: Objective | None
) -> Metrics:
    """Sums over answer tokens, and their number."""
    if objective is None:
        return {}
    answer = batch.rows.answer_BT
    delta = jnp.where(answer, logp_BT - batch.behaviour_BT, 0.0)
    outside = (delta < jnp.log1p(-objective.clip_low)) | (delta > jnp.log1p(objective.clip_high))
    return {
        "tokens": jnp.sum(answer, dtype=jnp.float32),
        "entropy": jnp.sum(entropy_BT),
        "kl_sampler": jnp.sum(jnp.exp(delta) - 1 - delta),
        "max_delta_logp": jnp.max(jnp.abs(delta)),
        "ratio": jnp.sum(jnp.where(answer, jnp.exp(delta), 0.0)),
        "clipped": jnp.sum(outside, dtype=jnp.float32),
    }


def no_sums(params: Params, objective: Objective | None, mesh: Mesh | AbstractMesh | None = None) -> Sums:
    """Shapes of sums over microbatches, lying as those over one do; mesh: that of params, if they are abstract."""

    def like(shape: tuple[int, ...], sharding: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=sharding)

    gradient = jax.tree.map(lambda x: like(x.shape, x.sharding), params)
    names = ("loss",) if objective is None else ("loss", "tokens", *PER_TOKEN, "max_delta_logp")
    place = replicated(mesh or mesh_of(params))
    return Sums(gradient, {name: like((), place) for name in names})


def _specs(config: ModelConfig, lora: Lora | None) -> Params:
    return parameter_specs(config) if lora is None else adapter_specs(config, lora)


def _apply(
    state: TrainState, config: ModelConfig, tx: optax.GradientTransformation, sums: Sums, lora: Lora | None = None
) -> tuple[TrainState, Metrics]:
    """The next state, lying where init_state put the first one: elsewhere, the next update would compile again."""
    specs = _specs(config, lora)

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
