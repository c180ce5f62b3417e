"""PPO's values: a linear map of a decoder's last hidden state.

The *probe* is such a map of the policy's own states, which it does not train. The full *critic* is a decoder of its
own, begun from the policy's start and trained with the map on top of it, as in veRL (Sheng et al. 2024, arXiv
2409.19256); it is a TrainState, updated by the programs of update.py. Legend: decoder.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from rlvr_limit.distributed.mesh import mesh_of, replicated
from rlvr_limit.models import decoder, log_probs
from rlvr_limit.models.decoder import ModelConfig, ParameterSpec, Params, parameter_specs
from rlvr_limit.models.log_probs import AnswerRows, PrefixBatch
from rlvr_limit.rl import losses
from rlvr_limit.rl.batch import Objective, PolicyBatch

HEAD, UNEMBEDDING = "value_head", "unembedding"
"""What a critic has among its parameters, and what it has not."""


class ValueState(flax.struct.PyTreeNode):
    """The probe, weight_D and bias, float32, and its optimizer's state."""

    head: Params
    opt_state: Any


def head_specs(config: ModelConfig) -> Params:
    """A map to 0, with which either kind begins; whole on every device."""
    return {"weight_D": ParameterSpec((config.width,), (None,), 0.0), "bias": ParameterSpec((), (), 0.0)}


def init_value(config: ModelConfig, params: Params, tx: optax.GradientTransformation) -> ValueState:
    """A probe that predicts 0 everywhere, on every device of the mesh of params."""
    head = decoder.init_from_specs(head_specs(config), jax.random.key(0), "float32")
    return jax.device_put(ValueState(head, tx.init(head)), replicated(mesh_of(params)))


def critic_specs(config: ModelConfig) -> Params:
    """The tree of ParameterSpec of a critic of a policy with this config."""
    return _with_head(parameter_specs(config), head_specs(config))


def critic_params(config: ModelConfig, start: Params) -> Params:
    """A critic that predicts 0 everywhere, from the arrays of start."""
    return _with_head(start, decoder.init_from_specs(head_specs(config), jax.random.key(0), config.dtype))


def _with_head(params: Params, head: Params) -> Params:
    return {name: x for name, x in params.items() if name != UNEMBEDDING} | {HEAD: head}


def values(
    params: Params,
    head: Params,
    config: ModelConfig,
    rows: AnswerRows | PrefixBatch,
    remat: str = "none",
    grad_sums: list[Params] | None = None,
) -> jax.Array:
    """V of each answer token's state, which is all that stands before the token: [B, T] float32, 0 elsewhere.

    Of a decoder's parameters and a head; remat, grad_sums: see decoder.forward.
    """
    hidden_BTD = log_probs.hidden_states(params, config, rows, remat, grad_sums).astype(jnp.float32)
    with decoder.matmul_precision(jnp.float32):
        value_BT = hidden_BTD @ head["weight_D"].astype(jnp.float32) + head["bias"].astype(jnp.float32)
    return log_probs.at_answer_tokens(rows, value_BT)


@partial(jax.jit, static_argnums=2)
def answer_values(params: Params, head: Params, config: ModelConfig, rows: AnswerRows | PrefixBatch) -> jax.Array:
    """values as a program of its own."""
    return values(params, head, config, rows)


def value_loss(value_BT: jax.Array, batch: PolicyBatch, objective: Objective) -> jax.Array:
    """sum_t weight_t * value_objective_t."""
    return jnp.sum(batch.weight_BT * losses.value_objective(value_BT, batch, objective))


def value_update(
    state: ValueState,
    params: Params,
    config: ModelConfig,
    tx: optax.GradientTransformation,
    objective: Objective,
    batches: Sequence[PolicyBatch],
) -> tuple[ValueState, jax.Array]:
    """One step of the probe on value_loss over all batches, which have one shape, and that loss. state is donated."""
    parts = [value_gradient(state.head, params, config, objective, batch) for batch in batches]
    loss, gradient = jax.tree.map(lambda first, *rest: sum(rest, first), *parts)
    return _apply(state, tx, gradient), loss


@partial(jax.jit, static_argnums=(2, 3))
def value_gradient(
    head: Params, params: Params, config: ModelConfig, objective: Objective, batch: PolicyBatch
) -> tuple[jax.Array, Params]:
    """(loss, gradient of the probe) of one microbatch."""

    def loss_of(head: Params) -> jax.Array:
        return value_loss(values(params, head, config, batch.rows), batch, objective)

    return jax.value_and_grad(loss_of)(head)


@partial(jax.jit, static_argnums=1, donate_argnums=0)
def _apply(state: ValueState, tx: optax.GradientTransformation, gradient: Params) -> ValueState:
    changes, opt_state = tx.update(gradient, state.opt_state, state.head)
    return ValueState(optax.apply_updates(state.head, changes), opt_state)
