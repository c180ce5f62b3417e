"""Countdown, GRPO beside the same training on rewards that do not say what is right: null controls, on a CPU.

Run it: python main.py --config=configs/toy/countdown_controls.py
Hardware: 2 CPU cores. Expected: only GRPO gains at k = 1, and coin tosses lose as much as it does at k = 128
    (docs/results.md).

Asked for by Shao et al. 2025 (Spurious Rewards, arXiv 2506.10947): on some released bases such rewards reach much of
the gain. Base and problems are those of configs/countdown.py; every arm takes its 40 steps of GRPO.
"""

from ml_collections import ConfigDict

from configs import countdown
from rlvr_limit.rl.reward_functions import RULES

LABELS = {
    "random": "coin tosses",
    "inverted": "wrong answers rewarded",
    "format": "any readable answer rewarded",
    "likelihood": "the policy's own likelihood rewarded",
}


def get_config() -> ConfigDict:
    """Base, GRPO, and a control arm for each null reward."""
    config = countdown.get_config()
    config.name, config.title = "countdown_controls", "Countdown: GRPO beside null controls"
    config.purpose = (
        "How much of what GRPO gains from verified rewards does the same training gain from rewards that do not say "
        "what is right?"
    )
    config.share_weights = True
    recipe = {**config.arms.grpo.rl.to_dict(), "save_at": (40,), "limits": {"entropy": (), "length": (), "reward": ()}}
    config.arms = {"base": config.arms.base, "grpo": {"label": "GRPO", "group": "rl", "rl": recipe}}
    for reward in RULES[1:]:
        arm = {"label": LABELS[reward], "group": "control", "rl": {**recipe, "reward": reward}}
        config.arms[f"control_{reward}"] = arm
    return config
