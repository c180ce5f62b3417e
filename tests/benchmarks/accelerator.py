"""What one accelerator does with the shapes of released models: python -m tests.benchmarks.accelerator PART ...

One JSON line each; random weights in bfloat16. The floor of a step is additive, as in tests.benchmarks.sampler: its
multiplications at the rate of the model's own matrix products, plus its bytes at the bandwidth of a copy, both measured
in the same run. `transformers` needs torch and is to be run by itself: two frameworks share one memory badly.

    check          every kernel against its reference
    attention      decode attention of one layer by itself: bytes of keys and values a second, 256 rows
    decode         256 slots, 128 -> 2,048 tokens: each window's seconds beside its floor
    shared         8 prompts of 300 x 128 samples, 300 -> 1,700 tokens, 512 slots, a few windows of it
    transformers   the same model and batch by transformers' generate, at two lengths
    update         0.5B and 1.5B with float32 masters and AdamW, 7B in bfloat16 with Adafactor
"""

from __future__ import annotations

import argparse
import glob
import json
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from kernels import selfcheck
from kernels.decode_attention import decode_attention, hopper, tiling
from rlvr_limit import rl
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.inputs import attention_plan, in_row_order
from rlvr_limit.engine.requests import EngineStats, Request, prompt_key
from rlvr_limit.engine.scheduler import CacheShape, Scheduler, SequenceGroup
from rlvr_limit.engine.shapes import plan_sizes
from rlvr_limit.models.decoder import ModelConfig, init_params
from rlvr_limit.models.log_probs import AnswerRows
from rlvr_limit.settings import EngineConfig, OptimizerConfig
from rlvr_limit.types import SamplingParams
from tests.benchmarks.sampler import matmul_rate, multiplied_weights, times

SEVEN = ModelConfig(152_064, 3584, 28, 28, 4, 128, 18944, rope_theta=1e6, dtype="bfloat16")
HALF = ModelConfig(151_936, 896, 24, 14, 2, 64, 4864, rope_theta=1e6, tied_embedding=True, dtype="bfloat16")
ONE_AND_A_HALF = ModelConfig(151_936, 1536, 28, 12, 2, 128, 8960, rope_theta=1e6, tied_embedding=True, dtype="bfloat16")
TINY = ModelConfig(2048, 256, 4, 4, 2, 64, 704, rope_theta=1e6, dtype="bfloat16")
"""In place of all others with --small: to see on any machine that every part runs."""

WINDOW = 32
SHOWN = 25
"""Kernels of a profile that are printed."""


def say(part: str, **values: object) -> None:
    """One line."""
    print(json.dumps({"part": part, **values, "device": jax.devices()[0].device_kind}), flush=True)


