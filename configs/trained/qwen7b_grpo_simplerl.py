"""Qwen2.5-7B trained here by GRPO on GSM8K and MATH, as SimpleRL-Zoo was, beside its base (Yue et al. 2025, Fig. 2).

Run it: python main.py --config=configs/trained/qwen7b_grpo_simplerl.py [--config.data_dir=FOLDER]
Hardware: what it takes on a machine: --config.job=plan --config.target=NAME
Expected: far above the base at k = 1, at its level or below at the largest k. Batch, steps and learning rate are those
of configs/trained/qwen7b_grpo.py, not SimpleRL-Zoo's.
"""

from ml_collections import ConfigDict

from configs.lib import base
from configs.trained import qwen7b_grpo


def get_config() -> ConfigDict:
    """Both arms: template qwen_boxed, <|im_end|> or <|endoftext|> ends an answer, context 131,072."""
    config = qwen7b_grpo.study("grpo", "GRPO", data=("gsm8k_train", "math_train"))
    config.name, config.title = "qwen7b_grpo_simplerl", "Qwen2.5-7B: GRPO on GSM8K and MATH"
    config.benchmarks = tuple(base.QWEN_MATH)
    config.sampling.update({"n": 128, "n_of": {"aime24": 1024, "amc23": 1024}})
    for arm in config.arms.values():
        arm.prompt = "qwen_boxed"
    return config
