"""Tokens a second of the sampler beside what the machine allows: python -m tests.benchmarks.sampler [workload ...]

One JSON line a workload. The floor of a step is its multiplications at the rate of a chain of the same matrix products,
plus its bytes (weights, live keys and values, a shared prompt once) at the machine's read bandwidth; both rates are
measured in the same run. Softmax, norms and drawing are not in the floor.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_limit.distributed.compiled import keep_compiled
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import EngineStats, Request, prompt_key
from rlvr_limit.models.decoder import ModelConfig, Params, for_inference, init_params, logits, parameter_count
from rlvr_limit.models.layers import matmul_precision, project
from rlvr_limit.settings import EngineConfig
from rlvr_limit.types import SamplingParams

TINY = ModelConfig(2048, 256, 4, 4, 2, 64, 704, rope_theta=1e6, tied_embedding=True)
HALF = ModelConfig(151_936, 896, 24, 14, 2, 64, 4864, rope_theta=1e6, tied_embedding=True)


@dataclass(frozen=True)
class Workload:
    """prompts x samples answers of `new` tokens, or of log-normal lengths, after prompts of `long` tokens."""

    model: ModelConfig
    prompts: int
    samples: int
    long: int
    new: int
    slots: int
    log_normal: bool = False
    window: int = 32
    page: int = 32
    temperature: float = 0.6
    top_p: float = 0.95
    buckets: tuple[int, ...] = ()


FIXED = Workload(TINY, 4, 64, 256, 128, 256)
TAIL = Workload(TINY, 8, 128, 256, 1024, 64, log_normal=True, window=8, buckets=(8, 16, 32))
WORKLOADS = {
    "tiny": FIXED,
    "half": Workload(HALF, 2, 32, 256, 64, 64),
    "tail": TAIL,
    "tail-fixed": replace(TAIL, new=128, samples=32, log_normal=False, buckets=()),
    **{f"one-prompt-{n}": Workload(TINY, 1, n, 1024, 64, min(n, 256)) for n in (64, 256, 1024)},
    **{f"eight-prompts-{n}": Workload(TINY, 8, n, 1024, 64, min(8 * n, 256)) for n in (8, 32, 128)},
    **{f"prompt-{n}": replace(FIXED, long=n, new=64) for n in (64, 512, 2048)},
}


def lengths(w: Workload) -> np.ndarray:
    """Answer lengths [prompts, samples]: all w.new, or log-normal of median 100 and sigma 0.8 with 2 % at the cap."""
    if not w.log_normal:
        return np.full((w.prompts, w.samples), w.new)
    rng = np.random.default_rng(0)
    drawn = np.exp(np.log(100) + 0.8 * rng.standard_normal((w.prompts, w.samples)))
    drawn[rng.random(drawn.shape) < 0.02] = w.new
    return np.clip(drawn, 1, w.new).astype(int)


def requests(w: Workload, turn: int) -> list[Request]:
    """The prompts of a workload: others in each turn."""
    rng, long = np.random.default_rng(turn), lengths(w)
    sampling = SamplingParams(w.temperature, w.top_p, w.new)
    return [
        Request(
            str(i),
            tuple(rng.integers(10, w.model.vocab_size, w.long).tolist()),
            prompt_key(turn, "benchmark", str(i)),
            tuple(range(w.samples)),
            sampling,
            limits=dict(enumerate(long[i].tolist())),
        )
        for i in range(w.prompts)
    ]


def params_of(w: Workload) -> Params:
    """Random weights."""
    return init_params(w.model, jax.random.key(0))


def times(f: Callable, repeats: int) -> list[float]:
    """Seconds of f(), several times, after one warm call."""
    jax.block_until_ready(f())
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(f())
        found.append(time.perf_counter() - start)
    return found


def seconds(f: Callable, repeats: int = 5) -> float:
    """Median time of f() after one warm call."""
    return statistics.median(times(f, repeats))


def read_bandwidth() -> float:
    """Bytes a second that a sum over 512 MB reads."""
    x = jnp.ones((2**20, 128), jnp.float32)
    total = jax.jit(lambda x: jnp.sum(x))
    return x.nbytes / seconds(lambda: total(x))


def matmul_rate(c: ModelConfig, rows: int, params: Params) -> float:
    """Multiply-adds x 2 a second of the weight products of one step over `rows` rows, one after the other.

    The products are the model's own, with weights as the engine holds them.
    """

    @jax.jit
    def chain(x: jax.Array, params: Params) -> jax.Array:
        with matmul_precision(c.dtype):
            for p in params["layers"]:
                mixed = project(x, p["q"])
                for name in "kv":
                    mixed = mixed + jnp.sum(project(x, p[name]), axis=(2, 3), keepdims=True)
                x = x + project(mixed, p["o"])
                x = x + project(project(x, p["gate"]) * project(x, p["up"]), p["down"])
        return jnp.sum(logits(params, x[:, 0]), axis=1)

    x, params = jnp.full((rows, 1, c.width), 1e-3, c.dtype), for_inference(params)
    return 2 * multiplied_weights(c) * rows / seconds(lambda: chain(x, params))


def multiplied_weights(c: ModelConfig) -> int:
    """Parameters that a token is multiplied with; where an embedding is only looked up, it is not among them."""
    return parameter_count(c) - (0 if c.tied_embedding else c.vocab_size * c.width)


def floor_seconds(
    c: ModelConfig, window: int, stats: list[EngineStats], rate: float, bandwidth: float, of_token: int
) -> float:
    """The least time for what the engine did: every window's steps with the tokens live in it, of_token bytes each."""
    weights, item, total = multiplied_weights(c), jnp.dtype(c.dtype).itemsize, 0.0
    for m in stats:
        context = m.attended + m.running * window / 2
        flops = 2 * weights * m.running + 4 * c.layers * c.heads * c.head_width * context
        kept = m.tokens + m.running * window / 2
        moved = item * weights + of_token * kept
        total += window * (flops / rate + moved / bandwidth)
    return total


