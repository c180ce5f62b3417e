"""Qwen2.5-7B against SimpleRL-Zoo at the temperature that gives it the base's entropy (Yue et al. 2025, v5, Fig. 18).

Run it: python main.py --config=configs/released/qwen7b_entropy.py [--config.data_dir=FOLDER]
Hardware: one H200 or v5e-8; what it takes there: --config.job=plan --config.target=h200
Expected: at a matched entropy SimpleRL solves more at the largest k than at T = 0.6, and still less than the base. The
paper matches each benchmark on its own (temperatures of 0.85 to 1.5), so one is asked for at a time.
"""

from ml_collections import ConfigDict

from configs import qwen7b_math


def get_config() -> ConfigDict:
    """The arms of configs/qwen7b_math.py on AIME24, and SimpleRL again within 0.01 nats a token of the base."""
    config = qwen7b_math.get_config()
    config.name, config.title = "qwen7b_entropy", "Qwen2.5-7B and SimpleRL-Zoo at one entropy"
    config.benchmarks = ("aime24",)
    config.allow_differ = ("temperature",)
    config.arms.matched = {
        "label": "SimpleRL-Zoo 7B at the base's entropy",
        "group": "rl",
        "weights_of": "rl",
        "sampling": {"match_entropy": "base", "match_within": 0.01},
    }
    return config
