"""What the decoder and the vision tower are made of: parameter specs, norms, rotations, products, attention on a mesh.

Legend: decoder.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from kernels.attention import AttentionPart, attention
from kernels.matmul import ColumnMajor, matmul
from rlvr_limit.distributed.mesh import Part, on_each_device, shard_count
from rlvr_limit.types import not_allowed

Params = Any

REMAT = ("none", "products", "layers")
"""What is kept of a layer for the backward pass: everything, its products with weights, or its input alone."""


class ParameterSpec(NamedTuple):
    """Shape, logical axes (see mesh.RULES) and the standard deviation of the initial values (None: ones, 0: zeros)."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    std: float | None


def init_from_specs(specs: Params, key: jax.Array, dtype: str) -> Params:
    """An array for each spec; each leaf's key is folded from its place in the tree, so adding one moves no other."""

    def leaf(path: Any, spec: ParameterSpec) -> jax.Array:
        if spec.std is None:
            return jnp.ones(spec.shape, dtype)
        if spec.std == 0:
            return jnp.zeros(spec.shape, dtype)
        name = jax.tree_util.keystr(path)
        salt = sum(ord(ch) * 31**i for i, ch in enumerate(name)) % 2**32
        # Drawn flat and a little too long: the first numbers are the same, and few lengths are compiled.
        size = math.prod(spec.shape)
        flat = jax.random.normal(jax.random.fold_in(key, salt), (4 ** math.ceil(math.log(size, 4)),))
        return (spec.std * flat[:size].reshape(spec.shape)).astype(dtype)

    return jax.tree_util.tree_map_with_path(leaf, specs, is_leaf=lambda x: isinstance(x, ParameterSpec))


def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """x / rms(x) * scale over the last axis, in float32 (Zhang and Sennrich 2019, eq. 4)."""
    x32 = x.astype(jnp.float32)
    normed = x32 * jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + eps)
    return (normed * scale).astype(x.dtype)


def apply_rope(x_BTNH: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotary position embedding on halves of the head width, in float32 (Su et al. 2021, eq. 34)."""
    a, b = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x_BTNH.dtype)


def matmul_precision(dtype: Any) -> AbstractContextManager:
    """The context in which products of weights of this dtype are traced.

    Left alone, GPUs round float32 factors to TF32 and TPUs to bfloat16, which is 1e-3 and not 1e-7 of a logit.
    """
    return jax.default_matmul_precision("highest") if jnp.dtype(dtype) == jnp.float32 else nullcontext()


def project(x: jax.Array, w: jax.Array | ColumnMajor, bias: jax.Array | None = None) -> jax.Array:
    """x [B, T, *in] times w [*in, *out] plus bias [*out], summed in float32 and rounded once: [B, T, *out].

    w is rounded to the dtype of x. One matrix product over all tokens: left in three dimensions, XLA:CPU computes the
    weight's gradient about twice as slowly.
    """
    inputs = x.ndim - 2
    size = math.prod(w.shape[:inputs])
    y = matmul(x.reshape(-1, size), w)
    y = y.reshape(*x.shape[:2], *w.shape[inputs:])
    return (y if bias is None else y + bias).astype(x.dtype)


def attend_on_mesh(q_BTNH: jax.Array, parts: tuple[AttentionPart, ...], batch_axis: str | None = "rows") -> jax.Array:
    """kernels' attention; on a mesh each device attends with its own heads in its own rows (batch_axis: as in
    decoder.forward), where devices that share query heads share key heads alike."""
    mesh, heads, kv_heads = jax.typeof(q_BTNH).sharding.mesh, q_BTNH.shape[2], parts[0].k_BSKH.shape[2]
    if mesh.empty or shard_count(mesh, heads, "heads") != shard_count(mesh, kv_heads, "kv_heads"):
        return attention(q_BTNH, parts)
    leaves, tree = jax.tree.flatten(parts)
    of_rows = (batch_axis,)
    axes = (batch_axis, None, "heads"), *((batch_axis, None, "kv_heads") if x.ndim == 4 else of_rows for x in leaves)

    def attend(q_BTNH: jax.Array, *leaves: jax.Array) -> jax.Array:
        return attention(q_BTNH, jax.tree.unflatten(tree, leaves))

    return on_each_device(attend, mesh, axes, Part(q_BTNH.shape, axes[0]))(q_BTNH, *leaves)


def rematerialised(layer: Callable, remat: str) -> Callable:
    """A layer of which remat, one of REMAT, says what is kept for the backward pass."""
    match remat:
        case "none":
            return layer
        case "products":
            return jax.checkpoint(layer, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable)
        case "layers":
            return jax.checkpoint(layer)
    raise not_allowed("remat", remat, f"one of {', '.join(REMAT)}")
