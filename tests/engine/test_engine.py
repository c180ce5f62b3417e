"""The sampler from prompts to finished samples: who ends when, and that nobody changes anybody else's draws."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import count, islice

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels.decode_attention import AttentionState, DecodePlan, RecentKV, attend_recent, gpu, merge_states, tiling
from rlvr_limit.engine import programs, shapes
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import Request, prompt_key
from rlvr_limit.engine.rollout import Graded, missing, rollout
from rlvr_limit.engine.shapes import LOOKAHEAD
from rlvr_limit.models import decoder, log_probs
from rlvr_limit.models.decoder import ModelConfig, Params
from rlvr_limit.settings import EngineConfig
from rlvr_limit.types import Problem, Sample, SamplingParams, Status, Stop, UserError, Verdict
from tests.support.numpy_decoder import in_float64, numpy_log_softmax, random_params

MODEL = ModelConfig(vocab_size=20, width=32, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=64)
LONGEST = 24
CONFIG = EngineConfig(max_num_seqs=64, steps_per_call=4, max_prompt_len=8, prefill_rows=4, prefix_rows=3)
FREE = SamplingParams(1.0, 1.0, LONGEST)
PROMPTS = [tuple(np.random.default_rng(n).integers(MODEL.vocab_size, size=n).tolist()) for n in range(1, 9)]
SETTINGS = [
    FREE,
    SamplingParams(0.6, 1.0, 11, (0,)),
    SamplingParams(1.5, 0.95, LONGEST, (0, 7, 19)),
    SamplingParams(1.0, 0.5, 1, (1, 2, 3, 4)),
    SamplingParams(0.0, 1.0, 9),
    SamplingParams(0.0, 0.5, 6, (5,)),
    SamplingParams(1.0, 0.95, 4),
    SamplingParams(1.2, 0.9, 8, top_k=5, min_p=0.05),
]
Drawn = dict[tuple[str, int], Sample]


@pytest.fixture(scope="module")
def params() -> Params:
    return jax.tree.map(jnp.asarray, random_params(MODEL, seed=1))


@pytest.fixture(scope="module")
def engine(params: Params) -> Engine:
    return Engine(params, MODEL, CONFIG, LONGEST)


def request(prompt: int, sampling: SamplingParams, indices: Iterable[int], name: str = "", **more) -> Request:
    key = prompt_key(11, "eval/base", str(prompt))
    return Request(name or str(prompt), PROMPTS[prompt], key, tuple(indices), sampling, **more)


def draw(engine: Engine, requests: list[Request]) -> Drawn:
    """Samples by (problem, index), having held that each came exactly once and is whole."""
    samples = list(engine.generate(requests))
    drawn = {(s.problem_id, s.index): s for s in samples}
    assert len(drawn) == len(samples)
    assert drawn.keys() == {(r.problem_id, i) for r in requests for i in r.indices}
    assert all(len(s.tokens) == len(s.logp) == len(s.logp_model) for s in samples)
    return drawn


@pytest.fixture(scope="module")
def free(engine: Engine) -> Drawn:
    """200 samples of each of eight problems, more than max_num_seqs and prefix rows; they end at their limit alone."""
    return draw(engine, [request(p, FREE, range(200)) for p in range(8)])


@pytest.fixture(scope="module")
def mixed() -> list[Request]:
    """Every prompt under every setting, 12 samples each, in one queue; settings of one prompt share its uniforms."""
    return [request(p, s, range(12), name=f"{p}/{i}") for p in range(8) for i, s in enumerate(SETTINGS)]


@pytest.fixture(scope="module")
def together(engine: Engine, mixed: list[Request]) -> Drawn:
    return draw(engine, mixed)


def cut(sample: Sample, keep: int, problem_id: str, stop: Stop) -> Sample:
    """The first `keep` tokens of a sample, as those of another problem."""
    tokens, logp, logp_model = sample.tokens[:keep], sample.logp[:keep], sample.logp_model[:keep]
    return Sample(problem_id, sample.index, tokens, logp, logp_model, stop)


def test_settings_in_one_batch_do_not_influence_one_another(engine: Engine, mixed: list[Request], together: Drawn):
    for i in range(len(SETTINGS)):
        alone = draw(engine, [r for r in mixed if r.problem_id.endswith(f"/{i}")])
        assert alone == {key: sample for key, sample in together.items() if key[0].endswith(f"/{i}")}
    rng = np.random.default_rng(0)
    shuffled = [replace(mixed[i], indices=tuple(rng.permutation(12).tolist())) for i in rng.permutation(len(mixed))]
    assert draw(engine, shuffled) == together


@pytest.mark.parametrize("max_num_seqs", [10, 64])
def test_a_sample_does_not_depend_on_its_row_even_where_rows_fill_no_whole_vectors(params: Params, max_num_seqs: int):
    engine = Engine(params, MODEL, replace(CONFIG, max_num_seqs=max_num_seqs), LONGEST)
    first = draw(engine, [request(p, FREE, range(16)) for p in range(8)])
    rng = np.random.default_rng(max_num_seqs)
    for _ in range(2):
        asked = [request(p, FREE, rng.permutation(25).tolist()) for p in rng.permutation(8).tolist()]
        assert first.items() <= draw(engine, asked).items()


def margin(weights: Params, prompt: int, tokens: tuple[int, ...], index: int) -> float:
    """How far, at temperature 1, the uniform of the token after `tokens` lies from the nearest boundary of the CDF."""
    key = jax.random.wrap_key_data(jnp.array(prompt_key(11, "eval/base", str(prompt)), jnp.uint32))
    u = float(jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, index), len(tokens))))
    p = np.exp(numpy_log_softmax(weights, MODEL, [*PROMPTS[prompt], *tokens])[-1])
    return np.abs(np.cumsum(p) - u).min()


@pytest.mark.parametrize("change", [{"steps_per_call": 8}, {"max_num_seqs": 10}], ids=str)
def test_other_program_shapes_agree_within_rounding(params: Params, free: Drawn, change: dict):
    agree_within_rounding(params, free, change)


@pytest.mark.slow
@pytest.mark.parametrize("platform", ["gpu", "tpu"])
def test_attention_in_plain_xla_and_the_plans_of_an_accelerator_agree_within_rounding(
    params: Params, free: Drawn, platform: str, monkeypatch: pytest.MonkeyPatch
):
    def plain(
        q: jax.Array, k: jax.Array, v: jax.Array, plan: DecodePlan, tile: int, recent: RecentKV
    ) -> AttentionState:
        return merge_states(gpu.decode_attention(q, k, v, plan, tile), attend_recent(q, recent))

    monkeypatch.setattr(programs, "decode_attention", plain)
    monkeypatch.setattr(shapes, "tiling", lambda _: tiling(platform))
    # Shapes that no other test has: what is compiled here must not be found by it.
    agree_within_rounding(params, free, {"steps_per_call": 3, "max_num_seqs": 60 if platform == "gpu" else 61})


def agree_within_rounding(params: Params, free: Drawn, change: dict) -> None:
    other = draw(
        Engine(params, MODEL, replace(CONFIG, **change), LONGEST), [request(p, FREE, range(50)) for p in range(8)]
    )
    compared = 0
    for key, sample in other.items():
        pairs = zip(sample.tokens, free[key].tokens, strict=True)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), LONGEST)
        np.testing.assert_allclose(sample.logp_model[:same], free[key].logp_model[:same], rtol=0, atol=1e-5)
        np.testing.assert_allclose(sample.logp[:same], free[key].logp[:same], rtol=0, atol=1e-5)
        if same < LONGEST:
            away = margin(in_float64(params), int(key[0]), sample.tokens[:same], key[1])
            assert away < 1e-5, f"{key} differs from token {same} on, {away:.1e} from the nearest boundary"
        compared += same
    assert compared > 0.95 * len(other) * LONGEST


def test_log_probs_equal_the_scorers_at_every_position(params: Params, mixed: list[Request], together: Drawn):
    prompts = {r.problem_id: r.prompt_ids for r in mixed}
    samples = list(together.values())
    assert {len(s.tokens) for s in samples} > {1, 4, 9, 11, LONGEST}
    pairs = [(prompts[s.problem_id], s.tokens) for s in samples]
    scores = log_probs.score_pairs(params, MODEL, pairs)
    for sample, (logp, _) in zip(samples, scores, strict=True):
        np.testing.assert_allclose(sample.logp_model, logp, rtol=0, atol=1e-5)


def test_greedy_takes_the_likeliest_token_with_log_prob_zero(params: Params, mixed: list[Request], together: Drawn):
    weights = in_float64(params)
    for asked in (r for r in mixed if r.sampling.temperature == 0):
        first = together[asked.problem_id, 0]
        assert first.logp == (0.0,) * len(first.tokens)
        exact = numpy_log_softmax(weights, MODEL, [*asked.prompt_ids, *first.tokens])[len(asked.prompt_ids) - 1 : -1]
        assert first.tokens == tuple(exact.argmax(axis=1).tolist())
        np.testing.assert_allclose(first.logp_model, exact.max(axis=1), rtol=0, atol=1e-5)
        assert all(replace(together[asked.problem_id, i], index=0) == first for i in asked.indices)


@pytest.mark.parametrize("stop_tokens", [(3,), (0, 5, 11, 19)])
def test_a_stop_token_cuts_the_sample_after_itself_and_changes_nothing_before(engine, free, stop_tokens):
    drawn = draw(engine, [request(p, replace(FREE, stop_tokens=stop_tokens), range(100)) for p in range(8)])
    ends = []
    for key, sample in drawn.items():
        at = next((i for i, t in enumerate(free[key].tokens) if t in stop_tokens), None)
        ends.append(at)
        keep, stop = (LONGEST, Stop.LENGTH) if at is None else (at + 1, Stop.EOS)
        assert sample == cut(free[key], keep, key[0], stop)
    # Ends at every step of a window, at the last place allowed, and nowhere: all were seen.
    assert {at % CONFIG.steps_per_call for at in ends if at is not None} == {0, 1, 2, 3} and {LONGEST - 1, None} <= set(
        ends
    )


def test_a_sample_is_cut_at_its_own_max_tokens(engine: Engine, free: Drawn):
    requests = [request(2, replace(FREE, max_tokens=n), range(20), name=str(n)) for n in range(1, LONGEST + 1)]
    for (name, index), sample in draw(engine, requests).items():
        assert sample == cut(free["2", index], int(name), name, Stop.LENGTH)


def test_single_samples_of_a_request_end_at_limits_of_their_own(engine: Engine, free: Drawn):
    limits = {index: 1 + 5 * index % LONGEST for index in range(0, 20, 2)}
    drawn = draw(engine, [request(2, FREE, range(20), limits=limits)])
    for (name, index), sample in drawn.items():
        assert sample == cut(free["2", index], limits.get(index, LONGEST), name, Stop.LENGTH)


def rise(tokens: tuple[int, ...]) -> int | None:
    """A stop string: the answer ends before the first two tokens of which both are above 12."""
    return next((i for i, pair in enumerate(zip(tokens, tokens[1:], strict=False)) if min(pair) > 12), None)


def test_a_stop_string_cuts_tokens_and_log_probs_together_and_frees_the_slot(engine: Engine, free: Drawn):
    drawn = draw(engine, [request(p, FREE, range(200), stop=rise) for p in range(8)])
    keeps = []
    for key, sample in drawn.items():
        keep = rise(free[key].tokens)
        keeps.append(keep)
        expected = free[key] if keep is None else cut(free[key], keep, key[0], Stop.STOP_STRING)
        assert sample == expected
    assert {0, 3, 4, LONGEST - 2, None} <= set(keeps)


def test_a_stop_string_belongs_to_its_request_and_goes_before_other_ends(engine: Engine, free: Drawn):
    sampling = SamplingParams(1.0, 1.0, 6, (4,))
    stopped = request(0, sampling, range(60), name="stopped", stop=lambda tokens: 2 if len(tokens) > 1 else None)
    drawn = draw(engine, [stopped, request(0, sampling, range(60), name="plain")])
    plain = {drawn["plain", i].stop for i in range(60)}
    assert plain == {Stop.EOS, Stop.LENGTH}
    for i in range(60):
        alone = free["0", i].tokens[0] == 4
        expected = cut(free["0", i], 1, "stopped", Stop.EOS) if alone else None
        assert drawn["stopped", i] == (expected or cut(free["0", i], 2, "stopped", Stop.STOP_STRING))


def test_an_endless_stream_of_problems_is_read_only_as_samples_finish(engine: Engine):
    read = []

    def problems() -> Iterator[Request]:
        for number in count():
            read.append(number)
            yield request(number % 8, replace(FREE, max_tokens=4), range(number % 4), name=str(number))

    finished = list(islice(engine.generate(problems()), 300))
    assert len({(s.problem_id, s.index) for s in finished}) == 300
    # 1.5 samples a problem: what is finished, a window handed out while the next is drawn, and what is alive in that.
    assert len(read) < (300 + 2 * CONFIG.max_num_seqs) / 1.5 + LOOKAHEAD + 4


def test_nothing_asked_is_nothing_drawn(engine: Engine):
    assert list(engine.generate([])) == []
    assert list(engine.generate([request(p, FREE, ()) for p in range(8)])) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt_ids": (1,) * 9}, "the prompt has 9 tokens, the engine takes 1 to 8"),
        ({"prompt_ids": ()}, "the prompt has 0 tokens"),
        ({"prompt_ids": (1, 20)}, "prompt token: 20 is not in the model's vocabulary, 0 to 19"),
        ({"prompt_ids": (1, -1)}, "prompt token: -1 is not in the model's vocabulary, 0 to 19"),
        ({"sampling": replace(FREE, max_tokens=25)}, "max_tokens: 25 is not in [1, 24]"),
        ({"sampling": replace(FREE, max_tokens=0)}, "max_tokens: 0 is not in [1, 24]"),
        ({"limits": {2: 25}}, "the limit of sample 2: 25 is not in [1, 24]"),
        ({"limits": {1: 0}}, "the limit of sample 1: 0 is not in [1, 24]"),
        (
            {"sampling": replace(FREE, stop_tokens=(1, 2, 3, 4, 5))},
            "stop_tokens: (1, 2, 3, 4, 5) is not 4 tokens or fewer",
        ),
        ({"sampling": replace(FREE, temperature=-0.5)}, "temperature: -0.5 is not at least 0"),
        ({"sampling": replace(FREE, temperature=float("nan"))}, "temperature: nan is not at least 0"),
        ({"sampling": replace(FREE, top_p=0.0)}, "top_p: 0.0 is not in (0, 1]"),
        ({"sampling": replace(FREE, top_k=-1)}, "top_k: -1 is not at least 0"),
        ({"sampling": replace(FREE, min_p=1.5)}, "min_p: 1.5 is not in [0, 1]"),
        ({"sampling": replace(FREE, top_p=1.1)}, "top_p: 1.1 is not in (0, 1]"),
    ],
    ids=str,
)
def test_a_request_that_cannot_be_drawn_is_refused_by_name(engine: Engine, change: dict, words: str):
    bad = replace(request(0, FREE, range(3), name="algebra-7"), **change)
    with pytest.raises(UserError, match="^problem algebra-7: [^\n]*$") as refused:
        list(engine.generate([request(1, FREE, range(3)), bad]))
    assert words in str(refused.value)


def test_loading_weights_compiles_nothing_and_loading_them_back_gives_the_same_samples(engine, params, free, caplog):
    asked = [request(p, FREE, range(8)) for p in range(8)]
    other = jax.tree.map(lambda x: x * 1.1, params)
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        jax.jit(lambda x: x + 1)(1.0)
        assert "Compiling" in caplog.text
        caplog.clear()
        engine.load(other)
        changed = draw(engine, asked)
        engine.load(params)
        assert draw(engine, asked).items() <= free.items()
        compiled = [r.getMessage() for r in caplog.records if "Compiling" in r.getMessage()]
    assert not any("prefill" in line or "decode_window" in line for line in compiled)
    assert all(changed[key].logp_model != free[key].logp_model for key in changed)


PROBLEMS = [Problem(f"p{i}", f"question {i}", f"prompt {i}", ids, answer=100 + i) for i, ids in enumerate(PROMPTS)]


def spell(tokens: tuple[int, ...]) -> str:
    return " ".join(map(str, tokens))


def echo(problem: Problem, text: str) -> Verdict:
    """A grader that tells what it was given."""
    return Verdict(text.startswith("1"), Status.GRADED, extracted=problem.id, detail=f"{problem.answer} {text}")


def roll(engine: Engine, wanted: Iterable[tuple[Problem, Iterable[int]]], stream: str = "eval/base") -> list[Graded]:
    sampling = SamplingParams(1.0, 1.0, 7, (0, 1))
    return list(rollout(engine.generate, wanted, lambda problem: sampling, 5, stream, spell, echo))


def keyed(graded: Iterable[Graded]) -> dict[tuple[str, int], Graded]:
    return {(g.sample.problem_id, g.sample.index): g for g in graded}


def test_each_sample_is_graded_once_with_its_own_problem_and_text(engine: Engine):
    graded = roll(engine, [(problem, range(30)) for problem in PROBLEMS])
    assert len(graded) == len(keyed(graded)) == 8 * 30
    for g in graded:
        number = int(g.sample.problem_id[1:])
        assert g.text == spell(g.sample.tokens)
        assert g.verdict == echo(PROBLEMS[number], g.text)
    assert {g.verdict.correct for g in graded} == {True, False}


def test_missing_subtracts_what_exists_and_leaves_complete_problems_out():
    existing = {"p0": {0, 1, 2, 3, 4}, "p1": {4, 1}, "p2": {7, 0, 1, 2, 3, 9}, "p3": set(), "unknown": {0}}
    lacking = [(problem.id, indices) for problem, indices in missing(PROBLEMS[:5], lambda problem: range(5), existing)]
    everything = [0, 1, 2, 3, 4]
    assert lacking == [("p1", [0, 2, 3]), ("p2", [4]), ("p3", everything), ("p4", everything)]


def test_topping_up_draws_only_the_new_samples_and_makes_the_same_whole(engine: Engine):
    whole = keyed(roll(engine, [(problem, range(12)) for problem in PROBLEMS]))
    some = {key: g for key, g in whole.items() if (int(key[0][1:]) + key[1] ** 2) % 3 and key[1] < 9}
    existing = {p.id: {index for name, index in some if name == p.id} for p in PROBLEMS}
    added = keyed(roll(engine, missing(PROBLEMS, lambda problem: range(12), existing)))
    assert added.keys() == whole.keys() - some.keys()
    assert some | added == whole


def test_training_steps_and_arms_draw_other_samples_of_the_same_problem(engine: Engine):
    longest = {}
    for stream in ("eval/base", "eval/grpo", "train/grpo/1", "train/grpo/2"):
        graded = keyed(roll(engine, [(problem, range(30)) for problem in PROBLEMS], stream))
        longest[stream] = [graded[key].sample.tokens for key in sorted(graded) if len(graded[key].sample.tokens) == 7]
    names = list(longest)
    for i, name in enumerate(names):
        for other in names[:i]:
            assert len(set(longest[name]) & set(longest[other])) < 0.02 * len(longest[name])


def test_a_prompt_too_long_is_named_by_its_problem_in_a_rollout(engine: Engine):
    bad = replace(PROBLEMS[7], id="hard/3", prompt_ids=PROMPTS[7] + (1,))
    with pytest.raises(UserError, match="^problem hard/3: the prompt has 9 tokens"):
        roll(engine, [(PROBLEMS[0], range(2)), (bad, range(2))])


def test_a_vocabulary_of_151936_tokens_is_drawn_from_and_scored_to_its_end():
    large = replace(MODEL, vocab_size=151_936, width=8, layers=1, tied_embedding=True)
    weights = decoder.init_params(large, jax.random.key(2))
    # Large rows of the embedding make the last tokens likely.
    weights["embedding"] = weights["embedding"].at[-8:].mul(20.0)
    engine = Engine(weights, large, EngineConfig(max_num_seqs=8, steps_per_call=2, max_prompt_len=2, prefill_rows=1), 2)
    asked = Request("p", (0, 151_935), prompt_key(0, "eval", "p"), tuple(range(8)), SamplingParams(1.0, 0.95, 2))
    samples = list(engine.generate([asked]))
    assert len(samples) == 8 and any(token >= 151_928 for s in samples for token in s.tokens)
    assert all(0 <= token < 151_936 for s in samples for token in s.tokens)
    scores = log_probs.score_pairs(weights, large, [(asked.prompt_ids, s.tokens) for s in samples])
    for sample, (logp, _) in zip(samples, scores, strict=True):
        np.testing.assert_allclose(sample.logp_model, logp, rtol=0, atol=1e-5)


def test_what_a_window_was_sent_is_not_changed_by_the_host_while_a_slower_device_may_read_it(
    params: Params, monkeypatch: pytest.MonkeyPatch
):
    window, sent = programs.decode_window, []

    def recorded(*arguments):
        sent.append((arguments[-2:], jax.tree.map(lambda x: np.array(x, copy=True), arguments[-2:])))
        return window(*arguments)

    recorded.lower = window.lower
    monkeypatch.setattr(programs, "decode_window", recorded)
    draw(Engine(params, MODEL, CONFIG, LONGEST), [request(p, FREE, range(16)) for p in range(8)])
    assert len(sent) > 6
    for now, then in sent:
        jax.tree.map(np.testing.assert_array_equal, now, then)
