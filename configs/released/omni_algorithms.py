"""Six RL algorithms against their base on Omni-MATH (train and test) and MATH500 (Yue et al. 2025, Fig. 8, Table 3).

Run it: python main.py --config=configs/released/omni_algorithms.py --config.arms.ppo.weights=DIR ...
Hardware: one H200 or v5e-8; what it takes there: --config.job=plan --config.target=h200
Expected: small differences between algorithms; Delta_SE stays large for all. The authors' six checkpoints have no hub
name that is known here: train them, or give folders. The split is the paper's only if data_dir has its indices.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes

ALGORITHMS = {
    "ppo": "PPO",
    "grpo": "GRPO",
    "reinforce_pp": "Reinforce++",
    "rloo": "RLOO",
    "remax": "ReMax",
    "dapo": "DAPO",
}


def get_config() -> ConfigDict:
    """All arms: template verl_r1, <|im_end|> or <|endoftext|> ends an answer, context 131,072, answers of 8,192."""
    config = base.released(
        "omni_algorithms",
        "Qwen2.5-7B: six RL algorithms",
        shapes.QWEN25_7B,
        {"omni_train": 256, "omni_test": 256, "math500": 256},
    )
    config.sampling.max_tokens = 8192
    config.arms.base = base.arm("Qwen2.5-7B", "base", "Qwen/Qwen2.5-7B", "verl_r1")
    for name, label in ALGORITHMS.items():
        config.arms[name] = base.arm(label, "rl", "", "verl_r1", revision="")
    return config
