"""Keys and values in 8 bits, symmetric: a signed integer times a scale that neighbouring numbers share."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

LARGEST = 127


class QuantizedPages(NamedTuple):
    """Stands for the array values * scales, and says its shape.

    The product has 15 significant bits, so that it is exact in float32, and what is read has the same bits whatever a
    compiler fuses it with.
    """

    values: Any  # int8
    scales: Any  # bfloat16 [..., n]: each is that of one of n runs of the last axis

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the array."""
        return self.values.shape

    @property
    def dtype(self) -> jnp.dtype:
        """int8: that of what is stored, and not of the array."""
        return self.values.dtype

    def astype(self, dtype: jnp.dtype) -> jax.Array:
        """The array itself, rounded once to dtype."""
        runs = self.values.reshape(*self.scales.shape, -1).astype(jnp.float32)
        return (runs * self.scales[..., None].astype(jnp.float32)).astype(dtype).reshape(self.shape)


PageArray = jax.Array | QuantizedPages


def quantize(x: jax.Array, run: int) -> QuantizedPages:
    """x in 8 bits, the scale of each `run` numbers of its last axis the one that its largest needs."""
    runs = x.reshape(*x.shape[:-1], -1, run).astype(jnp.float32)
    scales = (jnp.max(jnp.abs(runs), axis=-1) / LARGEST).astype(jnp.bfloat16)
    divisor = scales[..., None].astype(jnp.float32)
    # Rounded down, a scale lets its largest number come to 127.25 at most.
    values = jnp.where(divisor > 0, jnp.round(runs / divisor), 0.0).astype(jnp.int8)
    return QuantizedPages(values.reshape(x.shape), scales)
