"""Attention of one new token a row over keys and values that lie in pages, own and shared. Legend: plan.py."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax

from kernels.decode_attention import cpu, gpu, hopper, native, reference, tpu
from kernels.decode_attention.plan import (
    GROUP,
    MASK_VALUE,
    AttentionState,
    DecodePlan,
    RecentKV,
    Tiling,
    attend_recent,
    merge_states,
    tiling,
)
from kernels.platforms import by_platform, warn_plain_xla


@partial(jax.jit, static_argnames="tile")
def decode_attention(
    q_BKGH: jax.Array, k_PKHC: jax.Array, v_PKCH: jax.Array, plan: DecodePlan, tile: int, recent: RecentKV | None = None
) -> AttentionState:
    """reference.decode_attention, and recent keys if given, by what is fast on the platform of the program.

    A kernel that does not take these pages (tpu.takes, hopper.takes, native.takes) is stood in for by plain XLA.
    Traced once for all layers of a model: that takes longer than their weights' products.
    """

    def with_recent(attend: Callable, q, k, v, plan, recent) -> AttentionState:
        state = attend(q, k, v, plan, tile)
        return state if recent is None else merge_states(state, attend_recent(q, recent))

    def native_call(q, k, v, plan, recent) -> AttentionState:
        return native.decode_attention(q, k, v, plan, tile, recent)

    taken = _taken(q_BKGH, k_PKHC, tile)
    return by_platform(
        *(q_BKGH, k_PKHC, v_PKCH, plan, recent),
        default=partial(with_recent, reference.decode_attention),
        cpu=native_call if taken["cpu"] else partial(with_recent, cpu.decode_attention),
        tpu=partial(with_recent, (tpu if taken["tpu"] else gpu).decode_attention),
        cuda=partial(with_recent, (hopper if taken["gpu"] else gpu).decode_attention),
    )


def warn_where_plain(q_BKGH: jax.Array, k_PKHC: jax.Array, tile: int) -> None:
    """Logs, once, where this machine's programs attend to such pages in plain XLA."""
    for platform, is_taken in _taken(q_BKGH, k_PKHC, tile).items():
        if not is_taken:
            queries = f"{q_BKGH.shape[2]} {q_BKGH.dtype} queries a key head"
            pages = f"pages of {k_PKHC.shape[-1]} {k_PKHC.dtype} tokens"
            warn_plain_xla("decode attention", platform, f"{pages}, {queries}")


def _taken(q_BKGH: jax.Array, k_PKHC: jax.Array, tile: int) -> dict[str, bool]:
    return {
        "tpu": tpu.takes(q_BKGH, k_PKHC),
        "gpu": hopper.takes(q_BKGH, k_PKHC, tile),
        "cpu": native.takes(q_BKGH, k_PKHC),
    }
