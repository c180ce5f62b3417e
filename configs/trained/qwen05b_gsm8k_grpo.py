"""Qwen2.5-0.5B trained here by GRPO on GSM8K, and its base: a whole study on one GPU.

Run it: python main.py --config=configs/trained/qwen05b_gsm8k_grpo.py [--config.data_dir=FOLDER]
Hardware: one GPU; what it takes: --config.job=plan --config.target=h200
Expected: not known; no run of this config is on record. The paper has no model of this size.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes


def get_config() -> ConfigDict:
    """Both arms: template qwen_boxed, <|im_end|> or <|endoftext|> ends an answer, answers of 1,024 tokens."""
    config = base.released(
        "qwen05b_gsm8k_grpo", "Qwen2.5-0.5B: GRPO on GSM8K", shapes.QWEN25_05B, {"gsm8k": 128, "math500": 128}
    )
    config.sampling.max_tokens = 1024
    config.arms.base = base.arm("Qwen2.5-0.5B", "base", "Qwen/Qwen2.5-0.5B", "qwen_boxed")
    sizes = {"answers": 8, "data": ("gsm8k_train",)}
    sizes["limits"] = base.limits(config.sampling.max_tokens)
    config.training.param_dtype = "float32"
    recipe = {"start": "base", "steps": 200, "save_at": (50, 200), "optimizer": base.adam(1e-6, 10), **sizes}
    config.arms.grpo = base.trained("GRPO", "qwen_boxed", recipe)
    return config
