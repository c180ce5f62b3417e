"""Attention of whole rows on a TPU: JAX's splash attention, forward and backward kernels apart. Legend: reference.py.

Its own gradient takes no log-sum-exp from outside, so the kernels behind it are called here; they are private to JAX,
and tests/kernels/test_attention.py holds their signatures.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from kernels.attention.join import merge
from kernels.attention.reference import AttentionPart

LANES, BLOCK = 128, 512
HEAD_WIDTHS = (64, 128)
NOBODY = -1
"""A segment that no key is of."""


class View(NamedTuple):
    """Which keys a query sees: the earlier ones and its own, or all; of these, where given, those of its segment."""

    is_causal: bool
    query_segment_BT: jax.Array | None
    key_segment_BS: jax.Array | None


def takes(q_BTNH: jax.Array, part: AttentionPart) -> bool:
    """Whether all is bfloat16, as splash's products would round float32 to, and heads are half a register or one."""
    return q_BTNH.dtype == part.k_BSKH.dtype == jnp.bfloat16 and q_BTNH.shape[-1] in HEAD_WIDTHS


def views(q_BTNH: jax.Array, part: AttentionPart) -> Iterator[View]:
    """What the queries see, a segment each: splash compares one pair of numbers."""
    (b, t), s = q_BTNH.shape[:2], part.k_BSKH.shape[1]
    if part.length_B is not None:
        there = jnp.arange(s) < part.length_B[:, None]
        yield View(False, jnp.zeros((b, t), jnp.int32), jnp.where(there, 0, NOBODY))
        return
    yield View(True, part.segment_BT, part.segment_BT)
    if part.prefix_segment_BT is not None:
        behind = jnp.where(part.prefix_segment_BT == part.segment_BT, NOBODY, part.prefix_segment_BT)
        yield View(True, behind, part.segment_BT)


def forward(q_BTNH: jax.Array, part: AttentionPart, interpret: bool = False) -> tuple[jax.Array, jax.Array]:
    """reference.forward; a query that sees nothing has a log-sum-exp so low that it weighs nothing."""

    def attend(view: View) -> tuple[jax.Array, jax.Array]:
        kernel, (q, k, v), ids = _laid_out(q_BTNH, part, view, interpret)
        out_BNTH, (lse_BNT,) = jax.vmap(kernel)(q, k, v, ids)
        t = q_BTNH.shape[1]
        return out_BNTH[:, :, :t].swapaxes(1, 2), lse_BNT[:, :, :t]

    found = [attend(view) for view in views(q_BTNH, part)]
    return found[0] if len(found) == 1 else merge(found)


def backward(
    q_BTNH: jax.Array,
    part: AttentionPart,
    lse_BNT: jax.Array,
    out_BTNH: jax.Array,
    d_out_BTNH: jax.Array,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """reference.backward."""

    def gradients(view: View) -> tuple[jax.Array, jax.Array, jax.Array]:
        kernel, (q, k, v), ids = _laid_out(q_BTNH, part, view, interpret)
        out, d_out = (_by_heads(x, q.shape[2]) for x in (out_BTNH, d_out_BTNH))
        lse = jnp.pad(lse_BNT, ((0, 0), (0, 0), (0, q.shape[2] - lse_BNT.shape[2])))

        def of_row(q, k, v, ids, out, lse, d_out) -> tuple[jax.Array, jax.Array, jax.Array]:
            kept = q, k, v, ids, None, out, lse, kernel.dq_mask_info, kernel.dkv_mask_info
            return splash._splash_attention_bwd(**kernel.kwargs, res=kept, do=d_out)[3:6]

        dq, dk, dv = jax.vmap(of_row)(q, k, v, ids, out, lse, d_out)
        t, s = q_BTNH.shape[1], part.k_BSKH.shape[1]
        dq = (dq[:, :, :t].astype(jnp.float32) * _scale(q_BTNH)).astype(dq.dtype)
        return dq.swapaxes(1, 2), dk[:, :, :s].swapaxes(1, 2), dv[:, :, :s].swapaxes(1, 2)

    found = [gradients(view) for view in views(q_BTNH, part)]
    return found[0] if len(found) == 1 else jax.tree.map(_sum, *found)


def _laid_out(
    q_BTNH: jax.Array, part: AttentionPart, view: View, interpret: bool
) -> tuple[splash.SplashAttentionKernel, tuple[jax.Array, ...], splash.SegmentIds | None]:
    """(the kernel for one row, its scaled queries, keys and values [B, heads, T or S in whole blocks, H], segments)."""
    (t, n, _), s = q_BTNH.shape[1:], part.k_BSKH.shape[1]
    (block_q, places), (block_kv, keys) = _blocks(t), _blocks(s)
    sizes = splash.BlockSizes(
        *(block_q, block_kv, block_kv), *(block_q, block_kv, block_kv), *(block_q, block_kv), use_fused_bwd_kernel=False
    )
    mask = (masks.CausalMask if view.is_causal else masks.FullMask)((places, keys))
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([mask] * n),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        save_residuals=True,
        interpret=interpret,
    )
    scaled = (q_BTNH.astype(jnp.float32) * _scale(q_BTNH)).astype(q_BTNH.dtype)
    arrays = _by_heads(scaled, places), _by_heads(part.k_BSKH, keys), _by_heads(part.v_BSKH, keys)
    if view.query_segment_BT is None:
        return kernel, arrays, None
    ends = (view.query_segment_BT, places - t), (view.key_segment_BS, keys - s)
    return kernel, arrays, splash.SegmentIds(*(jnp.pad(x, ((0, 0), (0, n)), constant_values=NOBODY) for x, n in ends))


def _blocks(length: int) -> tuple[int, int]:
    """(tokens of a block, of all blocks): whole registers, about equally long blocks."""
    blocks = -(-length // BLOCK)
    size = -(-length // (blocks * LANES)) * LANES
    return size, -(-length // size) * size


def _by_heads(x_BTNH: jax.Array, length: int) -> jax.Array:
    return jnp.pad(x_BTNH, ((0, 0), (0, length - x_BTNH.shape[1]), (0, 0), (0, 0))).swapaxes(1, 2)


def _scale(q_BTNH: jax.Array) -> float:
    """By which scores are multiplied; splash has the queries multiplied."""
    return q_BTNH.shape[-1] ** -0.5


def _sum(*terms: jax.Array) -> jax.Array:
    return sum(x.astype(jnp.float32) for x in terms).astype(terms[0].dtype)
