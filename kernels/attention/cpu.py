"""Attention of short rows on a CPU: one softmax over the keys of all parts, whose weights are kept for its gradient.

XLA:CPU is about twice as slow where scores and their exponentials are computed again. Legend: reference.py.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from kernels.attention import reference
from kernels.attention.join import Parts


def takes(parts: Parts) -> bool:
    """Whether all keys are those of short rows."""
    return sum(part.k_BSKH.shape[1] for part in parts) <= reference.LONG_ROW


def attention(q_BTNH: jax.Array, parts: Parts) -> jax.Array:
    """As join of the reference, with the gradient that JAX makes of it."""
    (b, t, n, h), k = q_BTNH.shape, parts[0].k_BSKH.shape[2]
    k_BSKH, v_BSKH = (jnp.concatenate([part[i] for part in parts], axis=1) for i in (0, 1))
    masks = (jnp.broadcast_to(reference.seen(part, t), (b, t, part.k_BSKH.shape[1])) for part in parts)
    mask_BTS = jnp.concatenate(list(masks), axis=2)
    q_BTKGH = q_BTNH.reshape(b, t, k, n // k, h)
    scores = jnp.einsum("btkgh,bskh->bkgts", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32) * h**-0.5
    scores = jnp.where(mask_BTS[:, None, None], scores, reference.MASK_VALUE)
    weights = jax.nn.softmax(scores, axis=-1).astype(v_BSKH.dtype)
    out = jnp.einsum("bkgts,bskh->btkgh", weights, v_BSKH, preferred_element_type=jnp.float32)
    return out.astype(q_BTNH.dtype).reshape(b, t, n, h)
