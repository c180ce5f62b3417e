"""Qwen2.5-7B trained here by DAPO on Omni-MATH, and its base (Yue et al. 2025, sec. 4.3, Fig. 8, Table 2).

Run it: python main.py --config=configs/trained/qwen7b_dapo.py [--config.data_dir=FOLDER]
Hardware: what it takes on a machine: --config.job=plan --config.target=NAME
Expected: the largest pass@1 of the six, at three to six times the samples; Delta_SE stays large.
Fresh prompts are drawn until 128 groups are mixed; answers within 1,024 tokens of the limit are penalised.
"""

from ml_collections import ConfigDict

from configs.trained import qwen7b_grpo


def get_config() -> ConfigDict:
    """As configs/trained/qwen7b_grpo.py in all that is not said here."""
    return qwen7b_grpo.study("dapo", "DAPO", overlong_cache=1024)
