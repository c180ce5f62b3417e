"""Qwen2.5-7B trained here by GRPO on GSM8K and MATH, as SimpleRL-Zoo was, and its base (Yue et al. 2025, v5, Fig. 2).

Run it: python main.py --config=configs/trained/qwen7b_grpo_simplerl.py [--config.data_dir=FOLDER]
Hardware: what it takes on a machine: --config.job=plan --config.target=NAME
Expected: far above the base at k = 1, at its level or below at the largest k. Batch, steps and learning rate are those
of configs/trained/omni_algorithms.py, not SimpleRL-Zoo's.
"""

from ml_collections import ConfigDict

from configs.lib import base
from configs.trained import omni_algorithms


def get_config() -> ConfigDict:
    """Both arms: template qwen_boxed, <|im_end|> or <|endoftext|> ends an answer, context 131,072."""
    config = omni_algorithms.study("qwen7b_grpo_simplerl", "Qwen2.5-7B: GRPO on GSM8K and MATH", ("grpo",))
    config.arms.grpo.rl.update({"data": ("gsm8k_train", "math_train"), "steps": 150, "save_at": (150,)})
    config.benchmarks = tuple(base.QWEN_MATH)
    config.sampling.update({"n": 128, "n_of": {"aime24": 1024, "amc23": 1024}})
    for arm in config.arms.values():
        arm.prompt = "qwen_boxed"
    return config
