"""A small released model trained here by GRPO on Countdown in words, beside its base and a control of coin tosses.

Run it: python main.py --config=configs/real/countdown_words.py [--config.arms.base.weights=FOLDER-or-FILE.gguf]
Hardware: two CPU cores for some hours, or any GPU; it can be stopped at any point and goes on where it was.
Expected: not known beforehand; docs/results.md has what came out.

The model is asked for one expression, about ten tokens, so that 64 samples of 64 problems from four arms are few enough
for two cores. How often a player is right who knows the rules and nothing else is known exactly.
"""

from ml_collections import ConfigDict

from configs.lib import base, shapes

TEST, TRAIN = (f"configs/real/countdown_words_{part}.jsonl" for part in ("test", "train"))
STOPS = ("Ċ", "ĊĊ", "<|im_end|>", "<|endoftext|>")
"""An answer is one line: the vocabulary's tokens of one and two line ends, and the model's own ends."""


def get_config() -> ConfigDict:
    """Base, GRPO after 8 and 32 steps, and 32 steps of the same on coin tosses; adapters of rank 16 are trained."""
    shape = {**shapes.QWEN25_05B, "context": 32_768}
    config = base.released("countdown_words", "Qwen2.5-Coder-0.5B-Instruct on Countdown in words", shape, {TEST: 64})
    config.grading.grader = "rlvr_limit.grading.expressions:grade"
    config.sampling.update({"temperature": 1.0, "top_p": 1.0, "max_tokens": 20})
    config.score.answers = 4
    weights = "Qwen/Qwen2.5-Coder-0.5B-Instruct"
    config.arms.base = base.arm("Coder-0.5B", "base", weights, "countdown_words", stop=STOPS)
    recipe = {
        "start": "base",
        "steps": 32,
        "save_at": (8, 32),
        "prompts": 8,
        "answers": 16,
        "minibatches": 1,
        "data": (TRAIN,),
        "lora_rank": 16,
        "limits": base.limits(config.sampling.max_tokens),
        "optimizer": base.adam(1e-4, 2),
    }
    control = {**recipe, "save_at": (32,), "reward": "random"}
    config.arms.grpo = base.trained("GRPO", "countdown_words", recipe, stop=STOPS)
    config.arms.control = base.trained("GRPO on coin tosses", "countdown_words", control, stop=STOPS)
    config.arms.control["group"] = "control"
    return config
