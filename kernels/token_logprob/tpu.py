"""Log-probs of given tokens on a TPU: tiles of logits live in VMEM, and only sums over them remain.

Legend, beside the one of the reference: r rows, v tokens and d places of the width of one tile; L lanes.
"""

from __future__ import annotations

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from kernels.products import precision_for

ROWS, VOCAB, WIDTH = 512, 1024, 512
"""A tile: 2 x 512 x 1024 FLOP for each 3 KB read in bfloat16, more than the 240 FLOP a byte at which a v5e balances."""
LANES = 128
LOWEST = -1e30


def token_logprob(
    hidden_RD: jax.Array, unembedding_DV: jax.Array, targets_R: jax.Array, chunk: int
) -> tuple[jax.Array, jax.Array]:
    """As the reference, forward only; tiles are of the kernel's own size, whatever the chunk.

    Over tiles of the vocabulary it keeps the running max m, s = sum e, t = sum e (logit - m), with e = exp(logit - m)
    (Milakov & Gimelshein 2018), and the target's logit; log p = logit - m - log s, entropy = log s - t / s.
    """
    del chunk
    (rows, width), vocab = hidden_RD.shape, unembedding_DV.shape[1]
    r, v, d = min(ROWS, -(-rows // 8) * 8), min(VOCAB, -(-vocab // LANES) * LANES), math.gcd(width, WIDTH)
    d = d if d % LANES == 0 else width
    depth = width // d
    line = pl.BlockSpec((r, LANES), lambda i, j, k: (i, 0))
    logp_RL, entropy_RL = pl.pallas_call(
        partial(_kernel, vocab=vocab),
        out_shape=[jax.ShapeDtypeStruct((rows, LANES), jnp.float32)] * 2,
        grid=(pl.cdiv(rows, r), pl.cdiv(vocab, v), depth),
        in_specs=[
            pl.BlockSpec((r, d), lambda i, j, k: (i, k)),
            pl.BlockSpec((d, v), lambda i, j, k: (k, j)),
            line,
        ],
        out_specs=[line, line],
        scratch_shapes=[pltpu.VMEM((r, v), jnp.float32), *[pltpu.VMEM((r, LANES), jnp.float32)] * 4],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=2**24
        ),
        name="token_logprob",
    )(hidden_RD, unembedding_DV, jnp.broadcast_to(targets_R[:, None].astype(jnp.int32), (rows, LANES)))
    return logp_RL[:, 0], entropy_RL[:, 0]


def _kernel(
    hidden_rd, unembedding_dv, target_rL, logp_rL, entropy_rL, logits_rv, top_rL, s_rL, t_rL, picked_rL, *, vocab: int
):
    j, k = pl.program_id(1), pl.program_id(2)
    h, w = hidden_rd[...], unembedding_dv[...]
    product = jnp.dot(h, w, precision=precision_for(w.dtype), preferred_element_type=jnp.float32)

    @pl.when(k == 0)
    def _():
        logits_rv[...] = product

    @pl.when(k > 0)
    def _():
        logits_rv[...] += product

    @pl.when((j == 0) & (k == 0))
    def _():
        for x, start in ((top_rL, LOWEST), (s_rL, 0.0), (t_rL, 0.0), (picked_rL, 0.0)):
            x[...] = jnp.full_like(x, start)

    @pl.when(k == pl.num_programs(2) - 1)
    def _():
        token = jax.lax.broadcasted_iota(jnp.int32, logits_rv.shape, 1) + j * logits_rv.shape[1]
        logits = jnp.where(token < vocab, logits_rv[...], LOWEST)
        old, s, t = top_rL[...], s_rL[...], t_rL[...]
        top = jnp.maximum(old, jnp.max(logits, axis=-1, keepdims=True))
        below = logits - top[:, :1]
        e = jnp.exp(below)
        keep = jnp.exp(old - top)
        top_rL[...] = top
        s_rL[...] = s * keep + jnp.sum(e, axis=-1, keepdims=True)
        t_rL[...] = (t + (old - top) * s) * keep + jnp.sum(e * below, axis=-1, keepdims=True)
        hit = jnp.where(token == target_rL[:, :1], logits, 0.0)
        picked_rL[...] += jnp.sum(hit, axis=-1, keepdims=True)

        @pl.when(j == pl.num_programs(1) - 1)
        def _():
            log_s = jnp.log(s_rL[...])
            logp_rL[...] = picked_rL[...] - top_rL[...] - log_s
            entropy_rL[...] = log_s - t_rL[...] / s_rL[...]
