"""Countdown, base against GRPO and distillation: everything made here in minutes on a CPU, nothing to download.

The paper's Figs. 1, 2, 5, 6 and 7 in small. Run it: python main.py --config=configs/countdown.py
Hardware: 2 CPU cores, under 10 minutes. Expected: GRPO far above the base at k = 1 and below it at k = 128;
distillation above the base. The task was chosen so that this can be seen; it says nothing about large models.

Problems: four numbers from 1 to 20, target 24 or 48, kept only if the random legal policy (its success computed
exactly) succeeds at most once in 250 plays. The base learns from demonstrations of which 45 in 100 are right.
"""

from ml_collections import ConfigDict

from configs.lib import base
from configs.lib.base import adam


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
        "high": 20,
        "targets": (24, 48),
        "train_guess_max": 0.03,
        "train_problems": 4000,
    }
    config.model = {"width": 128, "layers": 3, "heads": 4, "kv_heads": 2, "head_width": 32, "ffn_width": 256}
    config.sampling.max_tokens = 18
    config.report.k = 128
    shapes = {"max_num_seqs": 512, "buckets": (512,), "steps_per_call": 10, "page_size": 20, "max_prompt_len": 7}
    config.engine.update(shapes)
    config.score.tokens = 12_800
    config.arms = {
        "base": {
            "label": "base",
            "group": "base",
            "pretrain": {"steps": 1800, "batch": 64, "right": 0.45, "optimizer": adam(3e-3, 50, "cosine")},
        },
        "grpo": {
            "label": "GRPO",
            "group": "rl",
            "rl": {"start": "base", "steps": 40, "save_at": (2, 5, 40), "optimizer": adam(3e-4, 5)},
        },
        "distilled": {"label": "distilled", "group": "distilled", "sft": further(right=1.0)},
        "control": {"label": "control", "group": "control", "sft": further(right=0.45)},
    }
    return config


def further(right: float) -> dict:
    """More supervised steps from the base; the two arms that take them differ in the share of right answers only."""
    return {"start": "base", "steps": 160, "batch": 64, "right": right, "optimizer": adam(1e-3, 20, "cosine")}
