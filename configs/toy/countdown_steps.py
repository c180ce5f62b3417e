"""Countdown, GRPO along its training: the paper's Fig. 1 (right) and Table 4 in small, on a CPU.

Run it: python main.py --config=configs/toy/countdown_steps.py
Hardware: 2 CPU cores, 7 minutes; 2 where configs/toy/countdown_algorithms.py was run before, whose weights are taken.
Expected: with more steps pass@1 goes up and pass@256 down.
"""

from ml_collections import ConfigDict

from configs.toy import countdown_algorithms


def get_config() -> ConfigDict:
    """Base and GRPO of configs/toy/countdown_algorithms.py at steps 5, 20 and 40, with 256 samples a problem."""
    config = countdown_algorithms.study("countdown_steps", "Countdown: GRPO along its training", ("grpo",))
    config.purpose = (
        "Does longer training with verifiable rewards let a small decoder solve more problems, or fewer, within many "
        "tries, while it solves more at the first?"
    )
    config.sampling.n = 256
    config.report.k = 256
    return config
