"""PPO's value head: a linear map of the decoder's last hidden state, with parameters and an optimizer of its own.

The decoder is not trained through it. Legend: decoder.py.
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
from rlvr_limit.models.decoder import ModelConfig, Params
from rlvr_limit.models.log_probs import AnswerRows, PrefixBatch
from rlvr_limit.rl import losses
from rlvr_limit.rl.batch import Objective, PolicyBatch
from rlvr_limit.rl.update import TrainState


class ValueState(flax.struct.PyTreeNode):
    """weight_D and bias, float32, and their optimizer's state."""

    head: dict[str, jax.Array]
    opt_state: Any


class ActorCritic(flax.struct.PyTreeNode):
    """What PPO trains: a policy as the other algorithms, and its value head."""

    policy: TrainState
    value: ValueState


def init_value(config: ModelConfig, params: Params, tx: optax.GradientTransformation) -> ValueState:
    """A head that predicts 0 everywhere, on every device of the mesh of params."""
    head = {"weight_D": jnp.zeros(config.width, jnp.float32), "bias": jnp.zeros((), jnp.float32)}
    return jax.device_put(ValueState(head, tx.init(head)), replicated(mesh_of(params)))


@partial(jax.jit, static_argnums=2)
def answer_values(
    params: Params, head: dict[str, jax.Array], config: ModelConfig, rows: AnswerRows | PrefixBatch
) -> jax.Array:
    """V of each answer token's state, which is all that stands before the token: [B, T] float32, 0 elsewhere."""
    hidden_BTD = jax.lax.stop_gradient(log_probs.hidden_states(params, config, rows)).astype(jnp.float32)
    with decoder.matmul_precision(jnp.float32):
        value_BT = hidden_BTD @ head["weight_D"] + head["bias"]
    return log_probs.at_answer_tokens(rows, value_BT)


def value_update(
    state: ValueState,
    params: Params,
    config: ModelConfig,
    tx: optax.GradientTransformation,
    objective: Objective,
    batches: Sequence[PolicyBatch],
) -> tuple[ValueState, jax.Array]:
    """One step of the head on sum_t weight_t * value_objective_t over all batches, which have one shape; and that loss.

    state is given away.
    """
    parts = [value_gradient(state.head, params, config, objective, batch) for batch in batches]
    loss, gradient = jax.tree.map(lambda first, *rest: sum(rest, first), *parts)
    return _apply(state, tx, gradient), loss


@partial(jax.jit, static_argnums=(2, 3))
def value_gradient(
    head: dict[str, jax.Array], params: Params, config: ModelConfig, objective: Objective, batch: PolicyBatch
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """(loss, gradient of the head) of one microbatch."""

    def loss_of(head: dict[str, jax.Array]) -> jax.Array:
        value_BT = answer_values(params, head, config, batch.rows)
        return jnp.sum(batch.weight_BT * losses.value_objective(value_BT, batch, objective))

    return jax.value_and_grad(loss_of)(head)


@partial(jax.jit, static_argnums=1, donate_argnums=0)
def _apply(state: ValueState, tx: optax.GradientTransformation, gradient: dict[str, jax.Array]) -> ValueState:
    changes, opt_state = tx.update(gradient, state.opt_state, state.head)
    return ValueState(optax.apply_updates(state.head, changes), opt_state)
