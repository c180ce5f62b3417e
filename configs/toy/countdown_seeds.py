"""Countdown, base against five training runs of GRPO: what one run says, and what the algorithm, on a CPU.

Run it: python main.py --config=configs/toy/countdown_seeds.py
Hardware: 2 CPU cores. Expected: every run crosses its base between k = 18 and 29
    (docs/results.md).

Base and GRPO are those of configs/countdown.py. The runs differ in their random numbers alone: which problems a step
takes, and which answers it draws. The base is one set of weights, so the claim is about GRPO from this base.
"""

from ml_collections import ConfigDict

from configs import countdown


def get_config() -> ConfigDict:
    """Base and GRPO, at its last step, in five runs."""
    config = countdown.get_config()
    config.name, config.title = "countdown_seeds", "Countdown: five training runs of GRPO"
    config.purpose = (
        "Is what one training run of GRPO gains and loses beside its base true of that run alone, or of GRPO from this "
        "base?"
    )
    config.share_weights = True
    recipe = {**config.arms.grpo.rl.to_dict(), "save_at": (40,)}
    grpo = {"label": "GRPO", "group": "rl", "seeds": 5, "rl": recipe}
    config.arms = {"base": config.arms.base, "grpo": grpo}
    return config
