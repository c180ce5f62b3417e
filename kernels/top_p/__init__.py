"""top-p truncation of next-token distributions."""

from __future__ import annotations

import jax

from kernels.platforms import by_platform
from kernels.top_p import gpu, reference, tpu

__all__ = ["top_p_mask"]


def top_p_mask(p_BV: jax.Array, top_p_B: jax.Array) -> jax.Array:
    """The smallest set of most likely tokens whose mass reaches top_p, with every token tied with the last one kept.

    p_BV float32 >= 0 and of sum 1; top_p_B in (0, 1]; returns bool [B, V] (Holtzman et al. 2020, eq. 2-3).
    """
    return by_platform(
        p_BV, top_p_B, default=reference.top_p_mask, tpu=tpu.top_p_mask, cuda=gpu.top_p_mask
    )
