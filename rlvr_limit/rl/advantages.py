"""Advantages, from rewards alone, on the host in float64.

Legend: P prompts, G answers to each, B = P * G rows, T tokens of a row. What comes as [P, G] holds for a whole answer,
what comes as [B, T] for single tokens and is 0 outside answer_BT. Where rewards do not differ there is nothing to
learn: the advantage is exactly 0 there, whatever rounding says.
"""

from __future__ import annotations

from math import comb

import numpy as np

EPS = 1e-6
"""Added to a standard deviation before it divides."""


def grpo(reward_PG: np.ndarray) -> np.ndarray:
    """A = (r - mean_g r) / (std_g r + eps) (Shao et al. 2024, arXiv 2402.03300, sec. 4.1.2); G is 2 or more.

    The paper leaves open which std is meant; this is the unbiased one (G - 1), as in the frameworks that the RL models
    of Yue et al. were trained with.
    """
    _check(reward_PG, 2)
    deviation = np.std(reward_PG, axis=1, ddof=1, keepdims=True)
    return dr_grpo(reward_PG) / (deviation + EPS)


def dr_grpo(reward_PG: np.ndarray) -> np.ndarray:
    """A = r - mean_g r, not divided by the deviation (Liu et al. 2025, arXiv 2503.20783, sec. 3.2)."""
    _check(reward_PG, 2)
    centred = reward_PG - np.mean(reward_PG, axis=1, keepdims=True)
    return np.where(np.ptp(reward_PG, axis=1, keepdims=True) == 0, 0.0, centred)


def rloo(reward_PG: np.ndarray) -> np.ndarray:
    """A_i = r_i - mean of the other G - 1 rewards (Ahmadian et al. 2024, arXiv 2402.14740); G is 2 or more."""
    _check(reward_PG, 2)
    answers = reward_PG.shape[1]
    assert answers > 1
    return dr_grpo(reward_PG) * answers / (answers - 1)


def pass_at_k(right_PG: np.ndarray, k: int) -> np.ndarray:
    """The advantage that makes pass@k grow (Chen et al. 2025, arXiv 2508.10751); right_PG is 0 or 1.

    With N wrong answers in a group: rho = 1 - C(N, k) / C(G, k), s = sqrt(rho (1 - rho)), A = (1 - rho) / s of a right
    answer and (1 - rho - C(N - 1, k - 1) / C(G - 1, k - 1)) / s of a wrong one; 0 where s = 0.
    """
    _check(right_PG, 2)
    answers = right_PG.shape[1]
    assert 1 <= k <= answers and np.all((right_PG == 0) | (right_PG == 1))
    advantage = np.zeros_like(right_PG)
    for row, right in enumerate(right_PG == 1):
        wrong = answers - int(right.sum())
        rho = 1 - comb(wrong, k) / comb(answers, k)
        s = np.sqrt(rho * (1 - rho))
        if s > 0:
            alone = comb(wrong - 1, k - 1) / comb(answers - 1, k - 1) if wrong else 0.0
            advantage[row] = np.where(right, 1 - rho, 1 - rho - alone) / s
    return advantage


def remax(to_go_BT: np.ndarray, greedy_B: np.ndarray, answer_BT: np.ndarray) -> np.ndarray:
    """A_t = reward to go - r(greedy answer to the same prompt) (Li et al. 2023, arXiv 2310.10505)."""
    _check(to_go_BT, 2)
    assert greedy_B.shape == to_go_BT.shape[:1] and answer_BT.dtype == bool
    return np.where(answer_BT, to_go_BT - greedy_B[:, None], 0.0)


def whitened(x_BT: np.ndarray, answer_BT: np.ndarray) -> np.ndarray:
    """(x - mean x) / (std x + eps) over all answer tokens of the batch: so REINFORCE++ (Hu 2025, arXiv 2501.03262)
    normalises its reward to go, and PPO's implementations their advantages."""
    _check(x_BT, 2)
    assert answer_BT.dtype == bool and answer_BT.shape == x_BT.shape
    x = x_BT[answer_BT]
    if not x.size or np.ptp(x) == 0:
        return np.zeros_like(x_BT)
    return np.where(answer_BT, (x_BT - x.mean()) / (x.std() + EPS), 0.0)


def token_rewards(
    reward_B: np.ndarray, answer_BT: np.ndarray, log_ratio_BT: np.ndarray | None, kl: float
) -> np.ndarray:
    """r_t = r [t is the answer's last token] - kl (log pi - log pi_ref), [B, T] (Hu 2025, arXiv 2501.03262).

    log_ratio_BT is of the policy that answered; None where there is no penalty.
    """
    _check(reward_B, 1)
    assert answer_BT.dtype == bool and answer_BT.shape[:1] == reward_B.shape
    last_BT = answer_BT & (np.cumsum(answer_BT, axis=1) == np.sum(answer_BT, axis=1, keepdims=True))
    reward_BT = np.where(last_BT, reward_B[:, None], 0.0)
    return reward_BT if log_ratio_BT is None else reward_BT - np.where(answer_BT, kl * log_ratio_BT, 0.0)


def to_go(reward_BT: np.ndarray, answer_BT: np.ndarray) -> np.ndarray:
    """sum of r_u over u >= t, undiscounted, at each answer token."""
    _check(reward_BT, 2)
    return np.where(answer_BT, np.cumsum(reward_BT[:, ::-1], axis=1)[:, ::-1], 0.0)


def gae(
    reward_BT: np.ndarray, value_BT: np.ndarray, answer_BT: np.ndarray, gamma: float, lam: float
) -> tuple[np.ndarray, np.ndarray]:
    """A_t = sum_l (gamma lam)^l d_{t+l}, d_t = r_t + gamma V_{t+1} - V_t (Schulman et al. 2015, arXiv 1506.02438, eq.
    16), and the value head's targets A_t + V_t. V is 0 after an answer's last token; answers are unbroken."""
    _check(reward_BT, 2)
    _check(value_BT, 2)
    assert answer_BT.dtype == bool and answer_BT.shape == reward_BT.shape == value_BT.shape
    advantage = np.zeros_like(reward_BT)
    ahead, value_ahead = np.zeros(len(reward_BT)), np.zeros(len(reward_BT))
    for t in reversed(range(reward_BT.shape[1])):
        here = answer_BT[:, t]
        ahead = np.where(here, reward_BT[:, t] + gamma * value_ahead - value_BT[:, t] + gamma * lam * ahead, 0.0)
        value_ahead = np.where(here, value_BT[:, t], 0.0)
        advantage[:, t] = ahead
    return advantage, np.where(answer_BT, advantage + value_BT, 0.0)


def overlong_penalty(length_B: np.ndarray, truncated_B: np.ndarray, most: int, cache: int) -> np.ndarray:
    """What is added to a reward (Yu et al. 2025, arXiv 2503.14476, eq. 13): 0 for answers of up to most - cache tokens,
    then falling evenly to -1 at `most`, and -1 for those that were cut there."""
    assert length_B.ndim == truncated_B.ndim == 1 and truncated_B.dtype == bool and 0 <= cache <= most
    beyond = np.maximum(length_B - (most - cache), 0) / max(cache, 1)
    return -np.where(truncated_B, 1.0, np.minimum(beyond, 1.0))


def _check(x: np.ndarray, rank: int) -> None:
    assert x.ndim == rank and x.dtype == np.float64, f"{x.dtype} of rank {x.ndim}"
