"""What configs share; each config says only where it differs. Loaded by the configs, never by the package."""

from ml_collections import ConfigDict

QWEN_STOPS = ("<|im_end|>", "<|endoftext|>")
QWEN_MATH = {"gsm8k": 128, "math500": 128, "minerva_math": 128, "olympiadbench": 128, "aime24": 1024, "amc23": 1024}
"""Benchmarks of Fig. 2 and the samples per problem of each, for Qwen2.5."""

LLAMA_STOPS = ("<|eot_id|>", "<|end_of_text|>")


def defaults() -> ConfigDict:
    """Fields that have the same meaning, and mostly the same value, in every config."""
    return ConfigDict(
        {
            "job": "compare",
            "target": "cpu",
            "seed": 0,
            "runs": "runs",
            "run_dir": "",
            "checkpoint_seconds": 10.0,
            "flush_seconds": 1.0,
            "wandb": "",
            "allow_differ": (),
            "share_weights": False,
            "dtype": "float32",
            "mesh": {"data": 1, "fsdp": 1, "tensor": 1},
            "hosts": {"coordinator": "", "count": 0, "index": -1, "patience": 30.0, "hosts_per_replica": 1},
            "engine": {
                "max_num_seqs": 512,
                "steps_per_call": 9,
                "page_size": 18,
                "cache_tokens": 0,
                "cache_dtype": "",
                "buckets": (),
                "min_shared_prefix": 64,
                "speculative_tokens": 0,
                "max_prompt_len": 7,
                "prefill_rows": 16,
                "prefix_rows": 64,
                "reference": False,
            },
            "training": {"tokens": 0, "remat": "none", "param_dtype": ""},
            "grading": {"workers": 2, "seconds": 10.0, "grader": "math"},
            "score": {"answers": 16, "tokens": 12_800},
        }
    )


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
    config.data_dir = ""
    config.limit = 0
    config.engine.update(
        {"max_num_seqs": 256, "steps_per_call": 32, "page_size": 128, "max_prompt_len": 0, "prefill_rows": 8}
    )
    least = min(benchmarks.values())
    config.sampling = {
        "n": least,
        "n_of": {name: n for name, n in benchmarks.items() if n != least},
        "adaptive": 0,
        "max_tokens": 16_384,
        "temperature": 0.6,
        "top_p": 0.95,
        "allow_beyond_context": False,
    }
    config.score.tokens = 4_096
    config.report = {"k": 0}
    config.arms = {}
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


def reinforced(start: str, steps: int, save_at: tuple, optimizer: dict, **changes) -> dict:
    """A recipe of reinforcement with all fields that a command line may override; changes are those that differ."""
    return {
        "start": start,
        "algorithm": "grpo",
        "steps": steps,
        "save_at": save_at,
        "prompts": 64,
        "answers": 32,
        "minibatches": 4,
        "clip": 0.2,
        "clip_high": 0.0,
        "kl": 0.0,
        "importance_cap": 0.0,
        "rounds": 0,
        "overlong": "",
        "overlong_cache": 0,
        "pass_k": 0,
        "reward": "verdict",
        "limits": {"entropy": (), "length": (), "reward": ()},
        "data": (),
        "segment": 0,
        "lora_rank": 0,
        "lora_alpha": 32.0,
        "optimizer": optimizer,
        **changes,
    }


def limits(max_tokens: int) -> dict:
    """Where a released model's training has collapsed for sure, and not where it may only be on the way there.

    Entropy: 0.001 nats a token is one choice in thousands (policies that became all but deterministic in published runs
    stay above 0.01), 8 nats is 3,000 tokens alike. Length: almost nothing is said, or almost nothing ends. A reward of
    0 is no collapse: the first steps on hard problems may have it. Chosen without a run; no run was tuned by them.
    """
    return {"entropy": (0.001, 8.0), "length": (2.0, 0.95 * max_tokens), "reward": ()}


def adam(learning_rate: float, warmup: int, decay: str = "constant") -> dict:
    """Optimizer fields."""
    return {
        "learning_rate": learning_rate,
        "warmup": warmup,
        "decay": decay,
        "weight_decay": 0.0,
        "b2": 0.95,
        "clip_norm": 1.0,
        "kind": "adamw",
    }


def trained(label: str, prompt: str, recipe: dict, stop: tuple = QWEN_STOPS) -> dict:
    """An arm that is trained here by reinforcement; its tokenizer is that of the weights it starts from."""
    return {"label": label, "group": "rl", "weights": "", "prompt": prompt, "stop": stop, "rl": recipe}
