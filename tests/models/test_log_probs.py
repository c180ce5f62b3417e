"""Log-likelihoods of answers against the decoder written out in float64 NumPy (test_model.py)."""

import dataclasses
import math
from functools import partial

import jax
import numpy as np
import pytest

from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import init_params
from rlvr_limit.types import UserError
from tests.support.numpy_decoder import GROUPED, TIED, in_float64, numpy_log_softmax, random_params

answer_log_probs = jax.jit(log_probs.answer_log_probs, static_argnums=(1, 3, 4))


def pairs_of(config, lengths, seed=0):
    """(prompt, answer) pairs of random tokens of the given lengths."""
    draw = partial(np.random.default_rng(seed).integers, config.vocab_size)
    return [(tuple(draw(size=p).tolist()), tuple(draw(size=a).tolist())) for p, a in lengths]


LENGTHS = [(3, 5), (1, 7), (6, 1), (4, 0), (2, 6)]


@pytest.mark.parametrize("packed", [None, 19, 25, 40])
@pytest.mark.parametrize(("config", "chunk"), [(GROUPED, 7), (TIED, 20), (GROUPED, 4096)])
def test_log_probs_and_entropies_of_answers_equal_float64_and_are_zero_elsewhere(config, chunk, packed):
    params, pairs = random_params(config), pairs_of(config, LENGTHS)
    rows = log_probs.answer_rows(pairs, 8)
    logp, entropy = (np.asarray(x) for x in answer_log_probs(params, config, rows, chunk, packed))
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
    rows = log_probs.answer_rows(pairs_of(GROUPED, LENGTHS), 8)
    whole, cut = (np.asarray(answer_log_probs(random_params(GROUPED), GROUPED, rows, 4096, k)[0]) for k in (19, 16))
    assert np.argwhere(np.isnan(cut)).tolist() == [[4, 5], [4, 6], [4, 7]]
    np.testing.assert_allclose(cut[~np.isnan(cut)], whole[~np.isnan(cut)], rtol=0, atol=1e-6)


@pytest.mark.parametrize("shards", [1, 2, 4])
def test_packed_positions_hold_the_answers_of_every_shard_with_little_to_spare_in_few_sizes(shards):
    rng, sizes, positions = np.random.default_rng(0), set(), 4096 // shards
    for share in np.linspace(0, 1, 400):
        answer = rng.random((8, 512)) < share * rng.random((8, 1))
        packed = log_probs.packed_positions(GROUPED, answer, shards, chunk=16)
        most = max(part.sum() for part in np.split(answer, shards))
        assert most <= packed <= positions and packed <= max(1.25 * most, most + 16)
        sizes.add(packed)
    assert 8 <= len(sizes) <= 30


def test_scoring_computes_logits_for_few_positions_beside_those_that_answers_need():
    wide = dataclasses.replace(TIED, vocab_size=4096)
    shapes = jax.eval_shape(partial(init_params, wide), jax.random.key(0))
    ((_, rows),) = log_probs.prefix_batches([((1,) * 33, (2,) * 3)] * 8, 1024, 1)
    assert rows.tokens_BT.shape == (8, 32)

    def flops(packed):
        return log_probs.score_prefix_batch.lower(shapes, wide, rows, packed).compile().cost_analysis()["flops"]

    saved = flops(None) - flops(log_probs.packed_positions(wide, rows.answer_BT, 1))
    assert saved > 2 * (8 * 32 - 32) * wide.width * wide.vocab_size


def test_rows_hold_the_prompt_then_the_answer_and_mark_the_answer():
    rows = log_probs.answer_rows([((5, 6), (7,)), ((8,), (9, 1, 2)), ((4,), ())], 4)
    np.testing.assert_array_equal(rows.tokens_BT, [[5, 6, 7, 0], [8, 9, 1, 2], [4, 0, 0, 0]])
    np.testing.assert_array_equal(rows.answer_BT, [[0, 0, 1, 0], [0, 1, 1, 1], [0, 0, 0, 0]])


@pytest.mark.parametrize(("prompt", "reply"), [(5, 4), (9, 0), (0, 3), (0, 0)])
def test_a_pair_that_does_not_fit_a_row_is_named(prompt, reply):
    with pytest.raises(UserError, match=f"pair 1 has {prompt} [+] {reply} tokens, a row holds 8"):
        log_probs.answer_rows([((1,), (2,)), ((1,) * prompt, (2,) * reply)], 8)


def exact_scores(params, config, prompt, answer):
    """(log-probs, entropies) of an answer in float64."""
    logp = numpy_log_softmax(in_float64(params), config, [*prompt, *answer])[len(prompt) - 1 : -1]
    return logp[np.arange(len(answer)), list(answer)], -(np.exp(logp) * logp).sum(axis=1)


def siblings(config, prompts, answers, seed=0):
    """Pairs of a few prompts and many answers of all lengths from 0 on, in an order of their own."""
    rng = np.random.default_rng(seed)
    asked = [tuple(rng.integers(config.vocab_size, size=length).tolist()) for length in prompts]
    pairs = [(p, tuple(rng.integers(config.vocab_size, size=n).tolist())) for p in asked for n in range(answers)]
    rng.shuffle(pairs)
    return [(tuple(p), tuple(a)) for p, a in pairs]


