"""Advantages, losses and updates of supervised and reinforcement learning."""

from rlvr_limit.rl.advantages import overlong_penalty
from rlvr_limit.rl.algorithms import ALGORITHMS, OVERLONG, Algorithm, Rewards, advantage
from rlvr_limit.rl.batch import Objective, PolicyBatch
from rlvr_limit.rl.lora import Lora, init_adapters, merged
from rlvr_limit.rl.losses import k3, token_weights
from rlvr_limit.rl.optimizers import OptimizerConfig, optimizer
from rlvr_limit.rl.packing import behind_prompts, microbatch_shape, microbatches
from rlvr_limit.rl.update import (
    Compute,
    SupervisedBatch,
    TrainState,
    accumulate,
    accumulated_update,
    apply,
    init_state,
    no_sums,
    policy_update,
    supervised_update,
    weights,
)
from rlvr_limit.rl.value import ActorCritic, ValueState, answer_values, init_value, value_gradient, value_update

__all__ = [
    "ALGORITHMS",
    "OVERLONG",
    "ActorCritic",
    "Algorithm",
    "Compute",
    "Lora",
    "Objective",
    "OptimizerConfig",
    "PolicyBatch",
    "Rewards",
    "SupervisedBatch",
    "TrainState",
    "ValueState",
    "accumulate",
    "accumulated_update",
    "apply",
    "advantage",
    "answer_values",
    "behind_prompts",
    "init_adapters",
    "init_state",
    "init_value",
    "k3",
    "merged",
    "microbatch_shape",
    "microbatches",
    "no_sums",
    "optimizer",
    "overlong_penalty",
    "policy_update",
    "supervised_update",
    "token_weights",
    "value_gradient",
    "value_update",
    "weights",
]
