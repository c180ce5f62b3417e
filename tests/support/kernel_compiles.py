"""Kernels compiled by the compiler of a machine that is not here; one JSON line each.

python -m tests.support.kernel_compiles h200 | v5e-8 | v5p-8 | v6e-16 [part of a name]
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from kernels.decode_attention import DecodePlan, decode_attention
from kernels.token_logprob import token_logprob
from kernels.top_p import top_p_mask
from rlvr_limit.planning import compiling, find_target

PAGE, TILE, ROWS = 128, 32, 64
VOCABULARIES = {"Qwen2.5-0.5B": 151_936, "Qwen2.5-7B": 152_064, "LLaMA-3.1-8B": 128_256}
HEADS = {
    "Qwen2.5-7B bf16": (4, 7, 128, jnp.bfloat16),
    "Qwen2.5-7B float32": (4, 7, 128, jnp.float32),
    "Qwen2.5-0.5B bf16": (2, 7, 64, jnp.bfloat16),
    "Qwen2.5-0.5B float32": (2, 7, 64, jnp.float32),
    "LLaMA-3.1-8B bf16": (8, 4, 128, jnp.bfloat16),
    "one head of width 64, float32": (1, 1, 64, jnp.float32),
}
"""Key heads, query heads a key head, head width, type."""


def shapes(sharding: Any) -> Callable[..., jax.ShapeDtypeStruct]:
    """dims -> an array of that shape on that device."""
    return lambda *dims, dtype=jnp.float32: jax.ShapeDtypeStruct(dims, dtype, sharding=sharding)


def attention_arguments(a: Callable, heads: tuple, rows: int = ROWS, pages: int = 1024, tile: int = TILE) -> tuple:
    """Arguments of decode attention: every page of a pool may be some row's; each row's prompt fills up to 16."""
    k, g, h, dtype = heads
    i = partial(a, dtype=jnp.int32)
    visits = 16 * -(-rows // tile)
    lists, of_rows, shared = [i(pages)] * 3, [i(rows)] * 4, [i(visits)] * 4
    plan = DecodePlan(*lists, i(), *of_rows, *shared, i())
    pools = a(pages, k, h, PAGE, dtype=dtype), a(pages, k, PAGE, h, dtype=dtype)
    return a(rows, k, g, h, dtype=dtype), *pools, plan


def programs(sharding: Any = None) -> Iterator[tuple[str, Callable, tuple, int]]:
    """(name, function, its arguments, bytes that no temporary may reach) of everything that is to compile."""
    a = shapes(sharding)
    for name, heads in HEADS.items():
        arguments = attention_arguments(a, heads)
        # The pool is of one layer: a copy of it, or of its keys or values, would be more than that.
        pool = 2 * arguments[1].size * arguments[1].dtype.itemsize
        yield f"decode_attention {name}", partial(decode_attention, tile=TILE), arguments, pool // 5
    for name, vocab in VOCABULARIES.items():
        arguments = (a(ROWS, vocab), a(ROWS))
        yield f"top_p {name}", top_p_mask, arguments, ROWS * vocab * 4 // 10
        hidden, weights = a(8192, 3584, dtype=jnp.bfloat16), a(3584, vocab, dtype=jnp.bfloat16)
        arguments = (hidden, weights, a(8192, dtype=jnp.int32))
        yield f"token_logprob {name}", partial(token_logprob, chunk=1024), arguments, 8192 * vocab * 4 // 50


def compiled(function: Callable, arguments: tuple) -> tuple[jax.stages.Compiled, float]:
    """(program, seconds that its compiler took) for the device that the arguments name."""
    lowered = jax.jit(lambda *args: function(*args)).lower(*arguments)
    began = time.monotonic()
    return lowered.compile(), time.monotonic() - began


def main(target: str, part: str = "") -> None:
    """Prints what each program takes; bytes the compiler counts do not include what a kernel fetches itself."""
    device = compiling.devices_of(find_target(target))[0]
    for name, function, arguments, _ in programs(jax.sharding.SingleDeviceSharding(device)):
        if part in name:
            program, seconds = compiled(function, arguments)
            memory, cost = program.memory_analysis(), program.cost_analysis() or {}
            row = {"kernel": name, "target": target, "compile_s": round(seconds, 1)}
            row |= {"temporaries": memory.temp_size_in_bytes, "arguments": memory.argument_size_in_bytes}
            row |= {"code": memory.generated_code_size_in_bytes, "compiler_estimate_s": cost.get("optimal_seconds")}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
