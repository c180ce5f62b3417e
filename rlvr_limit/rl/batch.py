"""What an update is given: the answers of one optimizer step as arrays, and which loss is taken of them.

Legend: B rows, T tokens of a row; all arrays lie as the rows do, and count where answer_BT marks a token. Every
loss is a sum over tokens, loss = sum_t weight_t * token_objective_t (losses.py). The weights of a whole step are made
on the host before it is cut into microbatches, so neither packing nor accumulation can change the loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import flax.struct
import jax
import numpy as np

from rlvr_limit.models.log_probs import AnswerRows, PrefixBatch


@dataclass(frozen=True)
class Objective:
    """Which loss a token has; static under jit."""

    clip_low: float  # the ratio to the policy that answered is clipped to [1 - clip_low, 1 + clip_high]
    clip_high: float
    kl: float = 0.0  # coefficient of the k3 penalty towards the reference policy; 0: none
    value_coefficient: float = 0.5  # of the value head's squared error
    value_clip: float = 0.0  # most that its prediction moves per rollout; 0: freely
    importance_cap: float = 0.0  # truncates the weight P_trainer / P_sampler; 0: no such weight
    ratio: str = "token"  # to the policy that answered, of a "token" or a "sequence"; "weight": without a gradient


class PolicyBatch(flax.struct.PyTreeNode):
    """Answers of a rollout, float32 [B, T] beside their rows; what an algorithm has no use for is None."""

    rows: AnswerRows | PrefixBatch
    behaviour_BT: jax.Array  # log-probs under the sampler at temperature 1
    advantage_BT: jax.Array
    weight_BT: jax.Array  # what a token's objective counts in the loss; 0 outside answers and in masked ones
    reference_BT: jax.Array | None = None  # log-probs under the reference policy
    value_BT: jax.Array | None = None  # the value head's predictions at the time of the rollout
    return_BT: jax.Array | None = None  # the value head's targets
    proximal_BT: jax.Array | None = None  # log-probs under the trainer before the first update; None: behaviour_BT


class SupervisedBatch(flax.struct.PyTreeNode):
    """Demonstrations, and what each token's -log P counts in the loss, float32 [B, T]; 0 outside answers."""

    rows: AnswerRows
    weight_BT: jax.Array


def supervised_batch(rows: AnswerRows) -> SupervisedBatch:
    """Rows on the host as a batch whose loss is the mean over all answer tokens."""
    weight_BT = np.where(rows.answer_BT, 1 / max(rows.answer_BT.sum(), 1), 0).astype(np.float32)
    return SupervisedBatch(rows, weight_BT)
