"""Countdown, GRPO at the temperature at which it has the base's entropy: the paper's Fig. 18 in small, on a CPU.

Run it: python main.py --config=configs/toy/countdown_entropy.py
Hardware: 2 CPU cores, 7 minutes; 2 where configs/toy/countdown_algorithms.py was run before, whose weights are taken.
Expected: at the base's entropy GRPO solves more at the largest k than at T = 0.6, and still less than the base.
"""

from ml_collections import ConfigDict

from configs.toy import countdown_algorithms


def get_config() -> ConfigDict:
    """Base and GRPO at T = 0.6, top-p 0.95, and GRPO again within 0.01 nats a token of the base's entropy."""
    config = countdown_algorithms.study("countdown_entropy", "Countdown: GRPO at the base's entropy", ("grpo",))
    config.purpose = (
        "GRPO leaves a small decoder with less entropy. Is that why it solves fewer problems within many tries than "
        "its base: does a higher temperature, at which the two are alike in entropy, make up for it?"
    )
    config.sampling.update({"n": 256, "temperature": 0.6, "top_p": 0.95})
    config.report.k = 256
    config.allow_differ = ("temperature",)
    config.arms.grpo.rl.save_at = (40,)
    config.arms.matched = {
        "label": "GRPO at the base's entropy",
        "group": "rl",
        "weights_of": "grpo-40",
        "sampling": {"match_entropy": "base", "match_within": 0.01},
    }
    return config
