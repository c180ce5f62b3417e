"""A small model, requests of every kind, and what their samples are held to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import jax
import numpy as np

from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import EngineStats, Request, prompt_key
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.settings import EngineConfig
from rlvr_limit.types import Sample, SamplingParams
from tests.support.reference_engine import Reference

MODEL = ModelConfig(vocab_size=20, width=32, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=64)


LONGEST = 22


CONFIG = EngineConfig(
    max_num_seqs=16, steps_per_call=4, page_size=16, min_shared_prefix=12, max_prompt_len=40, prefill_rows=4
)


CLOSE = 1e-5


def pair_above_twelve(tokens: tuple[int, ...]) -> int | None:
    """A stop string: the answer ends before the first two tokens of which both are above 12."""
    return next((i for i, pair in enumerate(zip(tokens, tokens[1:], strict=False)) if min(pair) > 12), None)


SETTINGS = [
    (SamplingParams(1.0, 1.0, LONGEST), None),
    (SamplingParams(0.7, 0.9, LONGEST, (0, 7)), None),
    (SamplingParams(1.5, 1.0, 13), pair_above_twelve),
    (SamplingParams(1.0, 0.95, LONGEST, (3,)), pair_above_twelve),
    (SamplingParams(0.0, 1.0, 9), None),
]


LENGTHS = [1, 2, 9, 12, 13, 31, 40]


Drawn = dict[tuple[str, int], Sample]


def asked(samples: int = 4) -> list[Request]:
    """Prompts shorter and longer than a page and than group_from, each under several settings."""
    rng = np.random.default_rng(5)
    prompts = [tuple(rng.integers(MODEL.vocab_size, size=n).tolist()) for n in LENGTHS]
    pairs = [(p, s) for s in range(len(SETTINGS)) for p in range(len(LENGTHS)) if (p + s) % 3 != 1]
    requests = [
        Request(f"{LENGTHS[p]}/{s}", prompts[p], prompt_key(2, "eval", str(p)), tuple(range(samples)), *SETTINGS[s])
        for p, s in pairs
    ]
    # One long sample comes after many short ones, so that it is alone in the end.
    return [*requests, replace(requests[0], problem_id="last", indices=(7,))]


def draw(engine: Engine, requests: list[Request]) -> tuple[Drawn, list[EngineStats]]:
    """Samples by (problem, index), having held that each came once, and what was seen before every window."""
    stats: list[EngineStats] = []
    samples = list(engine.generate(requests, stats.append))
    drawn = {(s.problem_id, s.index): s for s in samples}
    assert len(drawn) == len(samples)
    assert drawn.keys() == {(r.problem_id, i) for r in requests for i in r.indices}
    return drawn, stats


def hold_within_rounding(drawn: Drawn, references: dict[tuple[str, int], Reference]) -> None:
    """Equal tokens have log-probs within CLOSE; the first other token of a sample was drawn within CLOSE of it."""
    worst, margins = 0.0, []
    for key, (expected, margin) in references.items():
        found = drawn[key]
        pairs = list(zip(found.tokens, expected.tokens, strict=False))
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
        for a, b in ((found.logp, expected.logp), (found.logp_model, expected.logp_model)):
            worst = max([worst, *np.abs(np.subtract(a[:same], b[:same]))])
        if found.tokens == expected.tokens:
            assert found.stop == expected.stop, key
        else:
            margins.append(margin[same])
            assert margin[same] < CLOSE, f"{key} differs from token {same} on, {margin[same]:.1e} from a boundary"
    print(f"{len(references)} samples, log-probs within {worst:.1e}, {len(margins)} differ, margins {margins}")
    assert worst < CLOSE and len(margins) < 0.05 * len(references)


@contextmanager
def compilations() -> Iterator[list[str]]:
    """Names of the programs that are compiled inside."""
    names: list[str] = []

    def heard(event: str, seconds: float, **more: str) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(more.get("fun_name", "?"))

    jax.monitoring.register_event_duration_secs_listener(heard)
    yield names
    jax.monitoring.unregister_event_duration_listener(heard)
