"""What a trained policy is rewarded for: the verdict, a null control, or a function of one's own, checked when called.

Null controls reward what says nothing of being right: what a policy gains from them too is no effect of verified
rewards (Shao et al. 2025, "Spurious Rewards", arXiv 2506.10947).
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
from collections.abc import Callable, Sequence

from rlvr_limit.types import Problem, Sample, Status, UserError, Verdict, not_allowed

Reward = Callable[[Problem, Sequence[str]], Sequence[float]]
"""Rewards of some answers to one problem, one a text."""

RULES = ("verdict", "random", "inverted", "format", "likelihood")
"""Rewards with names; all but the first are null controls."""


def coin(stream: str, problem: Problem, sample: Sample) -> float:
    """0 or 1 with equal chance, by what the answer is: the stream it was drawn in, its problem, index and tokens."""
    name = f"{stream}/{problem.id}/{sample.index}/{','.join(map(str, sample.tokens))}"
    return float(hashlib.sha256(name.encode()).digest()[0] & 1)


def named_reward(name: str, stream: str, problem: Problem, sample: Sample, verdict: Verdict) -> float:
    """What a judged answer earns by one of RULES; likelihood is the policy's own mean log-probability, nats a token."""
    match name:
        case "random":
            return coin(stream, problem, sample)
        case "inverted":
            return float(not verdict.correct)
        case "format":
            return float(verdict.status != Status.NO_ANSWER)
        case "likelihood":
            return sum(sample.logp_model) / max(len(sample.logp_model), 1)
    return float(verdict.correct)


def reward_named(name: str, where: str) -> Reward | None:
    """The function that "module:function" names; None for a name of RULES. UserError, naming `where`, if none."""
    if name in RULES:
        return None
    module_name, colon, function_name = name.partition(":")
    if not (colon and module_name and function_name.isidentifier()):
        raise not_allowed(where, name, f"{', '.join(RULES)} or module:function")
    try:
        function = getattr(importlib.import_module(module_name), function_name, None)
    except ImportError as error:
        raise UserError(f"{where}: {module_name} cannot be imported ({error})") from error
    if not inspect.isfunction(function):
        raise UserError(f"{where}: {module_name} has no function {function_name!r}")
    return function


def source_digest(reward: Reward) -> str:
    """First 8 hex characters of the SHA-256 of the module's source: another source is another condition of a run."""
    return hashlib.sha256(inspect.getsource(inspect.getmodule(reward)).encode()).hexdigest()[:8]


def call_reward(reward: Reward, where: str, problem: Problem, texts: Sequence[str]) -> list[float]:
    """reward(problem, texts) as floats. UserError, one line, where it raises or returns what no reward can be."""
    here = f"{where}: problem {problem.id}"
    try:
        rewards = list(reward(problem, texts))
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{here}: the reward function raised {said}") from error
    if len(rewards) != len(texts):
        raise UserError(f"{here}: the reward function returned {len(rewards)} rewards for {len(texts)} answers")
    for i, value in enumerate(rewards):
        # Booleans, NumPy's numbers and JAX's scalars are numbers too; text that float() could read is not.
        if isinstance(value, str) or not hasattr(value, "__float__") or not math.isfinite(float(value)):
            raise not_allowed(f"{here}: the reward of answer {i}", value, "a finite number")
    return [float(value) for value in rewards]
