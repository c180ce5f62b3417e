"""Log-likelihoods of answers against the decoder written out in float64 NumPy (test_model.py)."""

import dataclasses
import math
from functools import partial

import jax
import numpy as np
import pytest
from test_model import GROUPED, TIED, in_float64, numpy_log_softmax, random_params

from rlvr_limit import likelihood
from rlvr_limit.model import init_params
from rlvr_limit.types import UserError

answer_logprobs = jax.jit(likelihood.answer_logprobs, static_argnums=(1, 3, 4))


def pairs_of(config, lengths, seed=0):
    """(prompt, answer) pairs of random tokens of the given lengths."""
    draw = partial(np.random.default_rng(seed).integers, config.vocab_size)
    return [(tuple(draw(size=p).tolist()), tuple(draw(size=a).tolist())) for p, a in lengths]


LENGTHS = [(3, 5), (1, 7), (6, 1), (4, 0), (2, 6)]


@pytest.mark.parametrize("packed", [None, 19, 25, 40])
@pytest.mark.parametrize(("config", "chunk"), [(GROUPED, 7), (TIED, 20), (GROUPED, 4096)])
def test_log_probs_and_entropies_of_answers_equal_float64_and_are_zero_elsewhere(config, chunk, packed):
    params, pairs = random_params(config), pairs_of(config, LENGTHS)
    rows = likelihood.to_rows(pairs, 8)
    logp, entropy = (np.asarray(x) for x in answer_logprobs(params, config, rows, chunk, packed))
    expected = np.zeros((2, len(pairs), 8))
    for row, (prompt, answer) in enumerate(pairs):
        exact = numpy_log_softmax(in_float64(params), config, [*prompt, *answer])
        for place, token in enumerate(answer, start=len(prompt)):
            expected[:, row, place] = exact[place - 1, token], -(np.exp(exact[place - 1]) * exact[place - 1]).sum()
    np.testing.assert_allclose(logp, expected[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(entropy, expected[1], rtol=0, atol=1e-5)
    assert np.all(logp[~rows.answer_BT] == 0) and np.all(entropy[~rows.answer_BT] == 0)
    assert np.all(logp[rows.answer_BT] < 0) and np.all(entropy[rows.answer_BT] > 0)


def test_an_answer_token_without_a_place_among_the_packed_is_no_number_and_the_others_are_unharmed():
    rows = likelihood.to_rows(pairs_of(GROUPED, LENGTHS), 8)
    whole, cut = (np.asarray(answer_logprobs(random_params(GROUPED), GROUPED, rows, 4096, k)[0]) for k in (19, 16))
    assert np.argwhere(np.isnan(cut)).tolist() == [[4, 5], [4, 6], [4, 7]]
    np.testing.assert_allclose(cut[~np.isnan(cut)], whole[~np.isnan(cut)], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_packed_positions_hold_the_answers_of_every_shard_with_little_to_spare_in_few_sizes(shards):
    rng, sizes, positions = np.random.default_rng(0), set(), 4096 // shards
    for share in np.linspace(0, 1, 400):
        answer = rng.random((8, 512)) < share * rng.random((8, 1))
        packed = likelihood.packed_positions(GROUPED, answer, shards, chunk=16)
        most = max(part.sum() for part in np.split(answer, shards))
        assert most <= packed <= positions and packed <= max(1.25 * most, most + 16)
        sizes.add(packed)
    assert 8 <= len(sizes) <= 30


def test_scoring_computes_logits_for_few_positions_beside_those_that_answers_need():
    wide = dataclasses.replace(TIED, vocab_size=4096)
    rows = likelihood.to_rows([((1,) * 28, (2, 3))] * 4, 32)
    shapes = jax.eval_shape(lambda: init_params(wide, jax.random.key(0)))

    def flops(packed):
        return likelihood.batch_logprobs.lower(shapes, wide, rows, packed).compile().cost_analysis()["flops"]

    logits = 2 * wide.width * wide.vocab_size
    saved = flops(None) - flops(likelihood.packed_positions(wide, rows.answer_BT, 1))
    assert (128 - 16) * logits <= saved <= 1.5 * (128 - 16) * logits


def test_rows_hold_the_prompt_then_the_answer_and_mark_the_answer():
    rows = likelihood.to_rows([((5, 6), (7,)), ((8,), (9, 1, 2)), ((4,), ())], 4)
    np.testing.assert_array_equal(rows.tokens_BT, [[5, 6, 7, 0], [8, 9, 1, 2], [4, 0, 0, 0]])
    np.testing.assert_array_equal(rows.answer_BT, [[0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize(("prompt", "reply"), [(5, 4), (9, 0), (0, 3), (0, 0)])
def test_a_pair_that_does_not_fit_a_row_is_named(prompt, reply):
    with pytest.raises(UserError, match=f"pair 1 has {prompt} [+] {reply} tokens, a row holds 8"):
        likelihood.to_rows([((1,), (2,)), ((1,) * prompt, (2,) * reply)], 8)


def test_scores_depend_neither_on_padding_nor_on_batch_mates_nor_on_the_batch_size():
    params, pairs = random_params(GROUPED), pairs_of(GROUPED, LENGTHS)
    together = list(likelihood.score(params, GROUPED, pairs, places=8, batch=5))
    alone = list(likelihood.score(params, GROUPED, pairs[::-1], places=20, batch=1))[::-1]
    for mine, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(mine, other, rtol=0, atol=1e-6)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 13])
def test_scores_come_in_order_for_any_count(count):
    params = random_params(GROUPED)
    pairs = pairs_of(GROUPED, [(1 + i % 3, i % 5) for i in range(count)], seed=count)
    scores = list(likelihood.score(params, GROUPED, iter(pairs), places=8, batch=5))
    assert [len(score) for score in scores] == [i % 5 for i in range(count)]
    for score, (prompt, answer) in zip(scores, pairs, strict=True):
        exact = numpy_log_softmax(in_float64(params), GROUPED, [*prompt, *answer])
        places = np.arange(len(prompt) - 1, len(prompt) + len(answer) - 1)
        np.testing.assert_allclose(score, exact[places, list(answer)], rtol=0, atol=1e-5)


def test_perplexity_is_the_inverse_geometric_mean_of_the_tokens_chances():
    for chances in ([0.25], [0.5, 0.125], [0.9, 0.01, 0.3]):
        expected = math.prod(chances) ** (-1 / len(chances))
        assert likelihood.perplexity([math.log(p) for p in chances]) == pytest.approx(expected, rel=1e-12)
    assert likelihood.perplexity([math.log(1 / 7)] * 100_000) == pytest.approx(7, rel=1e-9)
