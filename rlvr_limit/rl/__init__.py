"""Advantages, losses and updates of supervised and reinforcement learning."""

from rlvr_limit.rl.advantages import overlong_penalty
from rlvr_limit.rl.algorithms import ALGORITHMS, Algorithm, Rewards, advantage
from rlvr_limit.rl.batch import Objective, PolicyBatch, SupervisedBatch, supervised_batch
from rlvr_limit.rl.lora import Lora, init_adapters, merged
from rlvr_limit.rl.losses import k3, token_weights
from rlvr_limit.rl.optimizers import optimizer
from rlvr_limit.rl.packing import microbatch_shape, microbatches, prefix_batch
from rlvr_limit.rl.update import (
    ActorCritic,
    Compute,
    TrainState,
    accumulate,
    apply,
    init_state,
    is_packed,
    shape_of_sums,
    single_batch_step,
    train_step,
    weights,
    zero_sums,
)
from rlvr_limit.rl.value import (
    HEAD,
    ValueState,
    answer_values,
    critic_params,
    critic_specs,
    head_specs,
    init_value,
    value_gradient,
    value_update,
)
