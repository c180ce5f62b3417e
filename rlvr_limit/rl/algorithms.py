"""An algorithm is a row of arguments: how rewards become advantages, how tokens are summed, what is drawn.

| name        | advantage of a token                       | mean over    | KL, if on | clip     | besides            |
|-------------|--------------------------------------------|--------------|-----------|----------|--------------------|
| grpo        | (r - group mean) / group deviation         | each answer  | loss, k3  | e        |                    |
| dr_grpo     | r - group mean                             | max_tokens   | loss, k3  | e        |                    |
| rloo        | r - mean of the group's others             | tokens       | reward    | e        |                    |
| reinforcepp | reward to go, whitened over the batch      | tokens       | reward    | e        | groups of 1 will do|
| remax       | reward to go - reward of the greedy answer | tokens       | reward    | e        | a greedy rollout   |
| ppo         | GAE, whitened                              | tokens       | reward    | e        | values: value.py   |
| dapo        | as grpo                                    | tokens       | loss, k3  | e, 0.28  | mixed groups only, |
|             |                                            |              |           |          | overlong shaping   |
| pass_at_k   | of the group's pass@k                      | each answer  | loss, k3  | e        | rewards 0 or 1     |
| gspo        | as grpo                                    | each answer  | loss, k3  | 3e-4,4e-4| an answer's ratio  |
| cispo       | as grpo                                    | tokens       | loss, k3  | -, 3     | the ratio, clipped,|
|             |                                            |              |           |          | is a weight; DAPO's|
|             |                                            |              |           |          | groups and shaping |
| distill     | log teacher - log policy of the token      | tokens       | none      | e        | a teacher; rewards |
|             |                                            |              |           |          | are only logged    |

All but cispo share PPO's clipped ratio, and most the mean over a batch's tokens, as in the framework that Yue et al.
2025 (sec. 4.3, app. A.1) trained with. The papers of RLOO and ReMax clip nothing and sum over an answer's tokens: with
one update a rollout the clip does nothing, and the mean over tokens weighs every token alike, as the sum does. GSPO's
clips are those of Zheng et al. 2025 (arXiv 2507.18071, sec. 5.1). MiniMax-M1 (arXiv 2506.13585) has no lower clip and
names no upper one; weights of at most 4 are the default of Tinker's cispo (tinker-docs.thinkingmachines.ai). distill
is learning from one's own answers with a teacher's log-probs (Lu et al. 2025, Thinking Machines, "On-Policy
Distillation"): down the reverse KL of Agarwal et al. 2023 (arXiv 2306.13649), of each token by itself, what follows it
left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from rlvr_limit.rl import advantages


@dataclass(frozen=True)
class Algorithm:
    """One row."""

    advantage: str
    aggregation: str  # of losses.token_weights
    kl_in: str  # "loss" or "reward"
    clip_low: float = 0.2  # 1: none
    clip_high: float = 0.0  # 0: as below
    ratio: str = "token"  # of rl.Objective
    rounds: int = 1  # draws of fresh prompts to find groups neither all right nor all wrong; 1 takes all groups
    overlong: str = "keep"  # "shape": a penalty on long answers; "mask" leaves truncated ones out of the loss

    @property
    def compares(self) -> bool:
        """Whether answers are held against others to the same prompt, of which there must be at least two."""
        return self.advantage in ("group", "centred", "others", "pass_at_k")


ALGORITHMS = {
    "grpo": Algorithm("group", "answer", "loss"),
    "dr_grpo": Algorithm("centred", "constant", "loss"),
    "rloo": Algorithm("others", "token", "reward"),
    "reinforcepp": Algorithm("batch", "token", "reward"),
    "remax": Algorithm("greedy", "token", "reward"),
    "ppo": Algorithm("value", "token", "reward"),
    "dapo": Algorithm("group", "token", "loss", clip_high=0.28, rounds=10, overlong="shape"),
    "pass_at_k": Algorithm("pass_at_k", "answer", "loss"),
    "gspo": Algorithm("group", "answer", "loss", clip_low=3e-4, clip_high=4e-4, ratio="sequence"),
    "cispo": Algorithm(
        "group", "token", "loss", clip_low=1.0, clip_high=3.0, rounds=10, overlong="shape", ratio="weight"
    ),
    "distill": Algorithm("teacher", "token", "reward"),
}


@dataclass(frozen=True)
class Rewards:
    """What a rollout earned, float64. Answers without a verdict are in no mean, deviation or k, as if never drawn."""

    reward_PG: np.ndarray  # the verifier's, shaped
    answer_BT: np.ndarray
    log_ratio_BT: np.ndarray | None = None  # log pi - log pi_ref, the teacher's or the start's; None: no KL in rewards
    greedy_P: np.ndarray | None = None  # rewards of greedy answers
    value_BT: np.ndarray | None = None  # predictions of the value head
    judged_PG: np.ndarray | None = None  # answers with a verdict; None: all. The others' advantages are 0


def advantage(
    algorithm: Algorithm, rewards: Rewards, kl: float = 0.0, pass_k: int = 1, lam: float = 1.0
) -> tuple[np.ndarray, np.ndarray | None]:
    """(advantage of every token, targets of the value head or None), float64 [B, T]; 0 outside answers.

    kl is the coefficient of the penalty in the reward, if there is one. Rewards are not discounted.
    """
    assert algorithm.kl_in == "reward" or rewards.log_ratio_BT is None
    reward_PG, answer_BT = rewards.reward_PG, rewards.answer_BT
    judged_PG = np.ones(reward_PG.shape, bool) if rewards.judged_PG is None else rewards.judged_PG
    assert judged_PG.shape == reward_PG.shape and judged_PG.dtype == bool
    answer_BT = answer_BT & judged_PG.reshape(-1, 1)
    reward_BT = advantages.token_rewards(reward_PG.reshape(-1), answer_BT, rewards.log_ratio_BT, kl)
    to_go_BT = advantages.to_go(reward_BT, answer_BT)
    match algorithm.advantage:
        case "group":
            whole_PG = _among(judged_PG, reward_PG, advantages.grpo, least=2)
        case "centred":
            whole_PG = _among(judged_PG, reward_PG, advantages.dr_grpo, least=2)
        case "others":
            whole_PG = _among(judged_PG, reward_BT.sum(axis=1).reshape(reward_PG.shape), advantages.rloo, least=2)
        case "pass_at_k":
            whole_PG = _among(judged_PG, reward_PG, lambda right: advantages.pass_at_k(right, pass_k), least=pass_k)
        case "batch":
            return advantages.whitened(to_go_BT, answer_BT), None
        case "greedy":
            greedy_B = np.repeat(rewards.greedy_P, reward_PG.shape[1])
            return advantages.remax(to_go_BT, greedy_B, answer_BT), None
        case "value":
            advantage_BT, return_BT = advantages.gae(reward_BT, rewards.value_BT, answer_BT, 1.0, lam)
            return advantages.whitened(advantage_BT, answer_BT), return_BT
        case "teacher":
            return np.where(answer_BT, -rewards.log_ratio_BT, 0.0), None
        case other:
            raise AssertionError(f"no advantage is named {other!r}")
    return np.where(answer_BT, whole_PG.reshape(-1, 1), 0.0), None


def _among(
    judged_PG: np.ndarray, reward_PG: np.ndarray, function: Callable[[np.ndarray], np.ndarray], least: int
) -> np.ndarray:
    """A group's advantages among its judged answers alone, of which there must be `least`, or all are 0."""
    advantage_PG = np.zeros_like(reward_PG)
    for row, judged in enumerate(judged_PG):
        if judged.sum() >= least:
            advantage_PG[row, judged] = function(reward_PG[row : row + 1, judged])[0]
    return advantage_PG
