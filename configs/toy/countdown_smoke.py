"""Countdown as small as it goes: the same path in well under a minute, for tests. Its numbers mean nothing.

Run it: python main.py --config=configs/toy/countdown_smoke.py
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
    shapes = {"max_num_seqs": 64, "buckets": (64,), "steps_per_call": 6, "page_size": 24, "max_prompt_len": 6}
    config.engine.update(shapes)
    config.task.update({"numbers": 2, "high": 9, "max_value": 20, "targets": (4, 6, 8, 10, 12)})
    config.task.update({"guess_max": 1.0, "train_guess_max": 1.0})
    config.task.update({"eval_problems": 8, "train_problems": 20, "one_in": 3})
    config.model.update({"width": 32, "layers": 1, "head_width": 8, "ffn_width": 64})
    config.sampling.update({"n": 32, "max_tokens": 8})
    config.report.k = 16
    config.score.update({"answers": 4, "tokens": 896})
    supervised = {"steps": 60, "batch": 32, "optimizer": countdown.adam(3e-3, 20, "cosine")}
    config.arms.base.pretrain.update(supervised)
    config.arms.grpo.rl.update({"steps": 6, "save_at": (2, 4, 6), "prompts": 4, "answers": 8})
    for name in ("distilled", "control"):
        config.arms[name].sft.update(supervised)
    return config
