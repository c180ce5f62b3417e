"""Qwen2.5-7B trained here by GRPO on Omni-MATH, and its base (Yue et al. 2025, v5, sec. 4.3, Figs. 1 and 8, Table 4).

Run it: python main.py --config=configs/trained/qwen7b_grpo.py --config.data_dir=FOLDER
Hardware: what it takes on a machine: --config.job=plan --config.target=NAME
Expected: pass@1 above the base's, pass@256 at or below it; more so at steps 300 and 450. This is one arm of
configs/trained/omni_algorithms.py, which says what its settings are and whence.
"""

from ml_collections import ConfigDict

from configs.trained import omni_algorithms


def get_config() -> ConfigDict:
    """Base and GRPO at steps 150, 300 and 450."""
    return omni_algorithms.study("qwen7b_grpo", "Qwen2.5-7B: GRPO trained here", ("grpo",))
