"""Composed functions, trained to a depth and tested beyond it, every step verified: what is new, and what is luck.

Run it: python main.py --config=configs/toy/composition.py
Hardware: 2 CPU cores. Expected (docs/results.md): GRPO is right in 98 to 99 of 100 answers up to depth 2, where its
base is in 54 to 65; beyond it all arms are right by wrong steps at most, also the one that is trained at depth 3.

Eight functions on strings of four digits, told nowhere: the base learns them from demonstrations of depth 1 and 2, of
which half have a wrong digit in one step. GRPO is rewarded for right last strings, at depth 1 and 2 in one arm and up
to depth 3 in the other. Each depth from 1 to 4 is a page; a right answer counts by CoT-Pass@k where every step is
right (Wen et al. 2025, arXiv 2506.14245). Composition as what RL may teach: Yuan et al. 2025, arXiv 2509.25123.
"""

from ml_collections import ConfigDict

from configs.lib import base
from configs.lib.base import adam


def get_config() -> ConfigDict:
    """Base and two GRPO arms, which differ in the deepest problems that they are trained on."""
    config = base.defaults()
    config.name = "composition"
    config.title = "Composed functions: trained to a depth, tested beyond it"
    config.purpose = (
        "Does reinforcement learning teach a small decoder to compose functions to a depth at which its base is never "
        "right, and are its right answers reached by right steps?"
    )
    config.caveat = "A toy, chosen so that every step can be verified; it is no evidence about large models."
    config.task = {"depths": (1, 2, 3, 4), "eval_problems": 48}
    config.model = {"width": 128, "layers": 3, "heads": 4, "kv_heads": 2, "head_width": 32, "ffn_width": 256}
    config.sampling.update({"n": 128, "max_tokens": 26})
    config.report.k = 128
    shapes = {"max_num_seqs": 512, "buckets": (512,), "steps_per_call": 13, "page_size": 26, "max_prompt_len": 9}
    config.engine.update(shapes)
    config.score.tokens = 12_800
    pretrain = {"steps": 1800, "batch": 64, "right": 0.5, "data": depths(2), "optimizer": adam(3e-3, 50, "cosine")}
    config.arms = {"base": {"label": "base", "group": "base", "pretrain": pretrain}}
    for deepest in (2, 3):
        recipe = {"start": "base", "steps": 40, "save_at": (40,), "data": depths(deepest), "optimizer": adam(3e-4, 5)}
        config.arms[f"grpo_{deepest}"] = {"label": f"GRPO to depth {deepest}", "group": "rl", "rl": recipe}
    return config


def depths(deepest: int) -> tuple[str, ...]:
    """The names of problems up to a depth."""
    return tuple(f"depth{depth}" for depth in range(1, deepest + 1))
