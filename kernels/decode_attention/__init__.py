"""Attention of one new token a row over keys and values that lie in pages, own and shared."""

from __future__ import annotations

from functools import partial

import jax

from kernels.decode_attention import gpu, reference, tpu
from kernels.decode_attention.plan import EMPTY, Partial, Plan
from kernels.platforms import by_platform

__all__ = ["EMPTY", "Partial", "Plan", "decode_attention"]


def decode_attention(q_BKGH: jax.Array, k_PKHC: jax.Array, v_PKCH: jax.Array, plan: Plan, tile: int) -> Partial:
    """Attention of one query a row over its own pages and over those shared with its prompt's other rows.

    Scores are q k / sqrt(H); scores, softmax and sums in float32; products of q, k and of weights, v in their dtype.
    On a TPU, C is a multiple of 128 and H at most 128, or ValueError is raised.
    """
    return by_platform(
        q_BKGH,
        k_PKHC,
        v_PKCH,
        plan,
        default=partial(reference.decode_attention, tile=tile),
        tpu=partial(tpu.decode_attention, tile=tile),
        cuda=partial(gpu.decode_attention, tile=tile),
    )
