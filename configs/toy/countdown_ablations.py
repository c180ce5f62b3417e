"""Countdown, GRPO with fewer and more answers a prompt and with KL: the paper's Fig. 16 in small, on a CPU.

Run it: python main.py --config=configs/toy/countdown_ablations.py
Hardware: 2 CPU cores, 15 minutes; 2 where configs/toy/countdown_algorithms.py was run before, whose weights are taken.
Expected: more answers a prompt raise pass@k a little at every k, a KL of 0.001 changes little, and all are below the
base at the largest k.
"""

from ml_collections import ConfigDict

from configs.toy import countdown_algorithms


def get_config() -> ConfigDict:
    """Base and the four GRPO arms of configs/toy/countdown_algorithms.py, at their last step, 256 samples a problem."""
    arms = ("grpo", "grpo_8", "grpo_32", "grpo_kl")
    config = countdown_algorithms.study("countdown_ablations", "Countdown: GRPO's answers a prompt, and KL", arms)
    config.purpose = (
        "Does what GRPO lets a small decoder solve depend on how many answers to a prompt it compares, or on how "
        "closely it is held to its base?"
    )
    config.arms.grpo.update({"label": "GRPO, 16 answers"})
    config.arms.grpo.rl.save_at = (40,)
    config.sampling.n = 256
    config.report.k = 256
    return config
