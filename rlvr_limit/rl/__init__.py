"""Advantages, losses and updates of supervised and reinforcement learning."""

from rlvr_limit.rl.advantages import overlong_penalty
from rlvr_limit.rl.algorithms import ALGORITHMS, OVERLONG, Algorithm, Rewards, advantage
from rlvr_limit.rl.batch import Objective, PolicyBatch
from rlvr_limit.rl.losses import k3, token_weights
from rlvr_limit.rl.update import (
    OptimizerConfig,
    TrainState,
    init_state,
    optimizer,
    policy_update,
    supervised_update,
)
from rlvr_limit.rl.value import ActorCritic, ValueState, answer_values, init_value, value_update

__all__ = [
    "ALGORITHMS",
    "OVERLONG",
    "ActorCritic",
    "Algorithm",
    "Objective",
    "OptimizerConfig",
    "PolicyBatch",
    "Rewards",
    "TrainState",
    "ValueState",
    "advantage",
    "answer_values",
    "init_state",
    "init_value",
    "k3",
    "optimizer",
    "overlong_penalty",
    "policy_update",
    "supervised_update",
    "token_weights",
    "value_update",
]
