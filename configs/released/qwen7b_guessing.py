"""Qwen2.5-7B against SimpleRL-Zoo on AIME24 without the problems that guessing solves (Yue et al. 2025, v5, Fig. 13).

Run it: python main.py --config=configs/released/qwen7b_guessing.py [--config.data_dir=FOLDER]
Hardware: one H200 or v5e-8; what it takes there: --config.job=plan --config.target=h200
Expected: on what is left (18 of 30 in the paper) SimpleRL above the base at k = 1, and below it at the largest k. A
problem is left out where the base, asked for the answer alone, is right at a rate in (0, 5 %). How often the paper
asked, and in which words, is not known: 1,024 times and the words of answer_only are ours.
"""

from ml_collections import ConfigDict

from configs import qwen7b_math
from configs.lib import base


def get_config() -> ConfigDict:
    """The arms of configs/qwen7b_math.py on AIME24, and the base again, asked for the answer alone."""
    config = qwen7b_math.get_config()
    config.name, config.title = "qwen7b_guessing", "Qwen2.5-7B and SimpleRL-Zoo without guessable problems"
    config.benchmarks = ("aime24",)
    base.ask_for_answer_only(config)
    return config
