"""Qwen2.5-32B against DAPO-Qwen-32B on AIME24 (Yue et al. 2025, v5, Table 1 and Fig. 11).

Run it: python main.py --config=configs/released/dapo32b_math.py [--config.data_dir=FOLDER]
Hardware: what it takes on a machine: --config.job=plan --config.target=NAME
Expected: DAPO above the base at k = 1, the base level or ahead at k = 1,024. DAPO's weights and prompt are the old ones
that the authors ran, both since replaced on the hub. Their code also stopped answers at "Question:" and "Answer:";
this does not.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes


def get_config() -> ConfigDict:
    """Both arms: template dapo, <|im_end|> or <|endoftext|> ends an answer, context 131,072."""
    config = base.released("dapo32b_math", "Qwen2.5-32B: base against DAPO", shapes.QWEN25_32B, {"aime24": 1024})
    config.arms.base = base.arm("Qwen2.5-32B", "base", "Qwen/Qwen2.5-32B", "dapo")
    config.arms.rl = base.arm(
        "DAPO-Qwen-32B",
        "rl",
        "BytedTsinghua-SIA/DAPO-Qwen-32B",
        "dapo",
        revision="38b8075427d3f7d12075377d1e40495875066189",
    )
    return config
