"""Advantages, losses and updates of supervised and reinforcement learning."""

from rlvr_limit.rl.losses import grpo_advantages
from rlvr_limit.rl.update import (
    OptimizerConfig,
    PolicyBatch,
    TrainState,
    init_state,
    optimizer,
    policy_update,
    supervised_update,
)

__all__ = [
    "OptimizerConfig",
    "PolicyBatch",
    "TrainState",
    "grpo_advantages",
    "init_state",
    "optimizer",
    "policy_update",
    "supervised_update",
]
