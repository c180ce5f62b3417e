"""What the sampler draws against exact distributions in float64; that wrong samplers would fail is shown beside it.

Some tokens have equal unembedding columns, so that ties stand at the edge of top-p.
"""

from __future__ import annotations

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.requests import Request, prompt_key
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.settings import EngineConfig
from rlvr_limit.types import Sample, SamplingParams
from tests.support.numpy_decoder import in_float64, numpy_log_softmax, random_params

MODEL = ModelConfig(vocab_size=20, width=32, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=64)
PROMPT = (7, 2, 15)
TIES = [(3, 11), (5, 9, 14), (0, 18)]
GRID = list(product((0.6, 1.0, 1.5), (1.0, 0.95, 0.5)))
N = 8000
SURE = 1e-3


def tied_params(seed: int) -> dict:
    params = random_params(MODEL, seed)
    params["unembedding"] *= 0.5
    for first, *rest in TIES:
        params["unembedding"][:, rest] = params["unembedding"][:, [first]]
    return params


def tempered(logp: np.ndarray, temperature: float) -> np.ndarray:
    p = np.exp(logp / temperature)
    return p / p.sum(axis=-1, keepdims=True)


def mass_above(p: np.ndarray) -> np.ndarray:
    """The mass of all tokens more likely than each; tied ones are told apart from float64 noise."""
    p = np.round(p, 12)
    return np.sum(np.where(p[..., None, :] > p[..., :, None], p[..., None, :], 0.0), axis=-1)


def truncated(p: np.ndarray, top_p: float) -> np.ndarray:
    """A token is in the smallest set whose mass reaches top_p where those before it do not reach it yet."""
    kept = np.where(mass_above(p) < top_p, p, 0.0)
    return kept / kept.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def logp() -> np.ndarray:
    """log P at temperature 1 [1 + V, V], of the first token and of the second after each first."""
    weights = in_float64(tied_params(3))
    rows = [numpy_log_softmax(weights, MODEL, [*PROMPT, *more])[-1] for more in [(), *((t,) for t in range(20))]]
    return np.stack(rows)


@pytest.fixture(scope="module")
def drawn() -> dict[tuple[float, float], list[Sample]]:
    """N samples of two tokens for each of the nine settings, by index; all nine were drawn in the same batches."""
    engine = Engine(
        jax.tree.map(jnp.asarray, tied_params(3)),
        MODEL,
        EngineConfig(max_num_seqs=256, steps_per_call=2, max_prompt_len=4),
        2,
    )
    requests = [
        Request(repr(s), PROMPT, prompt_key(2024, repr(s), "prompt"), range(N), SamplingParams(*s, 2)) for s in GRID
    ]
    samples = {s: [None] * N for s in GRID}
    names = {repr(s): s for s in GRID}
    for sample in engine.generate(requests):
        samples[names[sample.problem_id]][sample.index] = sample
    return samples


def tokens_of(samples: list[Sample]) -> np.ndarray:
    return np.array([s.tokens for s in samples])


def chi_square(tokens: np.ndarray, p: np.ndarray) -> float:
    """The p-value of drawn pairs [N, 2]: the smaller one of the first token alone and of both, times two.

    Cells of fewer than 5 expected are put together; a token that cannot be drawn, but was, settles it.
    """
    first, both = np.bincount(tokens[:, 0], minlength=20), np.zeros((20, 20), int)
    np.add.at(both, (tokens[:, 0], tokens[:, 1]), 1)
    values = []
    for counts, chances in ((first, p[0]), (both.ravel(), (p[0][:, None] * p[1:]).ravel())):
        if counts[chances == 0].any():
            return 0.0
        expected = chances * counts.sum()
        rare = expected < 5
        cells = [(counts[~rare], expected[~rare])]
        if expected[rare].sum() >= 5:
            cells.append((counts[rare].sum(keepdims=True), expected[rare].sum(keepdims=True)))
        counts, expected = (np.concatenate(x) for x in zip(*cells, strict=True))
        values.append(stats.chi2.sf(((counts - expected) ** 2 / expected).sum(), len(counts) - 1))
    return min(1.0, 2 * min(values))


@pytest.mark.parametrize("setting", GRID, ids=str)
def test_first_and_second_token_have_the_exact_distribution(drawn, logp, setting):
    temperature, top_p = setting
    assert chi_square(tokens_of(drawn[setting]), truncated(tempered(logp, temperature), top_p)) > SURE


def without_the_last(p: np.ndarray, ties: bool) -> np.ndarray:
    """Of the least likely tokens kept, drops all, or (ties) all but the first."""
    least = np.round(p, 12) == np.round(np.where(p > 0, p, 1).min(axis=-1, keepdims=True), 12)
    if ties:
        least &= np.cumsum(least, axis=-1) > 1
    fewer = np.where(least, 0.0, p)
    return fewer / fewer.sum(axis=-1, keepdims=True)


