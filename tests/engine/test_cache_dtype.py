"""A sampler whose cache is in 8 bits: what it computes, the same bits wherever a sample lay, and what it takes."""

from __future__ import annotations

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from rlvr_limit import records
from rlvr_limit.distributed.mesh import make_mesh, parameter_shardings
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import Request
from rlvr_limit.engine.scheduler import Scheduler
from rlvr_limit.engine.shapes import shapes_of
from rlvr_limit.models import decoder
from rlvr_limit.models.decoder import Params, parameter_specs
from rlvr_limit.planning import programs
from rlvr_limit.planning.plan import token_cost
from rlvr_limit.settings import MeshConfig
from rlvr_limit.study.comparability import conditions_of
from rlvr_limit.types import Sample
from tests.support import smoke
from tests.support.engine_requests import CONFIG, LONGEST, MODEL, asked, draw
from tests.support.numpy_decoder import random_params
from tests.support.plans import QWEN_7B, case
from tests.support.studies import smoke_study

INT8 = replace(CONFIG, cache_dtype="int8")
Drawn = dict[tuple[str, int], Sample]


def requests() -> list[Request]:
    """Every kind of stop, prompts of all lengths, and one long sample that is alone in the end."""
    return asked(3)[::2]


@pytest.fixture(scope="module")
def params() -> Params:
    return jax.tree.map(jnp.asarray, random_params(MODEL, seed=3))


@pytest.fixture(scope="module")
def ample(params: Params) -> Engine:
    return Engine(params, MODEL, INT8, LONGEST)


@pytest.fixture(scope="module")
def drawn(ample: Engine) -> Drawn:
    return draw(ample, requests())[0]


def in_8_bits(x: np.ndarray, axis: int, run: int) -> np.ndarray:
    """What x reads as once it is stored: integers up to 127, a bfloat16 scale for each `run` numbers along the axis."""
    x = np.moveaxis(np.asarray(x, np.float32), axis, -1)
    found = np.zeros_like(x)
    for start in range(0, x.shape[-1], run):
        part = x[..., start : start + run]
        scale = (np.abs(part).max(-1, keepdims=True) / np.float32(127)).astype(ml_dtypes.bfloat16).astype(np.float32)
        found[..., start : start + run] = np.rint(part / np.where(scale > 0, scale, 1)) * scale
    return np.moveaxis(found, -1, axis)


def logp_by_hand(params: Params, prompt: tuple[int, ...], tokens: tuple[int, ...], window: int, cached) -> np.ndarray:
    """log P(token | what stands before) of an answer. A window's tokens see each other as they are; earlier windows,
    and the prompt but for its last token, as what `cached` (x, axis, run) makes of them. Dense, in float64, one row."""
    before = len(prompt) - 1
    # Behind a prompt stands its last token, and then padding, when its last window is filed; as much of it for all
    # prompts, and all answers, as the longest need: nothing is compiled for each length.
    padded = np.zeros(-(-CONFIG.max_prompt_len // window) * window, np.int32)
    padded[: len(prompt)] = prompt
    filed = decoder.forward_causal(params, MODEL, jnp.asarray(padded)[None])[1]
    stored = [(cached(k[0], 0, window)[:before], cached(v[0], 2, v.shape[-1])[:before]) for k, v in filed]
    fed, count = np.zeros(LONGEST, np.int32), len(tokens)
    fed[:count] = [prompt[-1], *tokens[:-1]]

    def attend(i: int, q, k, v):
        k, v, q = (np.asarray(x[0], np.float64) for x in (k, v, q))
        whole = count // window * window
        k8 = np.concatenate([stored[i][0], cached(k[:whole], 0, window)]) if whole else stored[i][0]
        v8 = np.concatenate([stored[i][1], cached(v[:whole], 2, v.shape[-1])]) if whole else stored[i][1]
        out = np.zeros_like(q)
        for t in range(count):
            first = t // window * window
            keys = np.concatenate([k8[: before + first], k[first : t + 1]]).repeat(2, axis=1)
            values = np.concatenate([v8[: before + first], v[first : t + 1]]).repeat(2, axis=1)
            scores = np.einsum("nh,snh->ns", q[t], keys) * q.shape[-1] ** -0.5
            e = np.exp(scores - scores.max(-1, keepdims=True))
            out[t] = np.einsum("ns,snh->nh", e / e.sum(-1, keepdims=True), values)
        return jnp.asarray(out[None], jnp.float32), None

    rope = decoder.rope_angles(MODEL, jnp.arange(before, before + len(fed))[None])
    hidden, _ = decoder.forward(params, MODEL, jnp.asarray(fed)[None], rope, attend)
    logits = np.asarray(decoder.logits(params, hidden[0]), np.float64)
    logp = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True))
    return (logp - logits.max(-1, keepdims=True))[np.arange(count), list(tokens)]


