"""Qwen2.5-VL-7B-Instruct trained here by GRPO on Geometry3K with EasyR1's reward, and its base.

Run it: python main.py --config=configs/trained/qwen_vl7b_geometry3k.py [--config.data_dir=FOLDER]
Hardware: by job=plan's arithmetic one H200 with --config.arms.grpo.rl.optimizer.kind=adafactor or .rl.lora_rank=32. As
    it is, weights, gradients and Adam alone take 116 GB, more than there are to fill (112), also with a frozen tower;
    what it takes on another machine: --config.job=plan --config.target=NAME
Expected: EasyR1 reports .37 -> .48 at k = 1 on Geometry3K's test; no run of this config is on record.

As in EasyR1's example: 512 prompts of 5 answers a step, 4 updates a step at 1e-6, KL 0.01, answers of 2,048 tokens,
15 epochs of 2,101 problems, pixels from 262,144 to 4,194,304. Other than there: an image is resized once, not twice.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes
from configs.released.qwen_vl7b_visual import VL7B

ANSWER_TOKENS = 2048


def get_config() -> ConfigDict:
    """Both arms: template visual, <|im_end|> or <|endoftext|> ends an answer."""
    benchmarks = {"geometry3k": 128, "mathvista": 128, "mathvision": 128}
    title = "Qwen2.5-VL-7B-Instruct: GRPO on Geometry3K"
    config = base.released("qwen_vl7b_geometry3k", title, shapes.QWEN25_VL_7B, benchmarks)
    config.grading.grader = "visual"
    config.images.update({"min_pixels": 262_144, "max_pixels": 4_194_304})
    config.training.param_dtype = "float32"
    config.arms.base = base.arm("Qwen2.5-VL-7B-Instruct", "base", VL7B, "visual")
    recipe = {
        "start": "base",
        "steps": 60,
        "save_at": (20, 60),
        "optimizer": base.adam(1e-6, 0) | {"kind": "adamw_bf16"},
        "prompts": 512,
        "answers": 5,
        "minibatches": 4,
        "kl": 0.01,
        "max_tokens": ANSWER_TOKENS,
        "limits": base.limits(ANSWER_TOKENS),
        "reward": "rlvr_limit.grading.mathruler:reward",
        "data": ("geometry3k_train",),
    }
    config.arms.grpo = base.trained("GRPO", "visual", recipe)
    return config
