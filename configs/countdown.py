"""Countdown, base against GRPO and distillation: everything made here in minutes on a CPU, nothing to download.

The paper's Figs. 1, 2, 5, 6 and 7 in small. Run it: python main.py --config=configs/countdown.py
Hardware: 2 CPU cores, under 10 minutes. Expected: GRPO far above the base at k = 1 and below it at k = 128;
distillation above the base. The task was chosen so that this can be seen; it says nothing about large models.

Problems: four numbers from 1 to 20, target 24 or 48, kept only if the random legal policy (its success computed
exactly) succeeds at most once in 250 plays. The base learns from demonstrations of which 45 in 100 are right.
"""

from ml_collections import ConfigDict

from configs import base
from configs.base import adam


def get_config() -> ConfigDict:
    """The embedded default."""
    config = base.defaults()
    config.name = "countdown"
    config.title = "Countdown: base against GRPO and distillation"
    config.purpose = (
        "Does reinforcement learning with verifiable rewards teach a small decoder to solve problems that its base "
        "cannot, or does it only make right answers more likely that the base already has?"
    )
    config.caveat = (
        "This task, its difficulty and its hyper-parameters were chosen so that the effect reported by Yue et al. "
        "(2025) can be seen in minutes on a CPU. It shows how the effect is measured and what it looks like; it is no "
        "evidence about large models."
    )
    config.task = {
        "numbers": 4,
        "low": 1,
        "high": 20,
        "max_value": 99,
        "targets": (24, 48),
        "guess_max": 0.004,
        "train_guess_max": 0.03,
        "eval_problems": 96,
        "train_problems": 4000,
        "one_in": 4,
    }
    config.model = {"width": 128, "layers": 3, "heads": 4, "kv_heads": 2, "head_width": 32, "ffn_width": 256}
    config.sampling = {"n": 128, "adaptive": 0, "max_tokens": 18, "temperature": 1.0, "top_p": 1.0}
    config.report = {"k": 128}
    config.arms = {
        "base": {
            "label": "base",
            "group": "base",
            "weights": "",
            "pretrain": {"steps": 1800, "batch": 64, "right": 0.45, "optimizer": adam(3e-3, 50, "cosine")},
        },
        "grpo": {
            "label": "GRPO",
            "group": "rl",
            "weights": "",
            "rl": base.reinforced("base", 40, (2, 5, 40), adam(3e-4, 5, "constant")),
        },
        "distilled": {"label": "distilled", "group": "distilled", "weights": "", "sft": further(right=1.0)},
        "control": {"label": "control", "group": "control", "weights": "", "sft": further(right=0.45)},
    }
    return config


def further(right: float) -> dict:
    """More supervised steps from the base; the two arms that take them differ in the share of right answers only."""
    return {"start": "base", "steps": 160, "batch": 64, "right": right, "optimizer": adam(1e-3, 20, "cosine")}
