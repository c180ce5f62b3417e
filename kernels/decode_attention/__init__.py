"""Attention of one new token a row over keys and values that lie in pages, own and shared."""

import jax

from kernels.decode_attention import cpu, reference
from kernels.decode_attention.plan import EMPTY, GROUP, Partial, Plan, join


def decode_attention(q_BKGH: jax.Array, k_PKHC: jax.Array, v_PKCH: jax.Array, plan: Plan, tile: int) -> Partial:
    """reference.decode_attention, by what is fast on the platform that the program is compiled for."""
    return jax.lax.platform_dependent(
        q_BKGH,
        k_PKHC,
        v_PKCH,
        plan,
        cpu=lambda *args: cpu.decode_attention(*args, tile),
        default=lambda *args: reference.decode_attention(*args, tile),
    )


__all__ = ["EMPTY", "GROUP", "Partial", "Plan", "decode_attention", "join"]
