"""Qwen2.5-7B trained here by GRPO on Omni-MATH, and its base (Yue et al. 2025, sec. 4.3, Fig. 8, Tables 2 and 3).

Run it: python main.py --config=configs/trained/qwen7b_grpo.py [--config.data_dir=FOLDER]
Hardware: what it takes on a machine: --config.job=plan --config.target=NAME
Expected: pass@1 above the base's, pass@256 at or below it; more so at steps 300 and 450. The paper's settings: 128
prompts of 8 answers a step, at most 8,192 tokens, T = 1, no KL. The learning rate and 8 updates a step are assumptions.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes


def get_config() -> ConfigDict:
    """Both arms: template verl_r1, <|im_end|> or <|endoftext|> ends an answer, context 131,072."""
    return study("grpo", "GRPO", save_at=(150, 300, 450))


def study(algorithm: str, label: str, save_at: tuple = (150,), **changes) -> ConfigDict:
    """One algorithm from Qwen2.5-7B; changes are fields of its recipe."""
    benchmarks = {"omni_train": 256, "omni_test": 256, "math500": 256}
    config = base.released(f"qwen7b_{algorithm}", f"Qwen2.5-7B: {label} trained here", shapes.QWEN25_7B, benchmarks)
    config.sampling.max_tokens = 8192
    config.arms.base = base.arm("Qwen2.5-7B", "base", "Qwen/Qwen2.5-7B", "verl_r1")
    sizes = {"prompts": 128, "answers": 8, "minibatches": 8, "data": ("omni_train",)}
    sizes["limits"] = base.limits(config.sampling.max_tokens)
    config.training.update({"tokens": 16_384, "remat": "layers", "param_dtype": "float32"})
    optimizer = base.adam(1e-6, 10) | {"kind": "adamw_bf16"}
    recipe = {"start": "base", "steps": max(save_at), "save_at": save_at, "optimizer": optimizer}
    recipe |= {"algorithm": algorithm, **sizes, **changes}
    config.arms[algorithm] = base.trained(label, "verl_r1", recipe)
    return config
