"""Products of activations and weights: few rows of bfloat16 on a CPU. Legend: reference.py."""

from __future__ import annotations

from functools import partial

import jax

from kernels.matmul import native, reference
from kernels.platforms import by_platform


def matmul(x_MK: jax.Array, w: jax.Array, transposed: bool = False) -> jax.Array:
    """reference.matmul: x [M, K] times w [K, N], or transposed [N, K], float32 [M, N]; by what is fast on the platform.

    What is differentiated is XLA's: its products are those that jax.checkpoint knows as such.
    """
    plain = partial(reference.matmul, transposed=transposed)
    if not native.takes(x_MK, w):
        return plain(x_MK, w)

    def multiply(x_MK: jax.Array, w: jax.Array) -> jax.Array:
        on_cpu = partial(native.matmul, transposed=transposed)
        return by_platform(x_MK, w, default=plain, cpu=on_cpu, tpu=plain, cuda=plain)

    product = jax.custom_vjp(multiply)
    product.defvjp(
        lambda x_MK, w: (plain(x_MK, w), (x_MK, w)), lambda factors, cotangent: jax.vjp(plain, *factors)[1](cotangent)
    )
    return product(x_MK, w)
