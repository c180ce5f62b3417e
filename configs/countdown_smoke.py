"""Countdown as small as it goes: the same path in well under a minute, for tests. Its numbers mean nothing.

Run it: python main.py --config=configs/countdown_smoke.py
"""

from ml_collections import ConfigDict

from configs import countdown


def get_config() -> ConfigDict:
    """configs/countdown.py with fewer problems, samples and steps, and a smaller model."""
    config = countdown.get_config()
    config.name = "countdown_smoke"
    config.title = "Countdown, smoke run: numbers without meaning"
    config.checkpoint_seconds = 0.2
    config.flush_seconds = 0.05
    config.engine.slots = 64
    config.task.update({"high": 9, "targets": (24,), "guess_max": 0.05, "eval_problems": 16, "train_problems": 128})
    config.model.update({"width": 32, "layers": 2, "head_width": 8, "ffn_width": 64})
    config.sampling.n = 32
    config.report.k = 16
    config.score.answers = 4
    config.arms.base.pretrain.update({"steps": 60, "batch": 16})
    config.arms.grpo.rl.update({"steps": 6, "save_at": (2, 4, 6), "prompts": 4, "answers": 8})
    for name in ("distilled", "control"):
        config.arms[name].sft.update({"steps": 10, "batch": 16})
    return config
