"""Countdown without the problems that guessing solves: the paper's Fig. 13 in small, on a CPU.

Run it: python main.py --config=configs/toy/countdown_guessing.py
Hardware: 2 CPU cores, 10 minutes; 5 where configs/toy/countdown_algorithms.py was run before, whose weights are taken.
Expected: about a third of the problems are guessable; without them GRPO above the base at k = 1 and below it at 128.

There is no answer without reasoning here. Its part is taken by a decoder that has learnt the rules only, from
demonstrations that play at random: what it gets right now and then (at a rate in (0, 5 %)) is guessable.
"""

from ml_collections import ConfigDict

from configs.lib import base
from configs.toy import countdown_algorithms


def get_config() -> ConfigDict:
    """Base and GRPO of configs/toy/countdown_algorithms.py, and a decoder like the base that knows the rules only."""
    config = countdown_algorithms.study("countdown_guessing", "Countdown: without guessable problems", ("grpo",))
    config.purpose = (
        "Does the base overtake GRPO at large k because it solves more problems, or because many tries guess what "
        "needs no solving?"
    )
    config.arms.grpo.rl.save_at = (40,)
    config.arms.rules = {
        "label": "knows the rules only",
        "group": "other",
        "prompt": "answer_only",
        "pretrain": {"steps": 1800, "batch": 64, "right": 0.0, "optimizer": base.adam(3e-3, 50, "cosine")},
    }
    return config
