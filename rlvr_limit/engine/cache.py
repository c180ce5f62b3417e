"""The cache: pages of keys and values of every layer, in the model's dtype or in 8 bits.

In 8 bits, as KIVI has it (Liu et al. 2024, arXiv 2402.02750, sec. 4): a few channels of the keys are much larger than
all others, so keys share a scale by channel, over the tokens of one window; values share one by token. A window is
cached as a whole, and again as a whole where it is fed again, so that what stands for a token in the cache depends on
its own sample or prompt alone.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.decode_attention import PageArray, QuantizedPages, quantize
from rlvr_limit.models.decoder import ModelConfig

Pool = list[tuple[PageArray, PageArray]]
"""One (k_PKHC, v_PKCH) pair a layer: the layouts in which both products of decode attention read memory in order."""

INT8 = "int8"
"""The cache's dtype, where it is not the model's."""


def empty_pool(config: ModelConfig, pages: int, page: int, dtype: str = "", window: int = 1) -> Pool:
    """Zeros for the keys and values of `pages` pages of `page` tokens, whole windows, in every layer."""
    k, v = (pages, config.kv_heads, config.head_width, page), (pages, config.kv_heads, page, config.head_width)

    def zeros(shape: tuple[int, ...], runs: int) -> PageArray:
        if dtype != INT8:
            return jnp.zeros(shape, config.dtype)
        return QuantizedPages(jnp.zeros(shape, jnp.int8), jnp.zeros((*shape[:-1], runs), jnp.bfloat16))

    return [(zeros(k, page // window), zeros(v, 1)) for _ in range(config.layers)]


def as_cached(k_NKHC: jax.Array, v_NKCH: jax.Array, dtype: str, window: int) -> tuple:
    """Keys and values of whole windows as a cache of this dtype holds them."""
    if dtype != INT8:
        return k_NKHC, v_NKCH
    return quantize(k_NKHC, window), quantize(v_NKCH, v_NKCH.shape[-1])
