"""Qwen2.5-VL-7B-Instruct against its EasyR1 descendant on MathVista and MathVision (Yue et al. 2025, v2, Fig. 4).

Run it: python main.py --config=configs/released/qwen_vl7b_visual.py --config.arms.rl.weights=FOLDER
Hardware: what it takes on a machine: --config.job=plan --config.target=NAME
Expected: the descendant above the base at k = 1, below it from k = 4 to 8 on (MathVista) and 2 to 4 (MathVision).

Multiple choice is left out of both, as in the paper. Its trained weights are not published as far as we found: give a
folder of such weights, or train some with configs/trained/qwen_vl7b_geometry3k.py. MathVista is judged by its own rule,
with the rule of EasyR1's reward as the second opinion; most references are 0 to 10, so look at the curves after
guessing as well.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes

VL7B = "Qwen/Qwen2.5-VL-7B-Instruct"


def get_config() -> ConfigDict:
    """Both arms: template visual, <|im_end|> or <|endoftext|> ends an answer, the hub file's pixel limits."""
    benchmarks = {"mathvista": 128, "mathvision": 128}
    title = "Qwen2.5-VL-7B: Instruct against EasyR1"
    config = base.released("qwen_vl7b_visual", title, shapes.QWEN25_VL_7B, benchmarks)
    config.grading.grader = "visual"
    config.arms.base = base.arm("Qwen2.5-VL-7B-Instruct", "base", VL7B, "visual")
    config.arms.rl = base.arm("EasyR1", "rl", "", "visual")
    return config
