"""Attention of one new token a row over keys and values that lie in pages, own and shared."""

from __future__ import annotations

from functools import partial

import jax

from kernels.decode_attention import cpu, gpu, hopper, reference, tpu
from kernels.decode_attention.pages import Pages, quantised
from kernels.decode_attention.plan import EMPTY, GROUP, Partial, Plan, Tiling, join, tiling
from kernels.platforms import by_platform

__all__ = ["EMPTY", "GROUP", "Pages", "Partial", "Plan", "Tiling", "decode_attention", "join", "quantised", "tiling"]


def decode_attention(
    q_BKGH: jax.Array, k_PKHC: jax.Array | Pages, v_PKCH: jax.Array | Pages, plan: Plan, tile: int
) -> Partial:
    """reference.decode_attention, by what is fast on the platform that the program is compiled for.

    The kernels proper take pages of whole tiles in the dtype of q (tpu.takes, hopper.takes); for others, those in 8
    bits among them, both get plain XLA.
    """
    on_tpu = tpu if tpu.takes(q_BKGH, k_PKHC) else gpu
    on_gpu = hopper if hopper.takes(q_BKGH, k_PKHC, tile) else gpu
    return by_platform(
        q_BKGH,
        k_PKHC,
        v_PKCH,
        plan,
        default=partial(reference.decode_attention, tile=tile),
        cpu=partial(cpu.decode_attention, tile=tile),
        tpu=partial(on_tpu.decode_attention, tile=tile),
        cuda=partial(on_gpu.decode_attention, tile=tile),
    )
