"""top-p truncation of next-token distributions."""

import jax

from kernels.top_p import cpu, reference


def top_p_mask(p_BV: jax.Array, top_p_B: jax.Array) -> jax.Array:
    """reference.top_p_mask, by what is fast on the platform that the program is compiled for."""
    return jax.lax.platform_dependent(p_BV, top_p_B, cpu=cpu.top_p_mask, default=reference.top_p_mask)


__all__ = ["top_p_mask"]
