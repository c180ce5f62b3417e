"""Rewards of one's own, good and bad, as a config names them: module:function."""

from __future__ import annotations

from collections.abc import Sequence

from rlvr_limit.types import Problem


def words(problem: Problem, texts: Sequence[str]) -> list[int]:
    """More words are worth more."""
    return [len(text.split()) for text in texts]


def always_one(problem: Problem, texts: Sequence[str]) -> list[float]:
    return [1.0 for _ in texts]


def huge(problem: Problem, texts: Sequence[str]) -> list[float]:
    """Finite, but no float32."""
    return [1e300 * len(text) for text in texts]


def raises(problem: Problem, texts: Sequence[str]) -> list[float]:
    raise KeyError("no such\nanswer")


def not_a_number(problem: Problem, texts: Sequence[str]) -> list[float]:
    return [0.0] * (len(texts) - 1) + [float("nan")]


def too_few(problem: Problem, texts: Sequence[str]) -> list[float]:
    return [0.0] * (len(texts) - 1)


def text(problem: Problem, texts: Sequence[str]) -> list[str]:
    return ["1.0"] * len(texts)
