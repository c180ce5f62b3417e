"""A small released model trained here by GRPO on Countdown in words, beside its base and a control of coin tosses.

Run it: python main.py --config=configs/real/countdown_words.py [--config.arms.base.weights=FOLDER-or-FILE.gguf]
Hardware: two CPU cores for about an hour, or any GPU; it can be stopped at any point and goes on where it was.
Expected: not known beforehand; docs/results.md has what came out.

The model is asked for one expression, about ten tokens, so that 64 samples of 64 problems from four arms are few enough
for two cores. How often a player is right who knows the rules and nothing else is known exactly.
"""

from ml_collections import ConfigDict

from configs.lib import base

TEST, TRAIN = (f"configs/real/countdown_words_{part}.jsonl" for part in ("test", "train"))
STOPS = ("Ċ", "ĊĊ", "<|im_end|>")
"""An answer is one line: the vocabulary's tokens of one and two line ends, and the model's own ends."""


def get_config() -> ConfigDict:
    """Base, GRPO after 8 and 24 steps, and 24 steps of the same on coin tosses."""
    shape = {"layers": 30, "width": 576, "heads": 9, "kv_heads": 3, "head_width": 64, "ffn_width": 1536}
    shape |= {"vocab_size": 49_152, "qkv_bias": False, "tied_embedding": True, "context": 8192}
    config = base.released("countdown_words", "SmolLM2-135M-Instruct on Countdown in words", shape, {TEST: 64})
    config.grading.grader = "rlvr_limit.grading.expressions:grade"
    config.sampling.update({"temperature": 1.0, "top_p": 1.0, "max_tokens": 20})
    config.engine.steps_per_call = 5  # most answers end after ten tokens
    config.score.answers = 2
    config.training.param_dtype = "float32"
    weights = "HuggingFaceTB/SmolLM2-135M-Instruct"
    config.arms.base = base.arm("SmolLM2-135M", "base", weights, "countdown_words", stop=STOPS)
    recipe = {
        "start": "base",
        "steps": 24,
        "save_at": (8, 24),
        "prompts": 8,
        "answers": 16,
        "minibatches": 1,
        "data": (TRAIN,),
        "limits": base.limits(config.sampling.max_tokens),
        "optimizer": base.adam(3e-5, 2),
    }
    control = {**recipe, "save_at": (24,), "reward": "random"}
    config.arms.grpo = base.trained("GRPO", "countdown_words", recipe, stop=STOPS)
    config.arms.control = base.trained("GRPO on coin tosses", "countdown_words", control, stop=STOPS)
    config.arms.control["group"] = "control"
    return config
