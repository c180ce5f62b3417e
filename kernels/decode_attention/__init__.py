"""Attention of one new token a row over keys and values that lie in pages, own and shared."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax

from kernels.decode_attention import cpu, gpu, hopper, native, reference, tpu
from kernels.decode_attention.pages import Pages, quantised
from kernels.decode_attention.plan import EMPTY, GROUP, Partial, Plan, Recent, Tiling, attend_recent, join, tiling
from kernels.platforms import by_platform, say_plain

__all__ = [
    "EMPTY",
    "GROUP",
    "Pages",
    "Partial",
    "Plan",
    "Recent",
    "Tiling",
    "attend_recent",
    "decode_attention",
    "join",
    "quantised",
    "say_what_is_plain",
    "tiling",
]


def decode_attention(
    q_BKGH: jax.Array,
    k_PKHC: jax.Array | Pages,
    v_PKCH: jax.Array | Pages,
    plan: Plan,
    tile: int,
    recent: Recent | None = None,
) -> Partial:
    """reference.decode_attention, and recent keys if given, by what is fast on the platform that the program is
    compiled for.

    The kernels proper take pages of whole tiles in the dtype of q (tpu.takes, hopper.takes, native.takes); for others,
    those in 8 bits among them, all get plain XLA.
    """

    def joined(f: Callable, q: jax.Array, k: jax.Array, v: jax.Array, plan: Plan, recent: Recent | None) -> Partial:
        pages = f(q, k, v, plan, tile)
        return pages if recent is None else join(pages, attend_recent(q, recent))

    def native_call(q: jax.Array, k: jax.Array, v: jax.Array, plan: Plan, recent: Recent | None) -> Partial:
        return native.decode_attention(q, k, v, plan, tile, recent)

    taken = _taken(q_BKGH, k_PKHC, tile, recent)
    on_tpu, on_gpu = tpu if taken["tpu"] else gpu, hopper if taken["gpu"] else gpu
    on_cpu = native_call if taken["cpu"] else partial(joined, cpu.decode_attention)
    return by_platform(
        q_BKGH,
        k_PKHC,
        v_PKCH,
        plan,
        recent,
        default=partial(joined, reference.decode_attention),
        cpu=on_cpu,
        tpu=partial(joined, on_tpu.decode_attention),
        cuda=partial(joined, on_gpu.decode_attention),
    )


def say_what_is_plain(q_BKGH: jax.Array, k_PKHC: jax.Array | Pages, tile: int, recent: Recent | None = None) -> None:
    """Logs, once, where this machine's programs attend to such pages in plain XLA."""
    stored = "pages in 8 bits" if isinstance(k_PKHC, Pages) else f"pages of {k_PKHC.shape[-1]} {k_PKHC.dtype} tokens"
    for platform, is_taken in _taken(q_BKGH, k_PKHC, tile, recent).items():
        if not is_taken:
            say_plain("decode attention", platform, f"{stored}, {q_BKGH.shape[2]} {q_BKGH.dtype} queries a key head")


def _taken(q_BKGH: jax.Array, k_PKHC: jax.Array | Pages, tile: int, recent: Recent | None) -> dict[str, bool]:
    """Whether the kernel proper of each backend computes this."""
    return {
        "tpu": tpu.takes(q_BKGH, k_PKHC),
        "gpu": hopper.takes(q_BKGH, k_PKHC, tile),
        "cpu": native.takes(q_BKGH, k_PKHC, recent),
    }
