"""Products of activations and weights, on some CPUs in C++. Legend: reference.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import jax
import jax.numpy as jnp

from kernels.matmul import native, reference
from kernels.platforms import by_platform, is_sharded


@partial(jax.tree_util.register_dataclass, data_fields=("w_NK",), meta_fields=("shape",))
@dataclass(frozen=True)
class ColumnMajor:
    """A weight of this shape, [*in, *out], that lies column by column, as native.py reads it: K of *in, N of *out."""

    w_NK: jax.Array
    shape: tuple[int, ...]


def column_major(w: jax.Array | jax.ShapeDtypeStruct, inputs: int) -> jax.Array | jax.ShapeDtypeStruct | ColumnMajor:
    """The weight [*in, *out], of so many dimensions *in, as products of few rows read it fastest on this machine.

    Where that is as it lies, w itself; else a copy. Of a ShapeDtypeStruct it is the shape.
    """
    k = math.prod(w.shape[:inputs])
    columns = jax.ShapeDtypeStruct((w.size // k, k), w.dtype)
    if is_sharded(w) or not native.takes(jax.ShapeDtypeStruct((1, k), w.dtype), columns):
        return w
    lies = w.sharding
    if isinstance(lies, jax.NamedSharding):
        lies = jax.NamedSharding(lies.mesh, jax.P())
    if isinstance(w, jax.ShapeDtypeStruct):
        return ColumnMajor(columns.update(sharding=lies), w.shape)
    return ColumnMajor(_transposing(k, lies)(w), w.shape)


@cache
def _transposing(k: int, lies: jax.sharding.Sharding) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda w: w.reshape(k, -1).T, out_shardings=lies)


def matmul(x_MK: jax.Array, w: jax.Array | ColumnMajor, transposed: bool = False) -> jax.Array:
    """reference.matmul: x times w [*in, *out], or transposed [N, K], float32 [M, N]; by what is fast on the platform.

    An array is rounded to the dtype of x. What is differentiated is XLA's: its products are those that jax.checkpoint
    knows as such.
    """
    if isinstance(w, ColumnMajor):
        w, transposed = w.w_NK, True
    w = w.astype(x_MK.dtype)
    if not transposed:
        return reference.matmul(x_MK, w.reshape(x_MK.shape[1], -1))
    plain = partial(reference.matmul, transposed=True)
    if not native.takes(x_MK, w):
        return plain(x_MK, w)

    def multiply(x_MK: jax.Array, w_NK: jax.Array) -> jax.Array:
        return by_platform(x_MK, w_NK, default=plain, cpu=native.matmul, tpu=plain, cuda=plain)

    product = jax.custom_vjp(multiply)
    product.defvjp(
        lambda x_MK, w_NK: (plain(x_MK, w_NK), (x_MK, w_NK)),
        lambda factors, cotangent: jax.vjp(plain, *factors)[1](cotangent),
    )
    return product(x_MK, w)
