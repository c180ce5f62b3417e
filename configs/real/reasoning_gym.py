"""One released model on data sets of reasoning-gym, whose problems are drawn and verified by that package: its curves.

Run it: pip install 'rlvr_limit[reasoning-gym]', then
    python main.py --config=configs/real/reasoning_gym.py [--config.arms.base.weights=FOLDER-or-FILE.gguf]
    [--config.benchmarks="('reasoning_gym_NAME',)"]
Hardware: two CPU cores for some hours, or any GPU.
Expected: not known beforehand.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes

DATA_SETS = ("chain_sum", "letter_counting", "number_sequence", "spell_backward")


def get_config() -> ConfigDict:
    """One arm; config.seed draws other problems of the same data sets, config.limit takes the first of each."""
    shape = {**shapes.QWEN25_05B, "context": 32_768}
    names = {f"reasoning_gym_{name}": 32 for name in DATA_SETS}
    config = base.released("reasoning_gym", "reasoning-gym", shape, names)
    config.purpose = "How many of these problems does one released model solve, and with how many tries?"
    config.caveat = "The problems were drawn for this page and the verifiers are the package's."
    config.grading.grader = "rlvr_limit.grading.reasoning_gym:grade"
    config.limit, config.sampling.max_tokens = 32, 512
    weights = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    config.arms.base = base.arm("the model", "base", weights, "qwen_boxed")
    return config
