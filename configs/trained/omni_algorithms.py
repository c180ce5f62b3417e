"""Six RL algorithms, GRPO's steps, 32 answers and KL, from one base on Omni-MATH (Yue et al. 2025, v5, sec. 4.3).

Figs. 1 (right), 8 and 16, Tables 3 and 4. Run it, all of it or some arms, trained here or from folders:
    python main.py --config=configs/trained/omni_algorithms.py --config.data_dir=FOLDER
    python main.py --config=configs/trained/omni_algorithms.py:dapo,grpo_kl --config.data_dir=FOLDER
    python main.py --config=configs/trained/omni_algorithms.py:dapo --config.arms.dapo.weights=DIR ...
Hardware: what it takes on a machine: --config.job=plan --config.target=NAME
Expected: pass@1 above the base's, pass@256 at or below it, more so at GRPO's steps 300 and 450; small differences
between algorithms; Delta_SE stays large for all. DAPO takes three to six times the samples.

As in v5: 256 prompts of 8 answers a step, at most 8,192 tokens, T = 1, one update a step, AdamW at a constant 1e-6, no
KL; evaluated at up to 16,384 tokens; PPO's critic is a model of its own, as in veRL. Ours, as the paper says nothing:
moments in bfloat16, the clip, the critic's rate (veRL's default), DAPO's penalty over the last 1,024 tokens, and who is
in which half of Omni-MATH-Rule, unless data_dir has omni_math_split.json. Omni-MATH's 500 with numeric answers are in
no study of the paper.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes
from rlvr_limit.types import not_allowed

ROLLOUT_TOKENS = 8192
ARMS = {
    "grpo": ("GRPO", {"save_at": (150, 300, 450)}),
    "ppo": (
        "PPO",
        {
            "algorithm": "ppo",
            "critic": "full",
            "value_optimizer": {"learning_rate": 1e-5, "warmup": 0, "kind": "adamw_bf16"},
        },
    ),
    "reinforcepp": ("REINFORCE++", {"algorithm": "reinforcepp"}),
    "rloo": ("RLOO", {"algorithm": "rloo"}),
    "remax": ("ReMax", {"algorithm": "remax"}),
    "dapo": ("DAPO", {"algorithm": "dapo", "overlong_cache": 1024}),
    "grpo_32": ("GRPO, 32 answers", {"answers": 32, "save_at": (220,)}),
    "grpo_kl": ("GRPO, KL 0.001", {"kl": 0.001, "save_at": (450,)}),
}


def get_config(arms: str = "") -> ConfigDict:
    """All arms, or the base and those that are named, with commas between them."""
    chosen = tuple(arms.split(",")) if arms else tuple(ARMS)
    return study("omni_algorithms", "Qwen2.5-7B: RL algorithms trained here on Omni-MATH-Rule", chosen)


def study(name: str, title: str, arms: tuple[str, ...]) -> ConfigDict:
    """The base and these arms: template verl_r1, <|im_end|> or <|endoftext|> ends an answer, context 131,072."""
    benchmarks = {"omni_train": 256, "omni_test": 256, "math500": 256}
    config = base.released(name, title, shapes.QWEN25_7B, benchmarks)
    config.training.param_dtype = "float32"
    config.arms.base = base.arm("Qwen2.5-7B", "base", "Qwen/Qwen2.5-7B", "verl_r1", revision=base.QWEN25_7B_REVISION)
    for arm in arms:
        if arm not in ARMS:
            raise not_allowed("--config: arm", arm, f"one of {', '.join(ARMS)}")
        label, changes = ARMS[arm]
        config.arms[arm] = base.trained(label, "verl_r1", recipe(**changes))
    return config


def recipe(save_at: tuple = (150,), **changes) -> dict:
    """What all arms share, and what one changes of it."""
    shared = {
        "start": "base",
        "steps": max(save_at),
        "save_at": save_at,
        "optimizer": base.adam(1e-6, 0) | {"kind": "adamw_bf16"},
        "prompts": 256,
        "answers": 8,
        "minibatches": 1,
        "max_tokens": ROLLOUT_TOKENS,
        "limits": base.limits(ROLLOUT_TOKENS),
        "data": ("omni_train",),
    }
    return shared | changes
