"""Qwen2.5-7B trained here by REINFORCE++ on Omni-MATH, and its base (Yue et al. 2025, sec. 4.3, Fig. 8, Table 2).

Run it: python main.py --config=configs/trained/qwen7b_reinforcepp.py [--config.data_dir=FOLDER]
Hardware: what it takes on a machine: --config.job=plan --config.target=NAME
Expected: a small difference to the other algorithms; Delta_SE stays large for all of them.
"""

from ml_collections import ConfigDict

from configs.trained import qwen7b_grpo


def get_config() -> ConfigDict:
    """As configs/trained/qwen7b_grpo.py in all that is not said here."""
    return qwen7b_grpo.study("reinforcepp", "REINFORCE++")
