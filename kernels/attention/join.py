"""Attention to several parts under one softmax, made of attention to each of them. Legend: reference.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

import jax
import jax.numpy as jnp

from kernels.attention.reference import AttentionPart

Parts = tuple[AttentionPart, ...]


def join(forward: Callable, backward: Callable) -> Callable[[jax.Array, Parts], jax.Array]:
    """(q, parts) -> output [B, T, N, H], by an implementation of reference.forward and reference.backward.

    Under jit, so that the layers of a model share one trace.
    """

    @jax.jit
    def attend(q_BTNH: jax.Array, parts: Parts) -> tuple[jax.Array, jax.Array]:
        """(output, log-sum-exp) of all parts together."""
        found = [forward(q_BTNH, part) for part in parts]
        return found[0] if len(found) == 1 else merge(found)

    @jax.jit
    def gradients(
        q_BTNH: jax.Array, parts: Parts, lse_BNT: jax.Array, out_BTNH: jax.Array, d_out_BTNH: jax.Array
    ) -> tuple[jax.Array, Parts]:
        # Each part is given the sum and the output of all: by its own it would give the gradient of another softmax,
        # which knows nothing of how the parts' shares change.
        found = [backward(q_BTNH, part, lse_BNT, out_BTNH, d_out_BTNH) for part in parts]
        dq = sum(dq.astype(jnp.float32) for dq, _, _ in found)
        return dq.astype(q_BTNH.dtype), tuple(AttentionPart(dk, dv) for _, dk, dv in found)

    def keep(q_BTNH: jax.Array, parts: Parts) -> tuple[jax.Array, tuple]:
        out_BTNH, lse_BNT = attend(q_BTNH, parts)
        return out_BTNH, (q_BTNH, parts, lse_BNT, out_BTNH)

    attention = jax.custom_vjp(lambda q_BTNH, parts: attend(q_BTNH, parts)[0])
    attention.defvjp(keep, lambda kept, d_out_BTNH: gradients(*kept, d_out_BTNH))
    return attention


def merge(found: list[tuple[jax.Array, jax.Array]]) -> tuple[jax.Array, jax.Array]:
    """(output, log-sum-exp) of all keys, from those of keys that lie apart. Sums in float32."""
    lse_BNT = reduce(jnp.logaddexp, (lse for _, lse in found))
    shares = (jnp.exp(lse - lse_BNT).swapaxes(1, 2)[..., None] for _, lse in found)
    out = sum(share * out.astype(jnp.float32) for share, (out, _) in zip(shares, found, strict=True))
    return out.astype(found[0][0].dtype), lse_BNT