def engine_for(w: Workload, params: Params) -> Engine:
    """An engine of the workload's shapes."""
    config = EngineConfig(
        max_num_seqs=w.slots, steps_per_call=w.window, page_size=w.page,
        max_prompt_len=w.long, prefill_rows=min(4, w.prompts), prefix_rows=w.prompts, buckets=w.buckets,
    )  # fmt: skip
    return Engine(params, w.model, config, w.new)


def one_turn(engine: Engine, w: Workload, turn: int) -> tuple[float, float, list[EngineStats]]:
    """Seconds of a turn, those of all cores together, and what was seen before each of its windows."""
    stats: list[EngineStats] = []
    start, start_cores = time.perf_counter(), time.process_time()
    drawn = sum(len(sample.tokens) for sample in engine.generate(requests(w, turn), stats.append))
    took, cores = time.perf_counter() - start, time.process_time() - start_cores
    assert drawn == lengths(w).sum()
    return took, cores, stats


def run(name: str, repeats: int, params: Params | None = None) -> dict:
    """One workload's line."""
    w = WORKLOADS[name]
    params = params_of(w) if params is None else params
    engine = engine_for(w, params)
    expected, found, stats = int(lengths(w).sum()), [], []
    for turn in range(repeats + 1):
        took, _, stats = one_turn(engine, w, turn)
        found.append(took)
    middle = statistics.median(found[1:])
    rate, bandwidth = matmul_rate(w.model, w.slots, params), read_bandwidth()
    of_token = engine.shapes.token_bytes(w.model)
    floor = floor_seconds(w.model, w.window, stats, rate, bandwidth, of_token)
    return {
        "workload": name,
        "tokens": expected,
        "tokens_per_s": round(expected / middle, 1),
        "seconds": [round(x, 2) for x in found[1:]],
        "first_call_s": round(found[0], 2),
        "ms_per_sample": round(1e3 * middle / (w.prompts * w.samples), 2),
        "prefills": stats[-1].prefills,
        "cache_bytes_a_token": of_token,
        "busy_rows": round(expected / (w.window * sum(m.rows for m in stats)), 3),
        "matmul_gflops": round(rate / 1e9, 1),
        "read_gb_s": round(bandwidth / 1e9, 1),
        "share_of_floor": round(floor / middle, 3),
        "device": jax.devices()[0].device_kind,
    }


def main() -> None:
    """Runs the workloads named on the command line, or all."""
    keep_compiled()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", choices=[*WORKLOADS, []], default=list(WORKLOADS))
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for name in arguments.workloads:
        print(json.dumps(run(name, arguments.repeats)), flush=True)


if __name__ == "__main__":
    main()
