"""Qwen2.5-32B against its SimpleRL-Zoo descendant on six math benchmarks (Yue et al. 2025, v5, Figs. 2, 10).

Run it: python main.py --config=configs/released/qwen32b_math.py [--config.data_dir=FOLDER]
Hardware: what it takes on a machine: --config.job=plan --config.target=NAME
Expected: SimpleRL far above the base at k = 1, the base level or ahead at the largest k. Revisions not checked.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes


def get_config() -> ConfigDict:
    """Both arms: template qwen_boxed, <|im_end|> or <|endoftext|> ends an answer, context 131,072."""
    config = base.released("qwen32b_math", "Qwen2.5-32B: base against SimpleRL-Zoo", shapes.QWEN25_32B, base.QWEN_MATH)
    config.arms.base = base.arm("Qwen2.5-32B", "base", "Qwen/Qwen2.5-32B", "qwen_boxed")
    config.arms.rl = base.arm("SimpleRL-Zoo 32B", "rl", "hkust-nlp/Qwen-2.5-32B-SimpleRL-Zoo", "qwen_boxed")
    return config
