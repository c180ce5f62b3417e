"""Tokens a second on real weights and real prompts, beside what the machine allows at the lengths that were drawn.

    python -m tests.benchmarks.real_prompts --model DIR --prompts FILE.json [--samples 3] [--new-tokens 400]
                                            [--dtype bfloat16] [--buckets 8 12 16 24 32 48] [--cold]
                                            [--keep FILE.json]

DIR is a Hugging Face folder, FILE.json a list of prompts, each a list of token ids. Answers are drawn at T = 0.6 and
top-p 0.95 and end where the model ends them. All are drawn twice; the JSON line is of the second time.
first_token_seconds and first_call_seconds go from the start of loading to the first tokens and to the end of the first
time; --cold compiles all programs, as no run has before. core_seconds are those of all cores together: where others use
the machine, they say more than the clock. The floor is that of tests/benchmarks/sampler.py: the products and bytes of
the work at the rates that this machine gave in this run. --keep writes what was drawn, for tests.benchmarks.scorer.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import NamedTuple

import jax

from rlvr_limit import checkpoint
from rlvr_limit.distributed.compiled import keep_compiled
from rlvr_limit.distributed.mesh import abstract_parameters, make_mesh
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import EngineStats, Request, prompt_key
from rlvr_limit.models.decoder import parameter_specs
from rlvr_limit.settings import EngineConfig, MeshConfig
from rlvr_limit.types import Sample, SamplingParams
from tests.benchmarks.sampler import floor_seconds, matmul_rate, multiplied_weights, read_bandwidth

STEPS, PAGE = 8, 32


def requests(prompts: list[list[int]], samples: int, sampling: SamplingParams, turn: int) -> list[Request]:
    """The same prompts with other random numbers each turn."""
    return [
        Request(str(i), tuple(ids), prompt_key(turn, "real prompts", str(i)), range(samples), sampling)
        for i, ids in enumerate(prompts)
    ]


class Drawn(NamedTuple):
    """One turn: samples, seconds, those of all cores, and what was seen before each window, and when."""

    samples: list[Sample]
    seconds: float
    core_seconds: float
    stats: list[EngineStats]
    times: list[float]

    @property
    def tokens(self) -> int:
        return sum(len(sample.tokens) for sample in self.samples)


def draw(engine: Engine, asked: list[Request]) -> Drawn:
    """Draws all that is asked."""
    stats: list[EngineStats] = []
    times: list[float] = []

    def watch(now: EngineStats) -> None:
        stats.append(now)
        times.append(time.perf_counter())

    start, cores = time.perf_counter(), time.process_time()
    samples = list(engine.generate(asked, watch))
    return Drawn(samples, time.perf_counter() - start, time.process_time() - cores, stats, times)


def main() -> None:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--samples", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=400)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--buckets", type=int, nargs="*", default=[8, 12, 16, 24, 32, 48])
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--keep", type=Path)
    a = parser.parse_args()
    if not a.cold:
        keep_compiled()
    start = time.perf_counter()
    model, mesh = checkpoint.read_model_config(a.model, a.dtype), make_mesh(MeshConfig())
    prompts = json.loads(a.prompts.read_text())
    rows = min(64, len(prompts) * a.samples)
    config = EngineConfig(
        max_num_seqs=rows, steps_per_call=STEPS, page_size=PAGE, max_prompt_len=max(map(len, prompts)),
        prefill_rows=1, prefix_rows=len(prompts),
        buckets=tuple(n for n in a.buckets if n < rows),
    )  # fmt: skip
    engine = Engine(abstract_parameters(parameter_specs(model), a.dtype, mesh), model, config, a.new_tokens)
    engine.expect(map(len, prompts), len(prompts) * a.samples)
    params = checkpoint.load_hf(a.model, model, mesh)
    engine.load(params)
    sampling = SamplingParams(0.6, 0.95, a.new_tokens, checkpoint.stop_tokens(a.model))
    first = draw(engine, requests(prompts, a.samples, sampling, 0))
    first_call = time.perf_counter() - start
    found = draw(engine, requests(prompts, a.samples, sampling, 1))
    if a.keep:
        kept = [(prompts[int(sample.problem_id)], list(sample.tokens)) for sample in found.samples]
        a.keep.write_text(json.dumps(kept))
    rate, bandwidth = matmul_rate(model, rows, params), read_bandwidth()
    floor = floor_seconds(model, STEPS, found.stats, rate, bandwidth, engine.shapes.token_bytes(model))
    # Prompts are computed too, but for the logits.
    floor += 2 * (multiplied_weights(model) - model.vocab_size * model.width) * sum(map(len, prompts)) / rate
    line = {
        "model": a.model.name,
        "dtype": a.dtype,
        "prompts": len(prompts),
        "samples": a.samples,
        "tok_per_s": round(found.tokens / found.seconds, 1),
        "tokens": found.tokens,
        "seconds": round(found.seconds, 2),
        "core_seconds": round(found.core_seconds, 2),
        "first_token_seconds": round(first.times[1] - start, 2),
        "first_call_seconds": round(first_call, 2),
        "matmul_gflops": round(rate / 1e9, 1),
        "read_gb_s": round(bandwidth / 1e9, 1),
        "share_of_floor": round(floor / found.seconds, 3),
        "load_average": round(os.getloadavg()[0], 1),
        "device": jax.devices()[0].device_kind,
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
