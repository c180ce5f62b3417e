"""top-p truncation of next-token distributions. On a CPU it stands in where the C++ of kernels/draw is not built."""

from __future__ import annotations

import jax

from kernels.platforms import by_platform
from kernels.top_p import gpu, reference, tpu


def top_p_mask(p_BV: jax.Array, top_p_B: jax.Array) -> jax.Array:
    """reference.top_p_mask, by what is fast on the platform that the program is compiled for."""
    return by_platform(p_BV, top_p_B, default=reference.top_p_mask, tpu=tpu.top_p_mask, cuda=gpu.top_p_mask)
