"""Countdown, the base's answers sharpened without training beside GRPO: p^alpha by Metropolis-Hastings, on a CPU.

Run it: python main.py --config=configs/toy/countdown_sharpened.py
Hardware: 2 CPU cores. Expected: p^2 reaches GRPO's pass@1 and keeps the base's pass@128
    (docs/results.md).

Asked for by Karan and Du 2025 (Reasoning with Sampling, arXiv 2510.14901): on some released bases sampling p^4 reaches
what GRPO does. Base, problems and GRPO are those of configs/countdown.py. At alpha = 2 the page has the same from
recorded samples by their weights, which the chains can be held against.
"""

from ml_collections import ConfigDict

from configs import countdown

ALPHAS = (2.0, 4.0)


def get_config() -> ConfigDict:
    """Base, GRPO, and the base sampled from two powers of what it draws."""
    config = countdown.get_config()
    config.name, config.title = "countdown_sharpened", "Countdown: GRPO beside likelier answers of its base"
    config.purpose = (
        "How much of what GRPO gains comes without training, by drawing whole answers y of the base from p(y)^\u03b1, "
        "and for how many tokens?"
    )
    config.share_weights = True
    config.allow_differ = ("temperature",)
    recipe = {**config.arms.grpo.rl.to_dict(), "save_at": (40,)}
    config.arms = {"base": config.arms.base, "grpo": {"label": "GRPO", "group": "rl", "rl": recipe}}
    for alpha in ALPHAS:
        config.arms[f"power{alpha:g}"] = {
            "label": f"base, p^{alpha:g}",
            "group": "control",
            "weights_of": "base",
            "sharpen": {"alpha": alpha, "steps": 10},
        }
    return config
