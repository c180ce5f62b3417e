"""Settings of training: how the weights of an arm come about where they are not given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rlvr_limit.types import AtLeast, Interval, OneOf

ALGORITHMS = OneOf(
    "grpo", "dr_grpo", "rloo", "reinforcepp", "remax", "ppo", "dapo", "pass_at_k", "gspo", "cispo", "distill"
)
"""Rows of rl/algorithms.py."""


@dataclass(frozen=True)
class Training:
    """How a training step is computed; all but the last two are without influence on it but for rounding."""

    tokens: Annotated[int, AtLeast(-1)] = 0  # of a device's microbatch, packed in rows; 0: auto, -1: a whole minibatch
    remat: Annotated[str, OneOf("", "none", "products", "layers")] = ""  # activations that are computed again; "": auto
    param_dtype: Annotated[str, OneOf("", "float32", "bfloat16")] = ""  # of weights in training; "": the model's
    vision: bool = True  # the vision tower is trained too, where there is one


@dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer and its schedule; rl/optimizers.py has the bytes that each kind takes."""

    learning_rate: Annotated[float, AtLeast(0)]
    warmup: Annotated[int, AtLeast(0)] = 20  # steps of a linear rise
    decay: Annotated[str, OneOf("constant", "cosine")] = "constant"  # cosine: to a tenth of the peak by the last step
    weight_decay: Annotated[float, AtLeast(0)] = 0.0
    b2: Annotated[float, Interval("[0, 1)")] = 0.95  # of Adam; Adafactor has 1 - t^-0.8
    clip_norm: Annotated[float, Interval("(0, inf)")] = 1.0  # largest norm of a gradient
    kind: Annotated[str, OneOf("adamw", "adamw_bf16", "adafactor")] = "adamw"


@dataclass(frozen=True)
class Supervised:
    """Training on demonstrations: a task's own, files, or right answers of another arm."""

    steps: Annotated[int, AtLeast(1)]
    batch: Annotated[int, AtLeast(1)]  # demonstrations a step
    optimizer: OptimizerConfig
    right: Annotated[float, Interval("[0, 1]")] = 1.0  # share of a task's own demonstrations that are right
    start: str = ""  # the arm whose weights it starts from; "": a fresh model
    data: tuple[str, ...] = ()  # files of {"prompt", "response"} a line; with a teacher, or of a task: as rl.data
    teacher: str = ""  # an arm whose right answers are the demonstrations; of a reinforced one its last step
    answers: Annotated[int, AtLeast(1)] = 4  # answers of the teacher to each training problem
    lora_rank: Annotated[int, AtLeast(0)] = 0  # adapters of this rank are trained; 0: all weights
    lora_alpha: Annotated[float, Interval("(0, inf)")] = 32.0  # adapters are scaled by lora_alpha / lora_rank


@dataclass(frozen=True)
class Limits:
    """(least, most) of a step's means; () is no limit. A run that leaves them has collapsed and is stopped."""

    entropy: tuple[float, ...] = ()  # nats a token
    length: tuple[float, ...] = ()  # tokens an answer
    reward: tuple[float, ...] = ()


@dataclass(frozen=True)
class Reinforced:
    """Reinforcement learning with verifiable rewards. A row of rl/algorithms.py, and what this recipe changes of it."""

    start: str  # the arm whose weights it starts from
    steps: Annotated[int, AtLeast(1)]
    save_at: tuple[Annotated[int, AtLeast(1)], ...]  # the weights after these steps are arms of their own
    optimizer: OptimizerConfig
    algorithm: Annotated[str, ALGORITHMS] = "grpo"
    prompts: Annotated[int, AtLeast(1)] = 64  # problems a step
    answers: Annotated[int, AtLeast(1)] = 32  # answers to each
    max_tokens: Annotated[int, AtLeast(0)] = 0  # most tokens of an answer while training; 0: sampling.max_tokens
    minibatches: Annotated[int, AtLeast(1)] = 4  # updates a step
    clip: Annotated[float, Interval("[0, 1)")] = 0.0  # the ratio is held in [1 - clip, 1 + clip_high]; 0: the row's
    clip_high: Annotated[float, AtLeast(0)] = 0.0  # 0: the algorithm's, or clip
    kl: Annotated[float, AtLeast(0)] = 0.0  # coefficient of the penalty towards start
    importance_cap: Annotated[float, AtLeast(0)] = 0.0  # most of P_trainer / P_sampler; 0: not weighed by it
    rounds: Annotated[int, AtLeast(0)] = 0  # draws of prompts to find mixed groups; 1: take all; 0: the row's
    # keep; shape: a penalty that falls to -1 over the last overlong_cache tokens; mask: truncated answers are left out
    overlong: Annotated[str, OneOf("", "keep", "shape", "mask")] = ""  # "": the algorithm's
    overlong_cache: Annotated[int, AtLeast(0)] = 0  # 0: only what is truncated is penalised
    pass_k: Annotated[int, AtLeast(0)] = 0  # k of pass_at_k
    teacher: str = ""  # of distill: the arm, of the same tokenizer, whose log-probs of the answers are their advantage
    gae_lambda: Annotated[float, Interval("[0, 1]")] = 1.0  # of PPO, as the four below
    # probe: a linear map of the policy's features; full: a decoder of its own from the same start, as in veRL
    critic: Annotated[str, OneOf("probe", "full")] = "probe"
    value_optimizer: OptimizerConfig | None = None
    value_coefficient: Annotated[float, AtLeast(0)] = 0.5
    value_clip: Annotated[float, AtLeast(0)] = 0.5
    # verdict: 1 for a right answer; a null control: random, inverted, format (1 for one that can be read) or likelihood
    # (the policy's own, nats a token); or "module:function": (problem, texts) -> a number a text
    reward: str = "verdict"
    limits: Limits = Limits()
    # gsm8k_train, math_train, omni_train, or files of problems; of a task depth1, depth2 and so on, (): all it has
    data: tuple[str, ...] = ()
    unsolved_in: str = ""  # a CSV of counts (problem,arm,n,correct): of data only what start is right on in none there
    segment: Annotated[int, AtLeast(0)] = 0  # tokens of an answer drawn in one step, off-policy; 0: whole answers
    lora_rank: Annotated[int, AtLeast(0)] = 0  # adapters of this rank are trained; 0: all weights
    lora_alpha: Annotated[float, Interval("(0, inf)")] = 32.0  # adapters are scaled by lora_alpha / lora_rank
