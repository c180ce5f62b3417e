"""Softmax attention of whole rows to keys that come in parts, and its gradient. Legend and contract: reference.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import jax

from kernels.attention import cpu, gpu, reference, tpu
from kernels.attention.join import Parts, join
from kernels.attention.reference import AttentionPart
from kernels.platforms import by_platform

__all__ = ["AttentionPart", "attention"]


def attention(q_BTNH: jax.Array, parts: Parts) -> jax.Array:
    """Attention to the keys of all parts under one softmax: [B, T, N, H], in the dtype of q.

    Each query must see some key, and none in two parts: it would count twice. Takes memory in T and not in T^2, in the
    backward pass too. By what is fast on the platform that the program is compiled for.
    """
    if not cpu.takes(parts):
        return _joined()(q_BTNH, parts)
    return jax.lax.platform_dependent(q_BTNH, parts, cpu=cpu.attention, default=_joined())


@cache
def _joined() -> Callable[[jax.Array, Parts], jax.Array]:
    """Made once: what it has traced is kept with it."""
    return join(_forward, _backward)


def _forward(q_BTNH: jax.Array, part: AttentionPart) -> tuple[jax.Array, jax.Array]:
    plain = reference.forward
    on_tpu = tpu.forward if tpu.takes(q_BTNH, part) else plain
    on_gpu = gpu.forward if gpu.takes(q_BTNH, part) else plain
    return by_platform(q_BTNH, part, default=plain, tpu=on_tpu, cuda=on_gpu)


def _backward(q_BTNH: jax.Array, part: AttentionPart, *of_all: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    plain = reference.backward
    on_tpu = tpu.backward if tpu.takes(q_BTNH, part) else plain
    on_gpu = gpu.backward if gpu.takes(q_BTNH, part) else plain
    return by_platform(q_BTNH, part, *of_all, default=plain, tpu=on_tpu, cuda=on_gpu)
