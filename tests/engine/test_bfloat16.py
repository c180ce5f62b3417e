"""In bfloat16 a CPU's sampler, whose cache is read and written in C++, is as near to float32 as the scorer."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kernels import copies, native
from rlvr_limit.engine import programs
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import Request, prompt_key
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import ModelConfig, for_inference, init_params
from rlvr_limit.settings import EngineConfig
from rlvr_limit.types import SamplingParams

MODEL = ModelConfig(64, 32, 2, heads=4, kv_heads=2, head_width=16, ffn_width=64, dtype="bfloat16", tied_embedding=True)
ENGINE = EngineConfig(
    max_num_seqs=12, steps_per_call=4, page_size=16, max_prompt_len=40, prefill_rows=2, prefix_rows=3, cache_tokens=480
)


@pytest.fixture(autouse=True, scope="module")
def needs_a_compiler():
    if not native.ready():
        pytest.skip("no C++ compiler")


def times_as_far(model: ModelConfig, config: EngineConfig) -> float:
    """How far the sampler's log-probs are from those of float32, as a multiple of how far the scorer's are (rms).

    Over prompts, pages and preemptions.
    """
    params = init_params(replace(model, dtype="float32"), jax.random.key(3))
    # Sharp enough that attention matters.
    layers = [{**p, "q": 6 * p["q"], "o": 4 * p["o"]} for p in params["layers"]]
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), {**params, "layers": layers})
    rng, sampling = np.random.default_rng(0), SamplingParams(1.0, 1.0, 50)
    prompts = [tuple(rng.integers(model.vocab_size, size=n).tolist()) for n in (1, 7, 17, 40)]
    asked = [Request(str(i), p, prompt_key(1, "eval", str(i)), range(5), sampling) for i, p in enumerate(prompts)]
    stats: list = []
    samples = list(Engine(params, model, config, 50).generate(asked, stats.append))
    assert len(samples) == 20 and stats[-1].preempted > 0
    pairs = [(prompts[int(s.problem_id)], s.tokens) for s in samples]
    exact, rounded = (
        np.concatenate([logp for logp, _ in log_probs.score_pairs(jax.tree.map(dtype, params), config, pairs)])
        for dtype, config in ((jnp.float32, replace(model, dtype="float32")), (jnp.bfloat16, model))
    )
    drawn = np.concatenate([s.logp_model for s in samples])
    found = float(np.std(drawn - exact) / np.std(rounded - exact))
    print(f"{np.std(rounded - exact):.4f} x {found:.2f}")
    return found


def test_a_token_s_log_prob_is_as_near_to_float32_as_the_scorer_s():
    assert times_as_far(MODEL, ENGINE) < 1.25


def test_an_untied_model_s_log_probs_are_as_near():
    assert times_as_far(replace(MODEL, tied_embedding=False), ENGINE) < 1.25


@pytest.mark.skipif(not native.multiplies(), reason="no product for this processor, or no compiler")
@pytest.mark.parametrize("tied", [True, False])
def test_the_scorer_s_log_probs_and_entropies_by_columns_are_as_near(tied: bool):
    model = replace(MODEL, tied_embedding=tied, vocab_size=196)
    params = init_params(replace(model, dtype="float32"), jax.random.key(3))
    params = jax.tree.map(lambda x: (2 * x).astype(jnp.bfloat16), params)
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(196, size=n).tolist(), rng.integers(196, size=40).tolist()) for n in (1, 7, 7, 30)]

    def scores(params, config):
        return np.array(log_probs.score_pairs(params, config, pairs))

    exact = scores(jax.tree.map(jnp.float32, params), replace(model, dtype="float32"))
    as_they_lie, by_columns = (scores(p, model) for p in (params, for_inference(params)))
    off = [np.std(found - exact, axis=(0, 2)) for found in (as_they_lie, by_columns)]
    assert (off[1] < 1.25 * off[0]).all() and (off[1] < 0.15 * np.std(exact, axis=(0, 2))).all(), off


def test_donated_weights_are_deleted_where_they_were_copied_and_draw_the_same():
    params = init_params(MODEL, jax.random.key(3))
    asked = [Request("0", (1, 2, 3), prompt_key(1, "eval", "0"), range(3), SamplingParams(1.0, 1.0, 9))]
    engine = Engine(params, MODEL, ENGINE, 50)
    kept = {s.index: s.tokens for s in engine.generate(asked)}
    assert not any(x.is_deleted() for x in jax.tree.leaves(params))
    engine.load(params, donate=True)
    assert {s.index: s.tokens for s in engine.generate(asked)} == kept
    copied = [name for name, x in params["layers"][0].items() if x.is_deleted()]
    assert sorted(copied) == (["down", "gate", "k", "o", "q", "up", "v"] if native.multiplies() else [])
    assert not params["embedding"].is_deleted()


@pytest.mark.slow
@pytest.mark.parametrize("axis", [2, 3])
def test_keys_or_values_filed_one_place_off_are_seen(axis: int, monkeypatch: pytest.MonkeyPatch):
    put = copies.put

    def off(old: jax.Array, new: jax.Array, at_N: jax.Array, offset_N: jax.Array, where: int = 0, **more: int):
        return put(old, new, at_N, offset_N + (more["axis"] == axis and new.shape[axis] == 4), **more)

    monkeypatch.setattr(programs.copies, "put", off)
    # A shape that nothing has been traced for.
    assert times_as_far(replace(MODEL, vocab_size=60 + axis), ENGINE) > 10
