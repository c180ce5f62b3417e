"""Attention of whole rows on an NVIDIA GPU: cuDNN's, in bfloat16. Legend: reference.py.

JAX's public function rounds the log-sum-exp to bfloat16, and its gradient takes none from outside: the primitives
behind it are bound here. They are private to JAX; tests/kernels/test_attention.py holds their signatures.

Compiled for an H200, it has run on no GPU yet: where there is one, its outputs and gradients are compared with the
reference's before its first use, and where they are others attention stays plain XLA.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as cudnn

from kernels.attention import reference
from kernels.attention.join import join
from kernels.attention.reference import MASK_VALUE, AttentionPart

LEAST_CAPABILITY = 8.0
WIDEST_HEAD = 128
MOST_APART = 0.05
"""Of outputs and gradients, relative: rounding to bfloat16 explains .01, a gradient that lacks a term is .2 off."""


def takes(q_BTNH: jax.Array, part: AttentionPart) -> bool:
    """Whether all is bfloat16, rows are not cut into segments, and this machine's GPU, if it has one, computes it."""
    is_short = q_BTNH.dtype == part.k_BSKH.dtype == jnp.bfloat16
    h = q_BTNH.shape[-1]
    return is_short and h % 8 == 0 and h <= WIDEST_HEAD and part.segment_BT is None and _is_right_here()


@cache
def _is_right_here() -> bool:
    # Programs may be compiled for a GPU where there is none: then for one of those that plans know.
    device = jax.devices()[0]
    if device.platform != "gpu":
        return True
    if float(device.compute_capability) < LEAST_CAPABILITY:
        _warn(f"compute capability {device.compute_capability} is below {LEAST_CAPABILITY}")
        return False
    try:
        # Asked while a program is being traced.
        with jax.ensure_compile_time_eval():
            apart = deviation(forward, backward)
    except jax.errors.JaxRuntimeError as error:
        _warn(str(error).splitlines()[0])
        return False
    if apart > MOST_APART:
        _warn(f"its outputs or gradients are {apart:.2g} of their size off")
    return apart <= MOST_APART


def _warn(why: str) -> None:
    logging.getLogger(__name__).warning("attention of whole rows in plain XLA, which is slower: cuDNN's fails: %s", why)


def deviation(forward: Callable, backward: Callable) -> float:
    """How far such an implementation is from the reference on a small input, relative to it; at worst of all results.

    Four query heads of a key head, behind prompts of which one is empty.
    """
    keys = jax.random.split(jax.random.key(0), 6)
    shapes = [(2, 160, 8, 64), (2, 160, 2, 64), (2, 160, 2, 64), (2, 96, 2, 64), (2, 96, 2, 64), (2, 160, 8, 64)]
    *arrays, weight = (2 * jax.random.normal(key, s, jnp.bfloat16) for key, s in zip(keys, shapes, strict=True))

    def results(forward: Callable, backward: Callable) -> list[jax.Array]:
        def out(q: jax.Array, k: jax.Array, v: jax.Array, *prompt: jax.Array) -> tuple[jax.Array, jax.Array]:
            parts = AttentionPart(*prompt, jnp.array([96, 0])), AttentionPart(k, v)
            found = join(forward, backward)(q, parts)
            return jnp.sum(found.astype(jnp.float32) * weight), found

        gradients, found = jax.grad(out, range(5), has_aux=True)(*arrays)
        return [x.astype(jnp.float32) for x in (found, *gradients)]

    pairs = zip(results(forward, backward), results(reference.forward, reference.backward), strict=True)
    apart = [float(jnp.linalg.norm(mine - right) / jnp.linalg.norm(right)) for mine, right in pairs]
    return max(apart) if all(x == x for x in apart) else float("inf")


def forward(q_BTNH: jax.Array, part: AttentionPart) -> tuple[jax.Array, jax.Array]:
    """reference.forward; rows without any key give 0 and weigh nothing."""
    out, lse = cudnn._dot_product_attention_fwd_p.bind(
        *_operands(q_BTNH, part), **_options(q_BTNH, part), is_training=True
    )
    if part.length_B is None:
        return out, lse
    return _where_any(part, out, 0), _where_any(part, lse, MASK_VALUE)


def backward(
    q_BTNH: jax.Array, part: AttentionPart, lse_BNT: jax.Array, out_BTNH: jax.Array, d_out_BTNH: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """reference.backward."""
    kept = lse_BNT, out_BTNH, d_out_BTNH
    found = cudnn._dot_product_attention_bwd_p.bind(*_operands(q_BTNH, part), *kept, **_options(q_BTNH, part))
    dq, dk, dv = found if part.length_B is None else (_where_any(part, x, 0) for x in found)
    return dq, dk, dv


def _where_any(part: AttentionPart, x: jax.Array, otherwise: float) -> jax.Array:
    return jnp.where(part.length_B.reshape(-1, *[1] * (x.ndim - 1)) > 0, x, jnp.asarray(otherwise, x.dtype))


def _operands(q_BTNH: jax.Array, part: AttentionPart) -> tuple[jax.Array, ...]:
    """q, k, v, bias, lengths of queries and keys, offsets of both, tables of pages of both."""
    unused = jnp.zeros(0, q_BTNH.dtype)
    lengths = unused, unused
    if part.length_B is not None:
        # cuDNN is never asked for a row without a key.
        keys = jnp.maximum(part.length_B, 1).astype(jnp.int32)
        lengths = jnp.full_like(keys, q_BTNH.shape[1]), keys
    return q_BTNH, part.k_BSKH, part.v_BSKH, unused, *lengths, *[unused] * 4


def _options(q_BTNH: jax.Array, part: AttentionPart) -> dict[str, Any]:
    return {
        "scale": q_BTNH.shape[-1] ** -0.5,
        "seed": 42,
        "dropout_rate": 0.0,
        "variadic_args": (False, False),
        "mask_type": cudnn.MaskType.CAUSAL if part.length_B is None else cudnn.MaskType.PADDING,
        "layout": cudnn.AttentionLayout.BTNH.value,
        "sliding_window_length": None,
    }
