"""What configs share; each config says only where it differs. Loaded by the configs, never by the package.

Figures and tables that configs name are numbered as in v5 of the paper, arXiv 2504.13837v5, unless they say v2.
"""

import dataclasses

from ml_collections import ConfigDict

from rlvr_limit.settings import Settings

QWEN_STOPS = ("<|im_end|>", "<|endoftext|>")
QWEN_MATH = {"gsm8k": 128, "math500": 128, "minerva_math": 128, "olympiadbench": 128, "aime24": 1024, "amc23": 1024}
"""Benchmarks of Fig. 2 and the samples per problem of each, for Qwen2.5."""

QWEN25_7B_REVISION = "d149729398750b98c0af14eb82c78cfe92750796"
LLAMA_STOPS = ("<|eot_id|>", "<|end_of_text|>")


def defaults() -> ConfigDict:
    """Every field with its default; a config says only where it differs."""
    return ConfigDict(dataclasses.asdict(Settings()))


def released(name: str, title: str, shape: dict, benchmarks: dict[str, int]) -> ConfigDict:
    """A comparison of released weights on benchmarks {name: n}, sampled as in the paper: T = 0.6, top-p 0.95.

    shape is that of the base, for job=plan, which needs no weights; a run reads every arm's own config.json.
    """
    config = defaults()
    config.name, config.title, config.model = name, title, shape
    config.purpose = (
        "Does reinforcement learning with verifiable rewards let this model solve problems that its base cannot, or "
        "does it only make right answers more likely that the base already has?"
    )
    config.caveat = (
        "What these models were trained on is not known in full: benchmark problems may have been part of it. The "
        "bands speak of other problems of the same kind, not of other training runs."
    )
    config.dtype = "bfloat16"
    config.benchmarks = tuple(benchmarks)
    config.engine.update({"steps_per_call": 32, "page_size": 128, "max_prompt_len": 0})
    least = min(benchmarks.values())
    config.sampling.update({"n": least, "n_of": {name: n for name, n in benchmarks.items() if n != least}})
    config.sampling.update({"temperature": 0.6, "top_p": 0.95})
    return config


def arm(label: str, group: str, weights: str, prompt: str, stop: tuple = QWEN_STOPS, revision: str = "main") -> dict:
    """An arm of released weights; a local folder in place of the hub name needs no revision."""
    return {
        "label": label,
        "group": group,
        "weights": weights,
        "revision": revision,
        "prompt": prompt,
        "stop": stop,
    }


def ask_for_answer_only(config: ConfigDict) -> None:
    """Adds the base asked for the answer alone; problems that it then solves rarely are shown to be guessable."""
    own = config.arms.base
    config.allow_differ = (*config.allow_differ, "template")
    config.arms.answer_only = {
        "label": f"{own.label}, answer alone",
        "group": "other",
        "weights_of": "base",
        "prompt": "answer_only",
        "stop": own.stop,
    }


def audit(config: ConfigDict, name: str) -> None:
    """Adds views of an arm that are asked the beginnings of questions; the config draws one greedy answer each."""
    config.allow_differ = (*config.allow_differ, "template")
    for percent in (40, 60, 80):
        config.arms[f"{name}_first_{percent}"] = {
            "label": f"{config.arms[name].label}, first {percent} %",
            "group": "other",
            "weights_of": name,
            "asked_first": percent / 100,
        }


def limits(max_tokens: int) -> dict:
    """Where a released model's training has collapsed for sure, and not where it may only be on the way there.

    Entropy: 0.001 nats a token is one choice in thousands (policies that became all but deterministic in published runs
    stay above 0.01), 8 nats is 3,000 tokens alike. Length: almost nothing is said, or almost nothing ends. A reward of
    0 is no collapse: the first steps on hard problems may have it. Chosen without a run; no run was tuned by them.
    """
    return {"entropy": (0.001, 8.0), "length": (2.0, 0.95 * max_tokens), "reward": ()}


def adam(learning_rate: float, warmup: int, decay: str = "constant") -> dict:
    """An optimizer that differs from the default in these fields."""
    return {"learning_rate": learning_rate, "warmup": warmup, "decay": decay}


def trained(label: str, prompt: str, recipe: dict, stop: tuple = QWEN_STOPS) -> dict:
    """An arm that is trained here by reinforcement; its tokenizer is that of the weights it starts from."""
    return {"label": label, "group": "rl", "prompt": prompt, "stop": stop, "rl": recipe}