WRONG = {
    "top_p before temperature": lambda logp, t, p: tempered(np.log(truncated(np.exp(logp), p) + 1e-300), t),
    "no temperature": lambda logp, t, p: truncated(np.exp(logp), p),
    "temperature upside down": lambda logp, t, p: truncated(tempered(logp, 1 / t), p),
    "temperature off by 0.1": lambda logp, t, p: truncated(tempered(logp, t + 0.1), p),
    "no top_p": lambda logp, t, p: tempered(logp, t),
    "top_p off by 0.05": lambda logp, t, p: truncated(tempered(logp, t), p - 0.05),
    "least likely tokens dropped": lambda logp, t, p: without_the_last(truncated(tempered(logp, t), p), ties=False),
    "ties at the edge dropped": lambda logp, t, p: without_the_last(truncated(tempered(logp, t), p), ties=True),
    "second token blind to the first": lambda logp, t, p: truncated(tempered(logp[[0] * 21], t), p),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_wrong_sampler_is_rejected_wherever_it_moves_a_twentieth_of_the_mass(drawn, logp, mistake):
    far = 0
    for temperature, top_p in GRID:
        right, wrong = truncated(tempered(logp, temperature), top_p), WRONG[mistake](logp, temperature, top_p)
        moved = np.abs(right[:1].T * right[1:] - wrong[:1].T * wrong[1:]).sum() / 2
        if moved > 0.05:
            far += 1
            assert chi_square(tokens_of(drawn[temperature, top_p]), wrong) < 1e-6, (temperature, top_p, moved)
    assert far >= 2


def test_top_p_keeps_the_exact_set_with_all_ties_at_its_edge(drawn, logp):
    edges = set()
    for temperature, top_p in GRID:
        p = tempered(logp, temperature)
        above = mass_above(p)
        # Float32 can only be asked for the same set where no boundary lies within its rounding.
        assert top_p == 1 or np.abs(above - top_p).min() > 1e-5
        exact = truncated(p, top_p)
        tokens = tokens_of(drawn[temperature, top_p])
        seen = np.zeros((21, 20), bool)
        seen[0, tokens[:, 0]] = True
        seen[1 + tokens[:, 0], tokens[:, 1]] = True
        assert not seen[exact == 0].any()
        # Tokens that could hardly stay unseen in N draws were all seen.
        frequent = exact * np.concatenate([[1.0], exact[0]])[:, None] * N > 25
        assert seen[frequent].all()
        last = np.where(exact > 0, above, -1).max(axis=1, keepdims=True)
        for group in TIES:
            at_edge = np.isclose(above, last, rtol=0, atol=1e-9)[:, group].all(axis=1) & (top_p < 1)
            if (at_edge & frequent[:, group].all(axis=1)).any():
                edges.add((temperature, top_p, group))
    assert len(edges) >= 4


def test_log_probs_are_the_exact_ones_of_the_sampler_and_of_the_model(drawn, logp):
    for (temperature, top_p), samples in drawn.items():
        tokens = tokens_of(samples)
        with np.errstate(divide="ignore"):
            exact = np.log(truncated(tempered(logp, temperature), top_p))
        for table, recorded in ((exact, [s.logp for s in samples]), (logp, [s.logp_model for s in samples])):
            expected = np.stack([table[0, tokens[:, 0]], table[1 + tokens[:, 0], tokens[:, 1]]], axis=1)
            np.testing.assert_allclose(recorded, expected, rtol=0, atol=1e-5)


@partial(jax.jit, static_argnums=(1, 2))
def folded(key_2: jax.Array, indices: int, positions: int) -> jax.Array:
    """u [index, position] by the rule that Request states: folds of (prompt key, index, position)."""
    key = jax.random.wrap_key_data(key_2)

    def one(index: jax.Array, position: jax.Array) -> jax.Array:
        return jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, index), position))

    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(jnp.arange(indices), jnp.arange(positions))


def uniforms(stream: str, indices: int, positions: int, seed: int = 2024) -> np.ndarray:
    return np.asarray(folded(jnp.array(prompt_key(seed, stream, "prompt"), jnp.uint32), indices, positions))


def test_every_token_is_the_inverse_cdf_of_its_own_uniform(drawn, logp):
    for (temperature, top_p), samples in drawn.items():
        tokens = tokens_of(samples)
        cdf = np.cumsum(truncated(tempered(logp, temperature), top_p), axis=1)
        rows = np.stack([np.zeros(N, int), 1 + tokens[:, 0]], axis=1)
        upper = cdf[rows, tokens]
        lower = np.where(tokens > 0, cdf[rows, tokens - 1], 0.0)
        u = uniforms(repr((temperature, top_p)), N, 2)
        assert np.all((lower - 1e-5 < u) & (u < upper + 1e-5))


STREAMS = ["eval/base", "eval/grpo-40", "train/grpo/1", "train/grpo/2", "train/grpo/12"]


def test_arms_training_steps_seeds_indices_and_positions_have_unrelated_uniforms():
    blocks = [uniforms(stream, 400, 24) for stream in STREAMS] + [uniforms(STREAMS[0], 400, 24, seed=2025)]
    columns = np.concatenate(blocks, axis=1)
    correlation = np.corrcoef(columns) - np.eye(400), np.corrcoef(columns.T) - np.eye(columns.shape[1])
    for among, draws in zip(correlation, columns.shape[::-1], strict=True):
        # Of this many coefficients of independent columns, one above six standard errors has a chance below 1e-3.
        assert np.abs(among).max() < 6 / np.sqrt(draws)
    assert stats.kstest(columns.ravel(), "uniform").pvalue > SURE
    # A float32 uniform has 2^23 values: pairs that agree by chance are about 200, a shared column alone would be 400.
    assert columns.size - np.unique(columns).size < 300


def test_where_stream_and_prompt_meet_does_not_matter_and_each_counts():
    keys = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""), ("ab", "d"), ("ac", "c"), ("c", "ab")]
    assert len({prompt_key(0, *words) for words in keys} | {prompt_key(1, *keys[0])}) == len(keys) + 1
