"""The cache: pages of keys and values of every layer."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from rlvr_limit.models.decoder import ModelConfig

Pool = list[tuple[jax.Array, jax.Array]]
"""One (k_PKHC, v_PKCH) pair a layer: the layouts in which both products of decode attention read memory in order."""


def empty_pool(config: ModelConfig, pages: int, page: int) -> Pool:
    """Zeros for the keys and values of `pages` pages of `page` tokens in every layer."""
    k, v = (pages, config.kv_heads, config.head_width, page), (pages, config.kv_heads, page, config.head_width)
    return [(jnp.zeros(k, config.dtype), jnp.zeros(v, config.dtype)) for _ in range(config.layers)]
