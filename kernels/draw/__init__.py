"""Drawing a token of each row: temperature, truncation, inverse CDF and log-probs."""

from __future__ import annotations

import jax

from kernels.draw import native, reference
from kernels.draw.reference import SamplingTensors, Truncations, truncations_used
from kernels.platforms import by_platform


def draw(
    logits_BV: jax.Array, u_B: jax.Array, sampling: SamplingTensors, truncations: Truncations
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """reference.draw, by what is fast on the platform that the program is compiled for.

    Accelerators compose it of the kernels that reference.py calls.
    """
    whole = reference.draw
    on_cpu = native.draw if native.takes(logits_BV) else whole
    return by_platform(logits_BV, u_B, sampling, truncations, default=whole, cpu=on_cpu, tpu=whole, cuda=whole)