def copy_bandwidth(size: int) -> float:
    """Bytes a second that a copy of `size` bytes reads and writes."""
    x = jnp.ones(size // 4, jnp.float32)
    negate = jax.jit(jnp.negative)
    return 2 * x.nbytes / statistics.median(times(lambda: negate(x), 20))


def floor_seconds(c: ModelConfig, rows: int, stats: EngineStats, rate: float, bandwidth: float) -> float:
    """The least time of one step in the middle of a window that began so."""
    attended, kept = (x + rows * WINDOW / 2 for x in (stats.attended, stats.tokens))
    flops = 2 * multiplied_weights(c) * rows + 4 * c.layers * c.heads * c.head_width * attended
    moved = 2 * (multiplied_weights(c) + 2 * c.layers * c.kv_heads * c.head_width * kept)
    return flops / rate + moved / bandwidth


def sampled(part: str, a: argparse.Namespace, prompts: int, samples: int, long: int, new: int, slots: int) -> None:
    """Windows of the engine over these requests until `a.windows` of them are done, each beside its floor."""
    c, began = TINY if a.small else SEVEN, time.perf_counter()
    params = jax.block_until_ready(init_params(c, jax.random.key(0)))
    made = time.perf_counter() - began
    config = EngineConfig(
        max_num_seqs=slots, steps_per_call=WINDOW, page_size=128, max_prompt_len=long,
        prefill_rows=min(8, prompts), prefix_rows=prompts, cache_tokens=slots * (new + 256) + prompts * (long + 128),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    sampling = SamplingParams(a.temperature, a.top_p, new)
    requests = [
        Request(
            str(i), tuple(rng.integers(10, c.vocab_size, long).tolist()), prompt_key(0, "benchmark", str(i)),
            tuple(range(samples)), sampling,
        )
        for i in range(prompts)
    ]  # fmt: skip
    engine, seen = Engine(params, c, config, new), []
    start = time.perf_counter()

    def watch(stats: EngineStats) -> None:
        seen.append((time.perf_counter(), stats))
        if a.profile and len(seen) == a.profile:
            jax.profiler.start_trace(folder)
        if a.profile and len(seen) == a.profile + 3:
            jax.profiler.stop_trace()
            profile(folder, 3 * WINDOW)
        if len(seen) > a.windows > 0:
            raise StopIteration

    tokens = 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            tokens = sum(len(sample.tokens) for sample in engine.generate(requests, watch))
            seen.append((time.perf_counter(), seen[-1][1]))
        except (StopIteration, RuntimeError):
            if not 0 < a.windows < len(seen):
                raise
    rate, bandwidth = matmul_rate(c, slots, params), copy_bandwidth(2**26 if a.small else 2**32)
    # The first two windows wait for the programs and for the pipeline of windows to fill.
    steps = [
        (stats.attended / stats.running, (then - now) / WINDOW, floor_seconds(c, stats.running, stats, rate, bandwidth))
        for (now, stats), (then, _) in zip(seen[2:], seen[3:], strict=False)
        if stats.running == slots
    ]
    took, floor = sum(s for _, s, _ in steps), sum(f for *_, f in steps)
    say(
        part,
        init_s=round(made, 1),
        compile_s=round(seen[0][0] - start, 1),
        tokens=tokens,
        seconds=round(seen[-1][0] - seen[0][0], 2),
        tokens_per_s=round(slots * len(steps) / took, 1),
        share_of_floor=round(floor / took, 3),
        matmul_tflops=round(rate / 1e12, 1),
        copy_tb_s=round(bandwidth / 1e12, 3),
        steps=[(round(x), round(1e3 * s, 2), round(1e3 * f, 2)) for x, s, f in steps[:: -(-len(steps) // 16)]],
    )


def attended(a: argparse.Namespace, prompts: int, prompt: int, own: int) -> None:
    """256 rows, in equal parts samples of `prompts` prompts of so many tokens, each with so many of its own."""
    c, rows, page = (TINY, 8, 128) if a.small else (SEVEN, 256, 128)
    each = -(-prompt // page) * prompts
    pages, shapes = each + rows * -(-own // page), tiling(jax.default_backend())
    groups = [SequenceGroup(i, prompt, own + WINDOW, range(rows // prompts)) for i in range(prompts)]
    scheduler = Scheduler(CacheShape(1, rows, pages + rows + 1, page, WINDOW), groups)
    scheduler.schedule()
    while scheduler.running[0][0].cached_tokens < own:
        scheduler.mark_cached(scheduler.running[0])
        scheduler.schedule()
    sizes = plan_sizes(rows, pages + rows + 1, -(-prompt // page), 1, shapes)
    lists = attention_plan([in_row_order(scheduler.running[0])], page, sizes, 0)
    lists = jax.tree.map(jnp.asarray, lists._replace(items=lists.items[0], visits=lists.visits[0]))
    k, h = c.kv_heads, c.head_width
    keys = iter(jax.random.split(jax.random.key(0), 3))
    q = jax.random.normal(next(keys), (rows, k, c.heads // k, h), c.dtype)
    pool = [jax.random.normal(next(keys), (pages + rows + 1, k, *x), c.dtype) for x in ((h, page), (page, h))]
    # Many layers in one program, as in a step: their starts overlap with the ends of those before.
    layers = 2 if a.small else 8

    @jax.jit
    def many(q: jax.Array) -> jax.Array:
        for _ in range(layers):
            found = decode_attention(q, *pool, lists, sizes.tile)
            q = (found.out_BKGH / found.sum_BKG[..., None]).astype(q.dtype)
        return q

    took = statistics.median(times(lambda: many(q), 10)) / layers
    moved = 2 * 2 * k * h * (prompts * prompt + rows * own)
    say(
        "attention", prompts=prompts, prompt=prompt, own=own, microseconds=round(1e6 * took, 1),
        gb_s=round(moved / took / 1e9), stages=hopper.STAGES, tokens_a_stage=hopper.PART,
    )  # fmt: skip


def profile(folder: str, steps: int) -> None:
    """Milliseconds a step of the kernels that take longest, by their names without numbers."""
    path = max(glob.glob(f"{folder}/**/*.xplane.pb", recursive=True))
    took: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for plane in jax.profiler.ProfileData.from_file(path).planes:
        if not plane.name.startswith("/device:"):
            continue
        for line in plane.lines:
            if not line.name.startswith("Stream"):
                continue
            for event in line.events:
                name = event.name.rstrip("0123456789_.")
                took[name] += event.duration_ns / 1e6 / steps
                calls[name] += 1
    say(
        "profile",
        ms_a_step=round(sum(took.values()), 3),
        kernels_a_step=round(sum(calls.values()) / steps, 1),
        kernels=[(name[:60], round(ms, 3), round(calls[name] / steps, 1)) for name, ms in took.most_common(SHOWN)],
    )


def by_transformers(a: argparse.Namespace) -> None:
    """Tokens a second of transformers at a batch of 256 after prompts of two lengths."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    c = TINY if a.small else SEVEN
    where = "cuda" if torch.cuda.is_available() else "cpu"
    config = Qwen2Config(
        vocab_size=c.vocab_size, hidden_size=c.width, intermediate_size=c.ffn_width, num_hidden_layers=c.layers,
        num_attention_heads=c.heads, num_key_value_heads=c.kv_heads, tie_word_embeddings=c.tied_embedding,
        max_position_embeddings=4096,
    )  # fmt: skip
    with torch.device(where):
        torch.set_default_dtype(torch.bfloat16)
        model = Qwen2ForCausalLM(config).eval()
    new = 8 if a.small else 64
    for long in (16, 32) if a.small else (128, 512):
        ids = torch.randint(10, c.vocab_size, (a.batch, long), device=where)

        def generate(tokens: int, ids: object = ids) -> float:
            began = time.perf_counter()
            model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=a.temperature, top_p=a.top_p,
                top_k=0, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0, eos_token_id=None,
            )  # fmt: skip
            if where == "cuda":
                torch.cuda.synchronize()
            return time.perf_counter() - began

        generate(2)
        # The prompts' own pass is in both.
        took = (generate(new + 2) - generate(2)) / new
        line = {"part": "transformers", "batch": a.batch, "context": long + new // 2, "ms_a_step": round(1e3 * took, 2)}
        print(json.dumps(line | {"tokens_per_s": round(a.batch / took, 1)}), flush=True)


def updated(name: str, c: ModelConfig, masters: str, kind: str, places: int, a: argparse.Namespace) -> None:
    """Tokens a second of accumulated updates of 4 microbatches of one row, beside the floor of their products."""
    c, places = (TINY, 64) if a.small else (c, places)
    rng, shape = np.random.default_rng(0), (1, places)
    params = init_params(replace(c, dtype=masters), jax.random.key(0))
    rows = AnswerRows(
        rng.integers(c.vocab_size, size=shape).astype(np.int32),
        np.broadcast_to(np.arange(places) >= places // 8, shape),
        np.ones(shape, np.int32),
        np.arange(places, dtype=np.int32)[None],
    )
    weight = (rows.answer_BT / rows.answer_BT.sum() / 4).astype(np.float32)
    behaviour = np.full(shape, -np.log(c.vocab_size), np.float32)
    batch = rl.PolicyBatch(rows, behaviour, rng.normal(size=shape).astype(np.float32), weight)
    tx = rl.optimizer(OptimizerConfig(1e-6, kind=kind), 100)
    state, objective, compute = rl.init_state(params, tx), rl.Objective(0.2, 0.2), rl.Compute(remat="layers")
    del params

    def step() -> dict[str, jax.Array]:
        nonlocal state
        state, metrics = rl.train_step(state, c, tx, objective, [batch] * 4, compute)
        return metrics

    began = time.perf_counter()
    jax.block_until_ready(step())
    first = time.perf_counter() - began
    middle = statistics.median(times(step, 5))
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    rate = matmul_rate(c, places, jax.tree.map(lambda x: x.astype(c.dtype), state.params))
    per_token = 6 * multiplied_weights(c) + 12 * c.layers * c.heads * c.head_width * (places + 1) / 2
    tokens = 4 * places
    say(
        f"update {name}",
        param_dtype=masters,
        optimizer=kind,
        places=places,
        first_s=round(first, 1),
        step_s=round(middle, 3),
        tokens_per_s=round(tokens / middle, 1),
        matmul_tflops=round(rate / 1e12, 1),
        share_of_floor=round(tokens * per_token / rate / middle, 3),
        peak_gb=round(peak / 1e9, 2),
    )


def checked() -> None:
    """Runs the kernels' own check and says how long it took."""
    began = time.perf_counter()
    selfcheck.check()
    say("check", seconds=round(time.perf_counter() - began, 1), backend=jax.default_backend())


SEEN = [(256, 128, 256), (256, 128, 1024), (256, 128, 1920), (8, 300, 700), (1, 2048, 512)]
"""Prompts, tokens of each, tokens of each sample."""

PARTS: dict[str, Callable[[argparse.Namespace], None]] = {
    "check": lambda a: checked(),
    "attention": lambda a: [
        attended(a, *((2, 130, 32) if a.small else seen)) for seen in SEEN[: 1 if a.small else None]
    ],
    "decode": lambda a: sampled("decode", a, *((8, 1, 16, 96, 8) if a.small else (256, 1, 128, 1920, 256))),
    "shared": lambda a: sampled("shared", a, *((2, 4, 16, 96, 8) if a.small else (8, 128, 300, 1400, 512))),
    "transformers": by_transformers,
    "update": lambda a: [
        updated("0.5B", HALF, "float32", "adamw", 8192, a),
        updated("1.5B", ONE_AND_A_HALF, "float32", "adamw", 8192, a),
        updated("7B", SEVEN, "bfloat16", "adafactor", 4096, a),
    ],
}


def main() -> None:
    """Runs the parts named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--small", action="store_true", help="a tiny model: to see that a part runs")
    parser.add_argument("--windows", type=int, default=0, help="stop after so many windows; 0: at the end")
    parser.add_argument("--profile", type=int, default=0, help="trace three windows from this one on")
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--top-p", dest="top_p", type=float, default=0.95)
    parser.add_argument("--batch", type=int, default=256, help="rows of transformers' batch")
    parser.add_argument("--cache", type=Path, help="JAX's compilation cache")
    a = parser.parse_args()
    if a.cache:
        jax.config.update("jax_compilation_cache_dir", str(a.cache))
    for name in a.parts:
        PARTS[name](a)


if __name__ == "__main__":
    main()