@pytest.mark.slow
def test_log_probs_are_those_of_dense_attention_over_what_was_stored(params: Params, drawn: Drawn):
    """But where a number lay on the edge of two steps: rounding may take it to the other one, a small part of the
    drift."""
    apart, drift = [], []
    for request in requests():
        for index in request.indices[::2]:
            found = drawn[request.problem_id, index]
            if not found.tokens:
                continue
            args = params, request.prompt_ids, found.tokens, CONFIG.steps_per_call
            by_hand, exact = (logp_by_hand(*args, f) for f in (in_8_bits, lambda x, axis, run: np.asarray(x)))
            apart.append(np.abs(by_hand - found.logp_model).max())
            drift.append(np.abs(exact - found.logp_model).max())
    print(f"within 1e-5: {np.mean(np.array(apart) < 1e-5):.2f}; {np.sort(apart)[-5:]}; {np.sort(drift)}")
    assert np.mean(np.array(apart) < 1e-5) > 0.5
    assert max(apart) < 0.1 * max(drift)


def test_order_rows_buckets_and_where_pages_lie_change_no_bit(params, ample, drawn, monkeypatch):
    rng, taken = np.random.default_rng(1), []
    mixed = [replace(r, indices=tuple(rng.permutation(r.indices).tolist())) for r in requests()]

    def any_pages(self: Scheduler, shard: int, pages: int) -> list[int]:
        free = self._free[shard]
        got = [free.pop(int(rng.integers(len(free)))) for _ in range(pages)]
        taken.extend(got)
        return got

    monkeypatch.setattr(Scheduler, "_take", any_pages)
    assert draw(ample, [mixed[i] for i in rng.permutation(len(mixed))])[0] == drawn
    assert taken != sorted(taken)


def test_samples_that_are_preempted_and_those_that_a_restart_lacked_are_the_same_to_the_bit(params, ample, drawn):
    found, stats = draw(Engine(params, MODEL, replace(INT8, cache_tokens=96), LONGEST), requests())
    assert found == drawn and stats[-1].preempted > 0
    rng = np.random.default_rng(2)
    lacking = [replace(r, indices=tuple(i for i in r.indices if rng.random() < 0.5)) for r in requests()]
    found, _ = draw(ample, lacking)
    assert found.items() <= drawn.items() and 0 < len(found) < len(drawn)


@pytest.mark.slow
def test_guesses_change_a_sample_by_rounding_only(params: Params, drawn: Drawn):
    """Windows of wrong guesses are filed and fed again: nothing of them may stay, in scales either."""
    config = replace(INT8, max_num_seqs=4, speculative_tokens=4 * INT8.steps_per_call, cache_tokens=160)
    engine = Engine(params, MODEL, config, LONGEST)
    engine.policy.should_verify = lambda rows, live, guessed, left: guessed > 0
    found, stats = draw(engine, requests())
    assert stats[-1].proposed > stats[-1].accepted > 0
    answers = [key for key in drawn if drawn[key].tokens]
    same = [key for key in answers if found[key].tokens == drawn[key].tokens]
    assert len(same) > 0.9 * len(answers)
    apart = [np.abs(np.subtract(found[key].logp_model, drawn[key].logp_model)).max() for key in same]
    print(f"{len(same)} of {len(answers)} equal, {np.sort(apart)[-5:]}")
    assert np.mean(np.array(apart) < 1e-5) > 0.5 and max(apart) < 1e-3


@pytest.mark.slow
def test_on_two_shards_and_cut_heads_preempted_samples_are_the_same_to_the_bit(params: Params):
    mesh = make_mesh(MeshConfig(data=2, tensor=2))
    spread = jax.device_put(params, parameter_shardings(parameter_specs(MODEL), mesh))
    plenty, _ = draw(Engine(spread, MODEL, INT8, LONGEST), requests())
    found, stats = draw(Engine(spread, MODEL, replace(INT8, cache_tokens=224), LONGEST), requests())
    assert found == plenty and stats[-1].preempted > 0


