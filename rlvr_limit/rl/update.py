"""Train state and its updates: one supervised step, one policy-gradient step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from rlvr_limit.likelihood import Rows, answer_logprobs
from rlvr_limit.mesh import constrain, everywhere, mesh_of
from rlvr_limit.model import ModelConfig, ParameterSpec, Params, parameter_specs
from rlvr_limit.rl import losses
from rlvr_limit.rl.batch import Objective, PolicyBatch
from rlvr_limit.types import UserError


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with linear warm-up; decay = "cosine" falls to a tenth of the peak by the last step, "constant" stays."""

    learning_rate: float
    warmup: int = 20
    decay: str = "constant"
    weight_decay: float = 0.0
    b2: float = 0.95
    clip_norm: float = 1.0


class TrainState(flax.struct.PyTreeNode):
    """Everything a run needs to go on; data and random numbers follow from step."""

    params: Params
    opt_state: Any
    step: jax.Array


def optimizer(config: OptimizerConfig, updates: int) -> optax.GradientTransformation:
    """The Optax chain of a run of `updates` updates. Raises UserError for an unknown decay."""
    if config.decay == "cosine":
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, config.learning_rate, config.warmup, max(updates, config.warmup + 1), 0.1 * config.learning_rate
        )
    elif config.decay == "constant":
        # Optax reads a ramp of 0 steps as one that never leaves its start.
        first = 0.0 if config.warmup else config.learning_rate
        schedule = optax.linear_schedule(first, config.learning_rate, config.warmup)
    else:
        raise UserError(f'optimizer.decay is {config.decay!r}, but "constant" or "cosine" is right')
    adam = optax.adamw(schedule, b2=config.b2, weight_decay=config.weight_decay)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), adam)


def init_state(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """A fresh state at step 0; params are copied, since updates give their buffers away.

    Everything lies on the mesh of params as an update leaves it, or the second update would compile again.
    """
    params = jax.tree.map(jnp.asarray, params)
    scalars = everywhere(mesh_of(params))

    def place(x: jax.Array, like: jax.Array) -> jax.Array:
        return jax.device_put(x, like.sharding if isinstance(like.sharding, NamedSharding) else scalars)

    params = jax.tree.map(lambda x: jnp.copy(place(x, x)), params)
    step = jax.device_put(jnp.zeros((), jnp.int32), scalars)
    opt_state = optax.tree_utils.tree_map_params(
        tx, place, tx.init(params), params, transform_non_params=lambda x: jax.device_put(x, scalars)
    )
    return TrainState(params, opt_state, step)


def _apply(
    state: TrainState, config: ModelConfig, grads: Params, tx: optax.GradientTransformation
) -> tuple[TrainState, jax.Array]:
    """The next state, lying where init_state put the first one: elsewhere, the next update would compile again."""
    specs = parameter_specs(config)

    def place(x: jax.Array, spec: ParameterSpec) -> jax.Array:
        return constrain(x, *spec.axes)

    changes, opt_state = tx.update(grads, state.opt_state, state.params)
    params = jax.tree.map(place, optax.apply_updates(state.params, changes), specs)
    opt_state = optax.tree_utils.tree_map_params(tx, place, opt_state, specs, transform_non_params=constrain)
    return TrainState(params, opt_state, constrain(state.step + 1)), optax.tree.norm(grads)


@partial(jax.jit, static_argnums=(1, 2), donate_argnums=0)
def supervised_update(
    state: TrainState, config: ModelConfig, tx: optax.GradientTransformation, rows: Rows
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step on -log P(answer | prompt); metrics: loss (nats a token), grad_norm."""

    def loss_of(params: Params) -> jax.Array:
        return losses.negative_log_likelihood(answer_logprobs(params, config, rows)[0], rows.answer_BT)

    loss, grads = jax.value_and_grad(loss_of)(state.params)
    state, norm = _apply(state, config, grads, tx)
    return state, {"loss": loss, "grad_norm": norm}


@partial(jax.jit, static_argnums=(1, 2, 3), donate_argnums=0)
def policy_update(
    state: TrainState, config: ModelConfig, tx: optax.GradientTransformation, objective: Objective, batch: PolicyBatch
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One policy-gradient step. Metrics: loss, grad_norm, entropy (nats a token, of the whole distribution), kl_sampler
    (k3 estimate of KL(sampler || trainer), Schulman 2020), max_delta_logp, ratio (mean over tokens, 1 on policy) and
    clipped (share of tokens outside the clip)."""
    answer = batch.rows.answer_BT
    count = jnp.maximum(jnp.sum(answer), 1)

    def loss_of(params: Params) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        logp, entropy = answer_logprobs(params, config, batch.rows)
        loss = jnp.sum(batch.weight_BT * losses.token_objective(logp, batch, objective))
        return loss, (jax.lax.stop_gradient(logp), jnp.sum(entropy) / count)

    (loss, (logp, entropy)), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    state, norm = _apply(state, config, grads, tx)
    delta = jnp.where(answer, logp - batch.behaviour_BT, 0.0)
    return state, {
        "loss": loss,
        "grad_norm": norm,
        "entropy": entropy,
        "kl_sampler": jnp.sum(jnp.exp(delta) - 1 - delta) / count,
        "max_delta_logp": jnp.max(jnp.abs(delta)),
        "ratio": jnp.sum(jnp.where(answer, jnp.exp(delta), 0.0)) / count,
        "clipped": jnp.sum((delta < jnp.log1p(-objective.clip_low)) | (delta > jnp.log1p(objective.clip_high))) / count,
    }
