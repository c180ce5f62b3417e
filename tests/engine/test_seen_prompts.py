"""Prompts with images through the engine: their samples, their rows of the tower, what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from rlvr_limit.engine import engine as engine_module
from rlvr_limit.engine import images
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import EngineStats, Request, prompt_key
from rlvr_limit.models import log_probs
from rlvr_limit.settings import EngineConfig
from rlvr_limit.types import Sample, SamplingParams, UserError
from tests.goldens import visual
from tests.support.visual_models import ShownImage, seeing_model, shown_prompts, visual_golden

NAME = "qwen25vl-untied"
CONFIG = EngineConfig(max_num_seqs=8, steps_per_call=4, max_prompt_len=96, prefill_rows=2)
GREEDY = SamplingParams(0.0, 1.0, max_tokens=visual.GENERATED)


def asked(sampling: SamplingParams, samples: int = 1) -> list[Request]:
    return [
        Request(str(i), ids, prompt_key(0, "eval", str(i)), range(samples), sampling, images=shown)
        for i, (ids, shown) in enumerate(shown_prompts())
    ]


def drawn(engine: Engine, requests: Sequence[Request], watch=None) -> dict[tuple[str, int], Sample]:
    return {(s.problem_id, s.index): s for s in engine.generate(requests, watch)}


@pytest.mark.parametrize("name", [NAME, pytest.param("qwen25vl-tied", marks=pytest.mark.slow)])
def test_the_likeliest_tokens_after_images_and_their_log_probs_are_those_of_transformers(name: str) -> None:
    model, params = seeing_model(name)
    stored = visual_golden(name)
    engine = Engine(params, model, CONFIG, visual.GENERATED)
    found = drawn(engine, asked(GREEDY))
    for i, (tokens, logp) in enumerate(zip(stored["tokens"].tolist(), stored["logp"], strict=True)):
        sample = found[str(i), 0]
        assert list(sample.tokens) == tokens
        assert np.abs(np.array(sample.logp_model) - logp).max() <= 1e-4


@pytest.mark.slow
def test_a_planted_fault_in_delta_moves_the_log_probs(monkeypatch: pytest.MonkeyPatch) -> None:
    model, params = seeing_model(NAME)
    right = images.request_layout
    monkeypatch.setattr(engine_module, "request_layout", lambda *args: (x := right(*args)) and x._replace(delta=0))
    found = drawn(Engine(params, model, CONFIG, visual.GENERATED), asked(GREEDY))
    stored = visual_golden(NAME)["logp"]
    assert min(np.abs(np.array(found[str(i), 0].logp_model) - stored[i]).max() for i in (0, 1)) > 0.01


def test_an_image_is_encoded_once_whatever_n_and_wherever_it_is_seen_again() -> None:
    model, params = seeing_model(NAME)
    engine = Engine(params, model, CONFIG, visual.GENERATED)
    stats: list[EngineStats] = []
    requests = asked(replace(GREEDY, temperature=1.0), samples=6)
    drawn(engine, requests, stats.append)
    # Image 0 is in two prompts, image 1 in one.
    assert engine.images.encoded == stats[-1].encoded == 2
    assert sorted(image.opened for request in requests for image in request.images) == [0, 1, 1]
    drawn(engine, requests)
    assert engine.images.encoded == 2
    engine.load(params)
    drawn(engine, requests)
    assert engine.images.encoded == 4


def test_samples_do_not_depend_on_the_images_beside_them() -> None:
    model, params = seeing_model(NAME)
    engine = Engine(params, model, CONFIG, visual.GENERATED)
    requests = asked(replace(GREEDY, temperature=1.0), samples=2)
    together = drawn(engine, requests)
    for request in requests[::-1]:
        engine.load(params)
        assert all(together[key] == sample for key, sample in drawn(engine, [request]).items())
    plain = Engine(params, replace(model, vision=None), CONFIG, visual.GENERATED)
    assert all(together[key] == sample for key, sample in drawn(plain, requests[2:]).items())


def test_the_same_question_with_another_image_has_other_answers() -> None:
    model, params = seeing_model(NAME)
    engine = Engine(params, model, CONFIG, visual.GENERATED)
    one, *_ = asked(GREEDY)
    ids = [*one.prompt_ids[:5], visual.START, *[visual.IMAGE] * 27, visual.END, *one.prompt_ids[-9:]]
    other = replace(one, problem_id="other", prompt_ids=tuple(ids), images=(ShownImage(1),))
    found = drawn(engine, [one, other])
    assert found["0", 0].tokens != found["other", 0].tokens


@pytest.mark.slow
def test_a_drawn_image_token_is_its_plain_embedding_also_when_it_is_scored() -> None:
    model, params = seeing_model(NAME)
    engine = Engine(params, model, CONFIG, 24)
    requests = asked(SamplingParams(2.0, 1.0, max_tokens=24), samples=24)
    by_id = {request.problem_id: request for request in requests}
    found = [s for s in engine.generate(requests) if visual.IMAGE in s.tokens[:-1]]
    assert {s.problem_id for s in found} >= {"0", "1"}
    pairs = [(by_id[s.problem_id].prompt_ids, s.tokens, by_id[s.problem_id].images) for s in found]
    scores = log_probs.score_pairs(params, model, pairs)
    for sample, scored in zip(found, scores, strict=True):
        assert np.abs(np.array(sample.logp_model) - np.array(scored.logp)).max() <= 2e-4


def test_images_that_cannot_be_seen_are_refused_with_the_problems_name() -> None:
    model, params = seeing_model(NAME)
    one = asked(GREEDY)[0]
    engine = Engine(params, model, CONFIG, visual.GENERATED)
    with pytest.raises(UserError, match="problem 0: the prompt has 35 image tokens, which are not those of its 0"):
        drawn(engine, [replace(one, images=())])
    blind = Engine(params, replace(model, vision=None), CONFIG, visual.GENERATED)
    with pytest.raises(UserError, match="problem 0: the prompt has images, but the model has no vision tower"):
        drawn(blind, [one])
