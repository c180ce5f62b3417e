"""Products whose sums are in float32, whatever their factors are."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def precision_for(dtype: jnp.dtype) -> jax.lax.Precision:
    """What rounds no float32 factor: by default GPUs and TPUs round them to 11 or 8 bits, and the context in which a
    caller asked for more is gone when a gradient is traced."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else jax.lax.Precision.DEFAULT


def product(axes: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """einsum of two arrays, float32."""
    return jnp.einsum(axes, x, y, preferred_element_type=jnp.float32, precision=precision_for(y.dtype))
