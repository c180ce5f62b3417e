"""Samples from pages are those of a sampler without any: within rounding of it, and bitwise wherever they lay."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_limit.distributed.mesh import MeshConfig, make_mesh, parameter_shardings
from rlvr_limit.engine import Engine, EngineConfig, Moment, Request, prompt_key
from rlvr_limit.engine.scheduler import Scheduler
from rlvr_limit.models.decoder import ModelConfig, Params, parameter_specs
from rlvr_limit.types import Sample, SamplingParams, Stop
from tests.models.test_model import random_params
from tests.support.reference_engine import Reference, reference_samples
from tests.support.reference_engine import draw as reference_draw

MODEL = ModelConfig(vocab_size=20, width=32, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=64)
LONGEST = 22
CONFIG = EngineConfig(slots=16, window=4, page=16, group_from=12, prompt_places=40, prefill_rows=4)
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


def draw(engine: Engine, requests: list[Request]) -> tuple[Drawn, list[Moment]]:
    """Samples by (problem, index), having held that each came once, and what was seen before every window."""
    moments: list[Moment] = []
    samples = list(engine.generate(requests, moments.append))
    drawn = {(s.problem_id, s.index): s for s in samples}
    assert len(drawn) == len(samples)
    assert drawn.keys() == {(r.problem_id, i) for r in requests for i in r.indices}
    return drawn, moments


@pytest.fixture(scope="module")
def params() -> Params:
    return jax.tree.map(jnp.asarray, random_params(MODEL, seed=3))


@pytest.fixture(scope="module")
def ample(params: Params) -> Engine:
    return Engine(params, MODEL, CONFIG, LONGEST)


@pytest.fixture(scope="module")
def drawn(ample: Engine) -> Drawn:
    return draw(ample, asked())[0]


@pytest.fixture(scope="module")
def references(params: Params) -> dict[tuple[str, int], Reference]:
    found = [r for request in asked() for r in reference_samples(params, MODEL, request)]
    assert {r.sample.stop for r in found} == set(Stop)
    return {(r.sample.problem_id, r.sample.index): r for r in found}


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


CHANGES = [
    {},
    pytest.param({"buckets": (1, 4), "window": 3, "page": 5}, marks=pytest.mark.slow),
    pytest.param({"page": 4}, marks=pytest.mark.slow),
    pytest.param({"group_from": 1000}, marks=pytest.mark.slow),
    pytest.param({"group_from": 1, "page": 8}, marks=pytest.mark.slow),
    pytest.param({"window": 8, "page": 32}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_samples_are_those_of_whole_causal_passes_within_rounding(params, references, change: dict):
    drawn, moments = draw(Engine(params, MODEL, replace(CONFIG, **change), LONGEST), asked())
    hold_within_rounding(drawn, references)
    assert {m.rows for m in moments} == ({1, 4, 16} if "buckets" in change else {16})


def test_the_reference_draws_what_its_distribution_says():
    logits = np.log([0.1, 0.4, 0.2, 0.3])
    assert [reference_draw(logits, u, 1.0, 1.0)[0] for u in (0.05, 0.15, 0.6, 0.95)] == [0, 1, 2, 3]
    # top-p 0.6 keeps 0.4 and 0.3, so that the boundary is at 4/7.
    token, logp, logp_model, margin = reference_draw(logits, 0.5, 1.0, 0.6)
    assert token == 1 and np.isclose(logp, np.log(4 / 7)) and np.isclose(logp_model, np.log(0.4))
    assert np.isclose(margin, 4 / 7 - 0.5)
    assert reference_draw(logits, 0.6, 1.0, 0.6)[0] == 3
    assert np.isclose(reference_draw(logits, 0.3, 1.0, 0.699)[3], 0.001)


def test_the_order_of_requests_and_indices_changes_no_bit(ample: Engine, drawn: Drawn):
    rng, requests = np.random.default_rng(0), asked()
    mixed = [replace(r, indices=tuple(rng.permutation(r.indices).tolist())) for r in requests]
    shuffled = [mixed[i] for i in rng.permutation(len(mixed))]
    assert draw(ample, shuffled)[0] == drawn


def test_where_pages_lie_changes_no_bit(ample: Engine, drawn: Drawn, monkeypatch: pytest.MonkeyPatch):
    rng, taken = np.random.default_rng(1), []

    def any_pages(self: Scheduler, shard: int, pages: int) -> list[int]:
        free = self._free[shard]
        got = [free.pop(int(rng.integers(len(free)))) for _ in range(pages)]
        taken.extend(got)
        return got

    monkeypatch.setattr(Scheduler, "_get", any_pages)
    assert draw(ample, asked())[0] == drawn
    assert taken != sorted(taken) and max(taken) > 0.9 * ample.shapes.pages


@pytest.mark.parametrize("tokens", [96, 160, 320])
def test_a_pool_too_small_for_all_slots_gives_the_same_samples_to_the_bit(params, drawn: Drawn, tokens: int):
    tight = Engine(params, MODEL, replace(CONFIG, cache_tokens=tokens), LONGEST)
    found, moments = draw(tight, asked())
    assert found == drawn
    assert max(m.pages for m in moments) <= tokens // CONFIG.page - 1
    print(f"{tokens} tokens: {moments[-1].set_back} set back, {moments[-1].prefills} prefills, {len(moments)} windows")
    assert moments[-1].set_back > 0


def test_any_missing_samples_are_drawn_as_they_would_have_been(ample: Engine, drawn: Drawn):
    rng = np.random.default_rng(2)
    for share in (0.1, 0.5, 0.9):
        lacking = [replace(r, indices=tuple(i for i in r.indices if rng.random() < share)) for r in asked()]
        found, _ = draw(ample, lacking)
        assert found.items() <= drawn.items() and 0 < len(found) < len(drawn)


def test_on_two_shards_a_pool_too_small_gives_the_same_samples_to_the_bit(params: Params):
    mesh = make_mesh(MeshConfig(data=2))
    spread = jax.device_put(params, parameter_shardings(parameter_specs(MODEL), mesh))
    plenty, _ = draw(Engine(spread, MODEL, CONFIG, LONGEST), asked())
    found, moments = draw(Engine(spread, MODEL, replace(CONFIG, cache_tokens=224), LONGEST), asked())
    assert found == plenty
    assert moments[-1].set_back > 0


def test_a_prompt_is_prefilled_once_for_all_of_its_samples(ample: Engine):
    moments = draw(ample, [replace(r, indices=tuple(range(40))) for r in asked()[:3]])[1]
    assert moments[-1].prefills == 3


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


def test_nothing_is_compiled_after_the_first_window():
    # Weights of its own, so that no other test has compiled anything for it.
    other = replace(MODEL, vocab_size=21, layers=1)
    config = replace(CONFIG, buckets=(1, 4), cache_tokens=320, prompt_places=300, prefill_rows=2)
    engine = Engine(jax.tree.map(jnp.asarray, random_params(other)), other, config, LONGEST)
    long = tuple(i % 20 for i in range(80))
    requests = [*asked()[:-1], replace(asked()[0], problem_id="long", prompt_ids=long, indices=(0,))]
    first: list[int] = []
    moments: list[Moment] = []

    def watch(moment: Moment) -> None:
        moments.append(moment)
        if not first:
            first.append(len(names))

    with compilations() as names:
        list(engine.generate(requests, watch))
        engine.load(jax.tree.map(lambda x: np.asarray(x) * np.float32(1.1), engine._params))
        engine.load(jax.tree.map(jnp.asarray, engine._params))
        list(engine.generate(requests))
    counted = {name: names.count(name) for name in names}
    print(counted)
    assert {m.rows for m in moments} == {1, 4, 16} and moments[-1].set_back > 0
    assert len(names) == first[0]
    buckets, lengths = len(engine.shapes.buckets), len(engine.shapes.prefills)
    assert lengths == 2
    programs = {"decode_window": buckets, "prefill": lengths, "read_pages": 1, "write_pages": 1, "new_pool": 1}
    assert counted == {f"jit({name})": n for name, n in programs.items()}