def test_answers_behind_shared_prompts_have_the_log_probs_and_entropies_of_float64_in_order():
    params, pairs = random_params(GROUPED), siblings(GROUPED, (1, 2, 11), 7)
    scores = log_probs.score_pairs(params, GROUPED, pairs, tokens=64, min_lengths=(10, 6))
    for scored, (prompt, answer) in zip(scores, pairs, strict=True):
        logp, entropy = exact_scores(params, GROUPED, prompt, answer)
        np.testing.assert_allclose(scored.logp, logp, rtol=0, atol=1e-5)
        np.testing.assert_allclose(scored.entropy, entropy, rtol=0, atol=1e-5)


def test_scores_behind_a_shared_prompt_equal_those_of_whole_sequences_where_blocks_are_attended_one_by_one(monkeypatch):
    monkeypatch.setattr("kernels.attention.reference.LONG_ROW", 12)
    monkeypatch.setattr("kernels.attention.reference.QUERY_BLOCK", 5)
    params, pairs = random_params(GROUPED), siblings(GROUPED, (9, 14), 9)
    # Other sizes than elsewhere, or a program compiled without the patches would be taken.
    shared = log_probs.score_pairs(params, GROUPED, pairs, tokens=144, min_lengths=(16, 9))
    whole = log_probs.score_pairs(
        params, GROUPED, [((p[0],), (*p[1:], *a)) for p, a in pairs], tokens=440, min_lengths=(1, 22)
    )
    for mine, other, (prompt, answer) in zip(shared, whole, pairs, strict=True):
        if answer:
            np.testing.assert_allclose(mine, np.array(other)[:, len(prompt) - 1 :], rtol=0, atol=1e-5)


def test_a_batch_holds_each_prompt_once_and_no_more_tokens_than_asked_for():
    pairs = siblings(GROUPED, (5, 5, 5, 8), 40)
    seen, shapes = [], set()
    for places, rows in log_probs.prefix_batches(pairs, 256, 2, min_lengths=(4, 8)):
        assert rows.tokens_BT.size <= 2 * 256 and rows.prefix_PS.size <= 2 * 256
        each, asked = len(rows.prefix_index_B) // 2, len(rows.length_P) // 2
        for shard in range(2):
            prompts = [pairs[places[row]][0] for row in places if row // each == shard]
            assert len(set(prompts)) <= asked <= 4
        for row, i in places.items():
            prompt, answer = pairs[i]
            at = row // each * asked + rows.prefix_index_B[row]
            assert (*rows.prefix_PS[at, : rows.length_P[at]], rows.tokens_BT[row, 0]) == prompt
            assert tuple(rows.targets_BT[row, rows.answer_BT[row]]) == answer
        seen += places.values()
        shapes.add((rows.prefix_PS.shape[1], rows.tokens_BT.shape))
    assert sorted(seen) == [i for i, (_, answer) in enumerate(pairs) if answer]
    assert len(shapes) == len({(s, t[1]) for s, t in shapes})


def test_prompts_are_computed_once_however_many_answers_share_them():
    shapes = jax.eval_shape(partial(init_params, GROUPED), jax.random.key(0))

    def flops(prompts):
        pairs = [((i % prompts,) * 65, (1,) * 8) for i in range(16)]
        ((_, rows),) = log_probs.prefix_batches(pairs, 2048, 1, min_lengths=(64, 8))
        assert rows.prefix_PS.shape == (prompts, 64)
        return log_probs.score_prefix_batch.lower(shapes, GROUPED, rows).compile().cost_analysis()["flops"]

    assert flops(1) < 0.3 * flops(16)


def test_padded_lengths_are_few_and_less_than_half_too_long():
    sizes = [log_probs.padded_length(n, 32) for n in range(1, 5000)]
    assert all(n <= size and (size == 32 or size <= 1.5 * n) for n, size in enumerate(sizes, start=1))
    assert sorted(set(sizes))[:6] == [32, 48, 64, 96, 128, 192] and len(set(sizes)) == 16
    assert log_probs.padded_length(0, 32) == 0


def test_a_pair_without_a_prompt_is_named():
    with pytest.raises(UserError, match="pair 1 has no prompt"):
        log_probs.score_pairs(random_params(GROUPED), GROUPED, [((1,), (2,)), ((), (3,))])


def test_perplexity_is_the_inverse_geometric_mean_of_the_tokens_chances():
    for chances in ([0.25], [0.5, 0.125], [0.9, 0.01, 0.3]):
        expected = math.prod(chances) ** (-1 / len(chances))
        assert log_probs.perplexity([math.log(p) for p in chances]) == pytest.approx(expected, rel=1e-12)
    assert log_probs.perplexity([math.log(1 / 7)] * 100_000) == pytest.approx(7, rel=1e-9)
