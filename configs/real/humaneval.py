"""One released model on HumanEval+, asked as Qwen2.5-Coder's own evaluation asks: its curve, no comparison.

Run it: python main.py --config=configs/real/humaneval.py [--config.arms.base.weights=FOLDER-or-FILE.gguf]
    [--config.data_dir=FOLDER]; greedy: --config.sampling.temperature=0.0 --config.sampling.n=1
Hardware: two CPU cores or any GPU; programs run on Linux.
Expected: greedy pass@1 of 57.3 % for Qwen2.5-Coder-0.5B-Instruct and 66.5 % for 1.5B, of 61.6 and 70.7 % on the base
    tests alone (arXiv 2412.05210).
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes


def get_config() -> ConfigDict:
    """One arm: template qwen_coder; the model's own tokens end an answer, of which the program ends at the fence."""
    shape = {**shapes.QWEN25_05B, "context": 32_768}
    config = base.released("humaneval", "HumanEval+", shape, {"humanevalplus": 32})
    config.purpose = "How many of these problems does one released model solve, and with how many tries?"
    config.sampling.max_tokens = 768
    config.grading.seconds = 300.0
    weights = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    config.arms.base = base.arm("the model", "base", weights, "qwen_coder", stop=())
    return config
