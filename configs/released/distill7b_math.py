"""Distillation against RL: Qwen2.5-Math-7B, Oat-Zero, Instruct and R1-Distill on Minerva (Yue et al. 2025, v5, Fig. 7).

Run it: python main.py --config=configs/released/distill7b_math.py [--config.data_dir=FOLDER]
Hardware: one H200 or v5e-8; what it takes there: --config.job=plan --config.target=h200
Expected: R1-Distill above all others at every k; Oat-Zero above the base at k = 1 and below it at k = 128. The context
of the first three is 4,096 tokens, that of R1-Distill 131,072: the arms differ in their caps. The prompts of the
last two and all revisions are not known.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes


def get_config() -> ConfigDict:
    """Templates: qwen_boxed for base and Oat-Zero, the model's own chat template for the other two."""
    config = base.released(
        "distill7b_math", "Qwen2.5-Math-7B: RL against distillation", shapes.QWEN25_MATH_7B, {"minerva_math": 128}
    )
    config.allow_differ = ("template", "eos", "lengths")
    config.arms.base = base.arm("Qwen2.5-Math-7B", "base", "Qwen/Qwen2.5-Math-7B", "qwen_boxed")
    config.arms.rl = base.arm("Oat-Zero-7B", "rl", "sail/Qwen2.5-Math-7B-Oat-Zero", "qwen_boxed")
    config.arms.instruct = base.arm("Qwen2.5-Math-7B-Instruct", "other", "Qwen/Qwen2.5-Math-7B-Instruct", "chat")
    config.arms.distilled = base.arm(
        "R1-Distill-Qwen-7B", "distilled", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "chat", stop=()
    )
    return config
