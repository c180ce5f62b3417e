"""Qwen2.5-7B against its SimpleRL-Zoo descendant on six math benchmarks (Yue et al. 2025, v5, Figs. 2 and 10).

Run it: python main.py --config=configs/qwen7b_math.py [--config.data_dir=FOLDER]
Hardware: one H200 or v5e-8; what it takes there: --config.job=plan --config.target=h200
Expected: SimpleRL far above the base at k = 1, the base level or ahead at the largest k.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes


def get_config() -> ConfigDict:
    """Both arms: template qwen_boxed, <|im_end|> or <|endoftext|> ends an answer, context 131,072."""
    config = base.released("qwen7b_math", "Qwen2.5-7B: base against SimpleRL-Zoo", shapes.QWEN25_7B, base.QWEN_MATH)
    config.arms.base = base.arm("Qwen2.5-7B", "base", "Qwen/Qwen2.5-7B", "qwen_boxed", revision=base.QWEN25_7B_REVISION)
    config.arms.rl = base.arm(
        "SimpleRL-Zoo 7B",
        "rl",
        "hkust-nlp/Qwen-2.5-7B-SimpleRL-Zoo",
        "qwen_boxed",
        revision="d630142f26acc8adf8051298cba8023232169d56",
    )
    return config