def test_a_plan_holds_about_twice_the_tokens_in_the_same_bytes():
    """Qwen2.5-7B: of a token 2 x 28 x 4 x 128 numbers; a scale of keys is for a window of 16, one of values for 128."""
    some = case(QWEN_7B, MeshConfig(data=2, tensor=4), 0)
    less = some._replace(engine=replace(some.engine, cache_dtype="int8"))
    assert less.sizes.pages == some.sizes.pages
    numbers = 2 * 28 * 4 * 128
    for each, of_token in ((some, 2 * numbers), (less, numbers + 2 * numbers // 2 // 16 + 2 * numbers // 2 // 128)):
        assert token_cost(QWEN_7B, each.sizes).kv_bytes == of_token
        tokens = each.sizes.pages * each.sizes.page_size * each.sizes.shards
        assert each.cache_bytes * each.mesh.size == of_token * tokens
    assert 1.8 < some.cache_bytes / less.cache_bytes < 2


@pytest.mark.parametrize("name", ["decode_window", "prefill", "read_pages", "write_pages"])
def test_programs_are_planned_with_the_arrays_that_the_engine_sends(name, ample: Engine):
    mesh, sizes = ample.mesh, shapes_of(INT8, ample.mesh, LONGEST)
    assert sizes == ample.shapes
    planned = {
        "decode_window": lambda: programs.decode_window(MODEL, sizes, mesh, 16),
        "prefill": lambda: programs.prefill(MODEL, INT8, sizes, mesh, sizes.prefill_lengths[-1]),
        "read_pages": lambda: programs.moved_pages(MODEL, sizes, mesh)[0],
        "write_pages": lambda: programs.moved_pages(MODEL, sizes, mesh)[1],
    }[name]()
    dtypes = {x.dtype for x in jax.tree.leaves(planned.trace().jaxpr.in_avals)}
    assert {jnp.dtype(jnp.int8), jnp.dtype(jnp.bfloat16)} <= dtypes


CHEAP = (
    "engine.cache_dtype=int8",
    "arms.base.pretrain.steps=3",
    "arms.grpo.rl.steps=1",
    "arms.grpo.rl.save_at=(1,)",
    "arms.distilled.sft.steps=2",
    "arms.control.sft.steps=2",
    "sampling.n=8",
    "report.k=8",
)


@pytest.mark.slow
def test_a_run_tells_its_drift_in_the_log_in_the_records_and_on_the_page(smoke_runs, smoke_run):
    done = smoke.run_smoke_here(smoke_runs, *CHEAP, "job=sample")
    assert done.returncode == 0, done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("cache error of ")]
    arms = ["base", "grpo-1", "distilled", "control"]
    assert [line.split()[3].rstrip(":") for line in said] == arms
    done = smoke.run_smoke_here(smoke_runs, *CHEAP, "job=report")
    assert done.returncode == 0, done.stderr
    page = next(line for line in done.stdout.splitlines() if line.startswith("report: ")).removeprefix("report: ")
    folder = (smoke_runs / page).parent
    for line in said:
        assert line.split(": ", 1)[1] in (folder / "index.html").read_text()
    summary = json.loads((folder / "summary.json").read_text())["arms"]
    for arm in arms:
        scores = records.read(folder.parent, "scores", where={"arm": arm, "model": arm}).to_pylist()
        known = {(row["problem_id"], row["index"]): row["logp"] for row in scores}
        samples = records.read(folder.parent, "samples", where={"arm": arm}).to_pylist()
        pairs = [(known[key], s["logp_model"]) for s in samples if (key := (s["problem_id"], s["index"])) in known]
        delta = np.concatenate([np.subtract(*pair) for pair in pairs])
        drift = summary[arm]["drift"]
        assert drift["answers"] == len(known) == 32 and drift["tokens"] == len(delta)
        # At temperature 1, without truncation, the sampler draws from what it records.
        size, k3 = np.abs(delta), np.exp(delta) - 1 - delta
        expected = {"mean": size.mean(), "largest": size.max(), "kl": k3.mean()}
        for name, value in expected.items():
            np.testing.assert_allclose(drift[name], value, rtol=1e-6)
        assert 1e-5 < drift["mean"] < drift["largest"] < 0.2 and 0 < drift["kl_error"] < drift["kl"] < 1e-3
        assert "a cache in int8" in summary[arm]["conditions"]["engine"]
    row = json.loads((folder.parent / "train" / "grpo" / "metrics.jsonl").read_text())
    assert 1e-4 < row["max_delta_logp"] < 0.2 and row["kl_sampler"] > 0
    without = json.loads((smoke_run / "report" / "summary.json").read_text())["arms"]["base"]
    assert "drift" not in without and "int8" not in without["conditions"]["engine"]


@pytest.mark.usefixtures("compilation_cache")
def test_the_cache_s_dtype_is_a_condition_of_samples(tmp_path):
    plain, int8 = smoke_study(tmp_path), smoke_study(tmp_path, "engine.cache_dtype=int8")
    assert plain.root != int8.root
    known = [records.read_manifest(found.root)["conditions"]["engine"] for found in (plain, int8)]
    assert known[1] == known[0] | {"cache_dtype": "int8"} and known[0]["cache_dtype"] == ""
    said = [conditions_of(found, found.base).values["engine"] for found in (plain, int8)]
    assert said[1] == f"{said[0]}, a cache in int8"
    reference = replace(int8, engine=replace(int8.engine, reference=True))
    assert conditions_of(reference, reference.base).values["engine"] == "reference, a cache in int8"


def test_another_dtype_is_refused_in_one_line(tmp_path):
    done = smoke.run_smoke_here(tmp_path, "engine.cache_dtype=int4")
    assert done.returncode == 2
    assert "config.engine.cache_dtype: 'int4' is not one of '', int8" in done.stderr
