"""Each kernel as this machine computes it, against its reference, on one small input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from kernels import attention, copies, decode_attention, draw, matmul, native, token_logprob, top_p

TILE = 8


def check() -> None:
    """To be called once before a run; on a CPU it looks at kernels that were built here, and once after each build.

    Raises RuntimeError that names the kernel and its largest deviation where one is out of its tolerance.
    """
    library = native.library()
    passed = library and library.with_suffix(".passed")
    if jax.default_backend() == "cpu" and (not passed or passed.exists()):
        return
    for name, kernel, reference, arguments, tolerance in cases():
        compare(name, kernel, reference, arguments, tolerance)
    if passed:
        passed.touch()


def compare(name: str, kernel: Callable, reference: Callable, arguments: tuple, tolerance: float) -> None:
    """Raises RuntimeError where kernel and reference are further apart than tolerance, or one is not a number."""
    found = jax.tree.leaves(jax.jit(kernel)(*arguments))
    with jax.default_matmul_precision("highest"):
        expected = jax.tree.leaves(jax.jit(reference)(*arguments))
    apart = max(
        float(np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64))))
        for x, y in zip(found, expected, strict=True)
    )
    if not apart <= tolerance:
        raise RuntimeError(
            f"kernels/{name} deviates from its reference by {apart:.3g} on {jax.default_backend()}, more than"
            f" {tolerance:.3g}: this machine would not compute what the project describes"
        )


def cases() -> Iterator[tuple[str, Callable, Callable, tuple, float]]:
    """(kernel's folder, public function, reference, arguments, largest deviation that rounding explains)."""
    # Masses of 1/4096 add without rounding in any order, so that the masks are equal.
    counts = np.random.default_rng(0).multinomial(4096, np.full(1000, 1e-3), size=16)
    p_BV, top_p_B = jnp.asarray(counts / 4096, jnp.float32), jnp.linspace(0.1, 1.0, 16)
    yield "top_p", top_p.top_p_mask, top_p.reference.top_p_mask, (p_BV, top_p_B), 0.0

    # Half way between two such masses: tokens are equal, log-probs as far apart as rounding says.
    u_B = (jnp.arange(16) * 251 + 0.5) / 4096
    rules = draw.SamplingTensors(jnp.ones(16), top_p_B, jnp.arange(16) * 40, jnp.linspace(0, 0.2, 16))
    yield "draw", draw.draw, draw.reference.draw, (jnp.log(p_BV), u_B, rules, draw.truncations_used(rules)), 1e-4

    # Bytes that are moved are the same bytes.
    pages, at_N = _normal(6, (40, 2, 16, 32), jnp.bfloat16), jnp.arange(39, 0, -4)
    yield "copies", copies.take, copies.reference.take, (pages, at_N), 0.0
    arguments = pages, pages[:10, :, :, :8], at_N, at_N % 25
    yield "copies", partial(copies.put, axis=3), partial(copies.reference.put, axis=3), arguments, 0.0

    # Numbers of size 1 to 120; a shape that the C++ takes, summed in two blocks.
    x, w = _normal(3, (13, 1312), jnp.bfloat16), _normal(4, (300, 1312), jnp.bfloat16)
    product, plain = (partial(f, transposed=True) for f in (matmul.matmul, matmul.reference.matmul))
    yield "matmul", product, plain, (x, w), 1e-3

    # Logits of size 1 to 5. bfloat16 factors multiply exactly into float32: only the order of sums is left.
    for dtype, tolerance in ((jnp.bfloat16, 1e-4), (jnp.float32, 1e-4)):
        hidden, weights = _normal(1, (32, 256), dtype), _normal(2, (256, 1900), dtype) / 8
        arguments = (hidden, weights, jnp.arange(32) * 59)
        kernel = partial(token_logprob.token_logprob, chunk=16)
        yield "token_logprob", kernel, partial(token_logprob.reference.token_logprob, chunk=16), arguments, tolerance

    # Outputs and gradients of size 1 to 10: weights, and in a gradient scores, are rounded to 8 bits in bfloat16.
    for dtype, tolerance in ((jnp.bfloat16, 0.25), (jnp.float32, 1e-3)):
        q, k, v, weight = (_normal(7 + i, (2, 600, heads, 64), dtype) for i, heads in enumerate((14, 2, 2, 14)))
        behind = _normal(11, (2, 2, 130, 2, 64), dtype)
        segments = jnp.arange(600) // 150 + jnp.ones((2, 1), jnp.int32)
        for rest in ((behind, jnp.array([130, 0]), None), (None, None, segments)):
            both = (partial(_attended, f) for f in (attention.attention, attention.cpu.attention))
            yield "attention", *both, (q, k, v, weight, *rest), tolerance

    # Sums of 300 weights up to 1 times values up to 4: each weight is rounded to 8 bits where values are bfloat16.
    for dtype, tolerance in ((jnp.bfloat16, 0.25), (jnp.float32, 1e-3)):
        q_BKGH = _normal(3, (2 * TILE, 2, 7, 128), dtype)
        k_PKHC, v_PKCH = _normal(4, (40, 2, 128, 128), dtype), _normal(5, (40, 2, 128, 128), dtype)
        kernel = partial(decode_attention.decode_attention, tile=TILE)
        reference = partial(decode_attention.reference.decode_attention, tile=TILE)
        yield "decode_attention", kernel, reference, (q_BKGH, k_PKHC, v_PKCH, plan()), tolerance


def _attended(
    attend: Callable,
    q_BTNH: jax.Array,
    k_BTKH: jax.Array,
    v_BTKH: jax.Array,
    weight_BTNH: jax.Array,
    behind: tuple[jax.Array, jax.Array] | None,
    length_B: jax.Array | None,
    segment_BT: jax.Array | None,
) -> tuple[jax.Array, tuple]:
    """(output, gradients) behind prompts, or in segments of which each is behind the first one."""
    part = attention.AttentionPart

    def out(q: jax.Array, k: jax.Array, v: jax.Array, behind: tuple | None) -> tuple[jax.Array, jax.Array]:
        first = None if segment_BT is None else jnp.ones_like(segment_BT)
        own = part(k, v, None, segment_BT, first)
        found = attend(q, (own,) if behind is None else (part(*behind, length_B), own))
        return jnp.sum(found.astype(jnp.float32) * weight_BTNH), found

    gradients, found = jax.grad(out, range(3 if behind is None else 4), has_aux=True)(q_BTNH, k_BTKH, v_BTKH, behind)
    return found, gradients


def plan() -> decode_attention.DecodePlan:
    """16 rows of 0 to 2 pages, the last ones partly filled, and two prompts of 128 + 50 tokens in both tiles."""
    count_B = np.arange(2 * TILE) % 3
    row_I = np.repeat(np.arange(2 * TILE), count_B)
    items = len(row_I)
    first_B = np.cumsum(count_B) - count_B
    last = np.arange(items) == (first_B + count_B - 1)[row_I]
    group = decode_attention.GROUP
    # In each tile, prompt 0 then prompt 1, each in one group of visits of which two have tokens.
    visit = np.arange(4 * group)
    place, prompt = visit % group, visit // group % 2
    lists = decode_attention.DecodePlan(
        page_I=np.arange(items)[::-1] + 2,
        row_I=row_I,
        tokens_I=np.where(last, 1 + 41 * np.arange(items) % 128, 128),
        items=items,
        first_B=first_B,
        count_B=count_B,
        order_B=np.argsort(-count_B, kind="stable"),
        prompt_B=np.arange(2 * TILE) // 3 % 3,
        tile_S=visit // (2 * group),
        shared_S=np.where(place < 2, 30 + 2 * prompt + place, 0),
        prompt_S=prompt,
        shared_tokens_S=np.select([place == 0, place == 1], [128, 50], 0),
        visits=len(visit),
    )
    return decode_attention.DecodePlan(*(jnp.asarray(x, jnp.int32) for x in lists))


def _normal(seed: int, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)
