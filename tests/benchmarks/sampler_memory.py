"""Cache held by samples of very different lengths beside their live tokens: python -m tests.benchmarks.sampler_memory

1,024 samples may have 16,384 tokens each and have 300 on average. The scheduler decides who holds which pages, so it is
run alone, in plain Python, with lengths given as limits; --engine then draws the same samples from a decoder of one
layer and holds that it held the same pages at the same windows. One JSON line for each pair of window and page.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import jax
import numpy as np

from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import EngineStats, Request, prompt_key
from rlvr_limit.engine.scheduler import CacheShape, Scheduler, SequenceGroup
from rlvr_limit.engine.shapes import LOOKAHEAD
from rlvr_limit.models.decoder import ModelConfig, init_params
from rlvr_limit.settings import EngineConfig
from rlvr_limit.types import SamplingParams

ONE_LAYER = ModelConfig(64, 16, 1, 2, 1, 8, 32)


@dataclass(frozen=True)
class Workload:
    """prompts x samples answers of log-normal lengths, two of which reach the cap, after prompts of `long` tokens."""

    prompts: int = 8
    samples: int = 128
    long: int = 256
    cap: int = 16_384
    mean: int = 300
    slots: int = 64
    window: int = 16
    page: int = 32
    cache: int = 65_536
    buckets: tuple[int, ...] = (1, 4, 16)


class Held(NamedTuple):
    """At the start of a window: live samples, pages held, tokens whose keys and values are in use (a prompt's once),
    and samples preempted so far."""

    live: int
    pages: int
    tokens: int
    preempted: int


def lengths(w: Workload) -> np.ndarray:
    """Answer lengths [prompts, samples] of the workload's mean: log-normal of sigma 0.8, and two at the cap."""
    rng = np.random.default_rng(0)
    drawn = np.exp(0.8 * rng.standard_normal(w.prompts * w.samples))
    at_cap = rng.choice(drawn.size, 2, replace=False)
    others = np.ones(drawn.size, bool)
    others[at_cap] = False
    drawn *= (w.mean * drawn.size - 2 * w.cap) / drawn[others].sum()
    drawn[at_cap] = w.cap
    return np.clip(np.rint(drawn), 1, w.cap).astype(int).reshape(w.prompts, w.samples)


def schedule(w: Workload) -> Iterator[Held]:
    """What the scheduler holds at each window, were each sample to end at its length."""
    own = lengths(w)
    groups = (SequenceGroup(p, w.long - 1, w.cap, range(w.samples)) for p in range(w.prompts))
    scheduler = Scheduler(CacheShape(1, w.slots, w.cache // w.page, w.page, w.window, LOOKAHEAD), groups)
    preempted = 0
    while True:
        preempted += len(scheduler.schedule().preempted)
        running = list(scheduler.running[0])
        if not running:
            return
        shared = (w.long - 1) * len({seq.group for seq in running})
        tokens = shared + sum(seq.cached_tokens for seq in running)
        yield Held(len(running), scheduler.pages_in_use, tokens, preempted)
        scheduler.mark_cached(running)
        for seq in running:
            if seq.cached_tokens >= own[seq.group.number, seq.index]:
                scheduler.release(seq)


def drawn(w: Workload) -> list[Held]:
    """The same, of an engine that draws the samples."""
    own, rng = lengths(w), np.random.default_rng(1)
    requests = [
        Request(
            str(p),
            tuple(rng.integers(ONE_LAYER.vocab_size, size=w.long).tolist()),
            prompt_key(0, "benchmark", str(p)),
            tuple(range(w.samples)),
            SamplingParams(1.0, 1.0, w.cap),
            limits=dict(enumerate(own[p].tolist())),
        )
        for p in range(w.prompts)
    ]
    config = EngineConfig(
        max_num_seqs=w.slots, steps_per_call=w.window, page_size=w.page, cache_tokens=w.cache, buckets=w.buckets,
        max_prompt_len=w.long, prefill_rows=w.prompts,
    )  # fmt: skip
    engine = Engine(init_params(ONE_LAYER, jax.random.key(0)), ONE_LAYER, config, w.cap)
    stats: list[EngineStats] = []
    found = {(s.problem_id, s.index): len(s.tokens) for s in engine.generate(requests, stats.append)}
    assert found == {(str(p), i): own[p, i] for p in range(w.prompts) for i in range(w.samples)}
    return [Held(m.running, m.pages, m.tokens, m.preempted) for m in stats]


def excess(w: Workload, held: Held) -> int:
    """Tokens of cache beyond the live ones, the window that every slot is at included."""
    return held.pages * w.page + w.slots * w.window - held.tokens


def line(w: Workload, also_engine: bool) -> dict:
    """One JSON line. Raises AssertionError where the promise about memory does not hold."""
    found = list(schedule(w))
    allowed = w.slots * (2 * w.window + w.page)
    most = max(excess(w, held) for held in found)
    assert most <= allowed, f"{most} tokens of cache beyond the live ones, {allowed} are allowed"
    full = [held for held in found if held.live == w.slots]

    def share(some: list[Held]) -> float:
        return round(w.page * sum(h.pages for h in some) / sum(h.tokens for h in some), 4)

    tight = list(schedule(Workload(window=w.window, page=w.page, cache=w.cap + 2 * w.page + w.long)))
    result = {
        "workload": "memory",
        "samples": w.prompts * w.samples,
        "mean_tokens": round(float(lengths(w).mean()), 1),
        "cap": w.cap,
        "slots": w.slots,
        "window": w.window,
        "page": w.page,
        "cache_tokens": w.cache,
        "reserved_for_the_cap": w.slots * w.cap,
        "windows": len(found),
        "most_live_tokens": max(h.tokens for h in found),
        "most_beyond_live": most,
        "allowed_beyond_live": allowed,
        "pages_over_live": share(found),
        "pages_over_live_all_slots_taken": share(full),
        "preempted": found[-1].preempted,
        "smallest_pool": {"windows": len(tight), "preempted": tight[-1].preempted},
    }
    if also_engine:
        assert drawn(w) == found, "the engine held other pages than the scheduler alone"
        result["engine_held_the_same"] = True
    return result


def main() -> None:
    """Prints a line for each pair of window and page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", action="store_true", help="draw the samples too, from a decoder of one layer")
    arguments = parser.parse_args()
    for window, page in ((8, 32), (16, 32), (32, 32), (32, 128)):
        print(json.dumps(line(Workload(window=window, page=page), arguments.engine)), flush=True)


if __name__ == "__main__":
    main()
