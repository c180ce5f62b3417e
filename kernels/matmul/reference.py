"""Products of activations and weights. Legend: M rows, K what is summed over, N columns of weights."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def matmul(x_MK: jax.Array, w: jax.Array, transposed: bool = False) -> jax.Array:
    """x times w [K, N], or where it is transposed w [N, K]: float32 [M, N], summed in float32."""
    if not transposed:
        return jnp.matmul(x_MK, w, preferred_element_type=jnp.float32)
    if w.dtype == jnp.float32:
        return jnp.matmul(x_MK, w.T, preferred_element_type=jnp.float32)
    # The weights first, as they lie: XLA:CPU would widen transposed ones to float32, past its bfloat16 units.
    return jnp.einsum("nk,mk->nm", w, x_MK, preferred_element_type=jnp.float32).T
