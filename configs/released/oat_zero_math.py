"""Qwen2.5-Math-7B against Oat-Zero-7B on AIME24 (Yue et al. 2025, v5, Table 1 and Fig. 11).

Run it: python main.py --config=configs/released/oat_zero_math.py [--config.data_dir=FOLDER]
Hardware: one H200 or v5e-8; what it takes there: --config.job=plan --config.target=h200
Expected: Oat-Zero above the base at k = 1, the base ahead at k = 1,024. The context of both arms is 4,096 tokens, so
answers end there although 16,384 are asked for; the cap is in the manifest and on the page. Both are asked in the words
that the authors' code gives for them; template oat is Oat-Zero's own, shown in the paper's appendix. Revisions not
checked.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes


def get_config() -> ConfigDict:
    """Both arms: template qwen_boxed, <|im_end|> or <|endoftext|> ends an answer, context 4,096."""
    config = base.released(
        "oat_zero_math", "Qwen2.5-Math-7B: base against Oat-Zero", shapes.QWEN25_MATH_7B, {"aime24": 1024}
    )
    config.arms.base = base.arm("Qwen2.5-Math-7B", "base", "Qwen/Qwen2.5-Math-7B", "qwen_boxed")
    config.arms.rl = base.arm("Oat-Zero-7B", "rl", "sail/Qwen2.5-Math-7B-Oat-Zero", "qwen_boxed")
    return config
