"""Countdown, eight RL algorithms from one base: the paper's Tables 3 and 4 and Figs. 8 and 16 in small, on a CPU.

Run it: python main.py --config=configs/toy/countdown_algorithms.py
Hardware: 2 CPU cores, under 30 minutes.
Expected: every algorithm above the base at k = 1 and below it at k = 128; Delta_SE large and alike for all.

Base and problems are those of configs/countdown.py (1,800 steps of 64 demonstrations; 96 problems, 128 samples each).
Every arm takes 40 steps of 64 prompts x 16 answers, 4 updates each; GRPO besides with KL 0.001, with 8 and with 32
answers, and at steps 5 and 20 on its way. DAPO draws fresh prompts, at most 10 x 64 a step, until 64 groups are mixed.
Only truncated answers are overlong: the rules alone decide how long a right answer is.
"""

from ml_collections import ConfigDict

from configs import countdown
from configs.lib.base import adam

LABELS = {
    "grpo": "GRPO",
    "dr_grpo": "Dr.GRPO",
    "rloo": "RLOO",
    "reinforcepp": "REINFORCE++",
    "remax": "ReMax",
    "ppo": "PPO",
    "dapo": "DAPO",
    "pass_at_k": "pass@k training",
    "grpo_kl": "GRPO, KL 0.001",
    "grpo_8": "GRPO, 8 answers",
    "grpo_32": "GRPO, 32 answers",
}

CHANGES = {
    "grpo": {"save_at": (5, 20, 40)},
    "pass_at_k": {"pass_k": 4},
    "grpo_kl": {"algorithm": "grpo", "kl": 0.001},
    "grpo_8": {"algorithm": "grpo", "answers": 8},
    "grpo_32": {"algorithm": "grpo", "answers": 32},
}


def get_config() -> ConfigDict:
    """configs/countdown.py with these arms in place of its own, but for the base."""
    config = study("countdown_algorithms", "Countdown: RL algorithms from one base", tuple(LABELS))
    config.purpose = (
        "Do algorithms of reinforcement learning with verifiable rewards differ in what they let a small decoder solve "
        "that its base cannot, or only in how much likelier they make what the base already has?"
    )
    return config


def study(name: str, title: str, arms: tuple[str, ...]) -> ConfigDict:
    """The base and some of these arms; weights that one such study has trained are found by the others."""
    config = countdown.get_config()
    config.name, config.title = name, title
    config.share_weights = True
    config.arms = {"base": config.arms.base} | {name: arm(name) for name in arms}
    return config


def arm(name: str) -> dict:
    """One algorithm from the base: what all share, and what CHANGES says of it."""
    recipe = {"start": "base", "steps": 40, "optimizer": adam(3e-4, 5), "algorithm": name, "answers": 16}
    recipe |= {"save_at": (40,)} | CHANGES.get(name, {})
    if recipe["algorithm"] == "ppo":
        recipe["value_optimizer"] = adam(1e-3, 5)
    return {"label": LABELS[name], "group": "rl", "rl": recipe}
