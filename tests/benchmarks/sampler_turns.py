"""The sampler against itself and others, by turns in one run: python -m tests.benchmarks.sampler_turns [comparison ...]

One JSON line a comparison. `tail`: samples of very different lengths, beside as many of one length and beside a loop
that decodes each batch until its last sample is done (tests/benchmarks/lock_step.py). `one-prompt` and `eight-prompts`:
time a sample as there are more of them, prompts prefilled.
Seconds of all cores stand beside those of the clock: where others use the machine, they say more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial

import jax

from rlvr_limit.distributed.compiled import keep_compiled
from rlvr_limit.engine.requests import EngineStats
from tests.benchmarks.lock_step import lock_step
from tests.benchmarks.sampler import WORKLOADS, Workload, engine_for, lengths, one_turn, params_of, requests

Turn = Callable[[int], tuple[float, float, int]]
"""Number of a turn -> (seconds, seconds of all cores, tokens)."""

EVERY = 4
"""Of so many batches the lock-step loop draws one: all take as long as 1,024 tokens do, or nearly."""


def ours(w: Workload, params: dict, seen: list[EngineStats]) -> Turn:
    """Turns of an engine; seen holds what there was before each window of the last one."""
    engine = engine_for(w, params)

    def turn(number: int) -> tuple[float, float, int]:
        took, cores, seen[:] = one_turn(engine, w, number)
        return took, cores, int(lengths(w).sum())

    return turn


def loop(w: Workload, params: dict) -> Turn:
    """Turns of the lock-step loop."""

    def turn(number: int) -> tuple[float, float, int]:
        start, start_cores = time.perf_counter(), time.process_time()
        tokens = lock_step(params, w.model, requests(w, number), w.slots, w.window, EVERY)
        return time.perf_counter() - start, time.process_time() - start_cores, tokens

    return turn


def by_turns(kinds: dict[str, Turn], repeats: int) -> dict[str, dict]:
    """Medians of each kind after a turn that warms it up: the order changes with every turn."""
    found: dict[str, list[tuple[float, float, int]]] = {kind: [] for kind in kinds}
    for number in range(repeats + 1):
        for kind in list(kinds)[:: 1 if number % 2 else -1]:
            found[kind].append(kinds[kind](number))
    return {kind: _medians(turns[1:]) for kind, turns in found.items()}


def _medians(turns: list[tuple[float, float, int]]) -> dict:
    seconds, cores, tokens = zip(*turns, strict=True)
    return {
        "tokens_per_s": round(tokens[0] / statistics.median(seconds), 1),
        "tokens_per_core_s": round(tokens[0] / statistics.median(cores), 1),
        "seconds": [round(x, 2) for x in seconds],
        "core_seconds": [round(x, 2) for x in cores],
    }


def _ratios(one: dict, other: dict) -> dict:
    return {name: round(one[name] / other[name], 3) for name in ("tokens_per_s", "tokens_per_core_s")}


def tail(repeats: int) -> dict:
    """Log-normal lengths beside fixed ones and beside the lock-step loop."""
    w, fixed = WORKLOADS["tail"], WORKLOADS["tail-fixed"]
    params = params_of(w)
    kinds = {"tail": ours(w, params, []), "fixed": ours(fixed, params, []), "lock_step": loop(w, params)}
    found = by_turns(kinds, repeats)
    return {
        "comparison": "tail",
        "slots": w.slots,
        **found,
        "times_lock_step": _ratios(found["tail"], found["lock_step"]),
        "share_of_fixed": _ratios(found["tail"], found["fixed"]),
    }


def samples_of(workload: str, counts: tuple[int, ...], repeats: int) -> dict:
    """Milliseconds a sample for several numbers of samples, and how many prompts were prefilled."""
    ws = {n: WORKLOADS[f"{workload}-{n}"] for n in counts}
    params = params_of(ws[counts[0]])
    seen: dict[int, list[EngineStats]] = {n: [] for n in counts}
    found = by_turns({str(n): ours(w, params, seen[n]) for n, w in ws.items()}, repeats)
    ms = {
        name: [round(1e3 * statistics.median(found[str(n)][name]) / (w.prompts * w.samples), 2) for n, w in ws.items()]
        for name in ("seconds", "core_seconds")
    }
    return {
        "comparison": workload,
        "prompts": ws[counts[0]].prompts,
        "samples_a_prompt": counts,
        "slots": [w.slots for w in ws.values()],
        "prefills": [seen[n][-1].prefills for n in counts],
        "ms_per_sample": ms["seconds"],
        "core_ms_per_sample": ms["core_seconds"],
        "most_rise": round(max(b / a for a, b in zip(ms["seconds"], ms["seconds"][1:], strict=False)) - 1, 3),
        "turns": found,
    }


COMPARISONS = {
    "tail": tail,
    "one-prompt": partial(samples_of, "one-prompt", (64, 256, 1024)),
    "eight-prompts": partial(samples_of, "eight-prompts", (8, 32, 128)),
}


def main() -> None:
    """Runs the comparisons named on the command line, or all."""
    keep_compiled()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparisons", nargs="*", choices=[*COMPARISONS, []], default=list(COMPARISONS))
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    for name in arguments.comparisons:
        line = COMPARISONS[name](arguments.repeats)
        print(json.dumps({**line, "device": jax.devices()[0].device_kind}), flush=True)


if __name__ == "__main__":
    main()
