"""Samples from pages are those of a sampler without any: within rounding of it, and bitwise wherever they lay."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_limit.distributed.mesh import abstract_parameters, make_mesh, parameter_shardings
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import EngineStats, Request
from rlvr_limit.engine.scheduler import Scheduler
from rlvr_limit.models.decoder import ModelConfig, Params, parameter_specs
from rlvr_limit.settings import EngineConfig, MeshConfig
from rlvr_limit.types import Stop
from tests.support.engine_requests import CONFIG, LONGEST, MODEL, Drawn, asked, compilations, draw, hold_within_rounding
from tests.support.numpy_decoder import random_params
from tests.support.reference_engine import Reference, reference_samples
from tests.support.reference_engine import draw as reference_draw


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
    assert {r.sample.stop for r in found} == set(Stop) - {Stop.UNKNOWN}
    return {(r.sample.problem_id, r.sample.index): r for r in found}


CHANGES = [
    {},
    pytest.param({"buckets": (1, 4), "steps_per_call": 3, "page_size": 5}, marks=pytest.mark.slow),
    pytest.param({"page_size": 4}, marks=pytest.mark.slow),
    pytest.param({"min_shared_prefix": 1000}, marks=pytest.mark.slow),
    pytest.param({"min_shared_prefix": 1, "page_size": 8}, marks=pytest.mark.slow),
    pytest.param({"steps_per_call": 8, "page_size": 32}, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_samples_are_those_of_whole_causal_passes_within_rounding(params, references, change: dict):
    drawn, stats = draw(Engine(params, MODEL, replace(CONFIG, **change), LONGEST), asked())
    hold_within_rounding(drawn, references)
    assert {m.rows for m in stats} == ({1, 4, 16} if "buckets" in change else {16})


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

    monkeypatch.setattr(Scheduler, "_take", any_pages)
    assert draw(ample, asked())[0] == drawn
    assert taken != sorted(taken) and max(taken) > 0.9 * ample.shapes.pages


@pytest.mark.parametrize("tokens", [96, *(pytest.param(n, marks=pytest.mark.slow) for n in (160, 320))])
def test_a_pool_too_small_for_all_sequences_gives_the_same_samples_to_the_bit(params, drawn: Drawn, tokens: int):
    tight = Engine(params, MODEL, replace(CONFIG, cache_tokens=tokens), LONGEST)
    found, stats = draw(tight, asked())
    assert found == drawn
    assert max(m.pages for m in stats) <= tokens // CONFIG.page_size - 1
    print(f"{tokens} tokens: {stats[-1].preempted} preempted, {stats[-1].prefills} prefills, {len(stats)} windows")
    assert stats[-1].preempted > 0


def test_any_missing_samples_are_drawn_as_they_would_have_been(ample: Engine, drawn: Drawn):
    rng = np.random.default_rng(2)
    for share in (0.1, 0.5, 0.9):
        lacking = [replace(r, indices=tuple(i for i in r.indices if rng.random() < share)) for r in asked()]
        found, _ = draw(ample, lacking)
        assert found.items() <= drawn.items() and 0 < len(found) < len(drawn)


@pytest.mark.slow
def test_on_two_shards_a_pool_too_small_gives_the_same_samples_to_the_bit(params: Params):
    mesh = make_mesh(MeshConfig(data=2))
    spread = jax.device_put(params, parameter_shardings(parameter_specs(MODEL), mesh))
    plenty, _ = draw(Engine(spread, MODEL, CONFIG, LONGEST), asked())
    found, stats = draw(Engine(spread, MODEL, replace(CONFIG, cache_tokens=224), LONGEST), asked())
    assert found == plenty
    assert stats[-1].preempted > 0


def test_a_prompt_is_prefilled_once_for_all_of_its_samples(ample: Engine):
    stats = draw(ample, [replace(r, indices=tuple(range(40))) for r in asked()[:3]])[1]
    assert stats[-1].prefills == 3


@pytest.fixture
def unseen() -> tuple[Params, ModelConfig, EngineConfig, list[Request]]:
    """Weights of a shape that no other test has compiled anything for, and requests that preempt one another."""
    other = replace(MODEL, vocab_size=21, layers=1)
    config = replace(CONFIG, buckets=(1, 4), cache_tokens=320, max_prompt_len=300, prefill_rows=2)
    long = tuple(i % 20 for i in range(120))
    requests = [*asked()[:-1], replace(asked()[0], problem_id="long", prompt_ids=long, indices=(0,))]
    return jax.tree.map(jnp.asarray, random_params(other)), other, config, requests


def finish(engine: Engine) -> None:
    """Waits for what is being compiled."""
    for begun in [*engine.ahead._begun.values()]:
        begun.result()


def test_a_program_is_compiled_once_and_not_before_it_is_needed(unseen):
    weights, model, config, requests = unseen
    engine = Engine(weights, model, config, LONGEST)
    assert len(engine.shapes.prefill_lengths) > 2
    stats: list[EngineStats] = []
    with compilations() as names:
        list(engine.generate(requests[-2:-1]))
        finish(engine)
        # Four rows, and one, which is all they need before long.
        assert sorted(names) == sorted(["jit(new_pool)", "jit(prefill)", *["jit(decode_window)"] * 2]), names
        list(engine.generate(requests, stats.append))
        assert {m.rows for m in stats} == {1, 4, 16} and stats[-1].preempted > 0
        needed = {"new_pool": 1, "prefill": 2, "decode_window": 3, "read_pages": 1, "write_pages": 1}
        assert {name: names.count(name) for name in names} == {f"jit({name})": n for name, n in needed.items()}
        engine.load(jax.tree.map(lambda x: np.asarray(x) * np.float32(1.1), engine.params))
        engine.load(jax.tree.map(jnp.asarray, engine.params))
        list(engine.generate(requests))
    assert len(names) == sum(needed.values())


def test_what_is_expected_is_compiled_without_the_weights_and_nothing_of_it_with_them(unseen):
    weights, model, config, requests = unseen
    model = replace(model, vocab_size=22)
    weights = {**weights, "embedding": jnp.zeros((22, MODEL.width)), "unembedding": jnp.zeros((MODEL.width, 22))}
    mesh = make_mesh(MeshConfig())
    specs = parameter_specs(model)
    with compilations() as names:
        engine = Engine(abstract_parameters(specs, model.dtype, mesh), model, config, LONGEST)
        engine.expect([len(r.prompt_ids) for r in requests], 3)
        finish(engine)
        assert sorted(names) == ["jit(decode_window)", *["jit(prefill)"] * 2]
        engine.load(jax.device_put(weights, parameter_shardings(specs, mesh)))
        list(engine.generate([replace(requests[0], indices=(0, 1, 2))]))
        finish(engine)
    # Rows got empty in the end.
    assert sorted(names[3:]) == ["jit(decode_window)", "jit(new_pool)"]
