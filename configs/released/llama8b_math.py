"""LLaMA-3.1-8B against its SimpleRL-Zoo descendant on six math benchmarks (Yue et al. 2025, v5, Figs. 2, 10).

Run it: python main.py --config=configs/released/llama8b_math.py [--config.data_dir=FOLDER]
Hardware: one H200 or v5e-8; what it takes there: --config.job=plan --config.target=h200
Expected: SimpleRL above the base at k = 1, the base ahead at the largest k. Revisions not checked; the base's weights
are behind Meta's licence on the hub (HF_TOKEN). The prompt is SimpleRL-Zoo's own for LLaMA; the paper's authors name
qwen_boxed for all SimpleRL-Zoo models, and whether for LLaMA too is not known.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes

MATH = {**base.QWEN_MATH, "olympiadbench": 1024}


def get_config() -> ConfigDict:
    """Both arms: template simplerl_llama, <|eot_id|> or <|end_of_text|> ends an answer, context 131,072."""
    config = base.released("llama8b_math", "LLaMA-3.1-8B: base against SimpleRL-Zoo", shapes.LLAMA31_8B, MATH)
    asked = {"prompt": "simplerl_llama", "stop": base.LLAMA_STOPS}
    config.arms.base = base.arm("LLaMA-3.1-8B", "base", "meta-llama/Llama-3.1-8B", **asked)
    config.arms.rl = base.arm("SimpleRL-Zoo 8B", "rl", "hkust-nlp/Llama-3.1-8B-SimpleRL-Zoo", **asked)
    return config
