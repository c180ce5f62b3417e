"""Packed rows: every token once, no sequence split or seen by another, and the same log-probs and gradients."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.attention import reference
from rlvr_limit.models import decoder
from rlvr_limit.models.layers import REMAT
from rlvr_limit.rl import microbatch_shape, microbatches
from rlvr_limit.rl.packing import first_fit
from rlvr_limit.types import UserError
from tests.support.numpy_decoder import GROUPED, random_params
from tests.support.policy_batches import batch_of, scored


@given(st.lists(st.integers(1, 16), max_size=40))
def test_each_sequence_goes_whole_into_one_row_and_no_row_overflows(lengths):
    rows = first_fit([0] * len(lengths), lengths, range(len(lengths)), 16)
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    used = [sum(lengths[i] for i in row) for row in rows]
    assert all(0 < n <= 16 for n in used)
    # First fit: nothing in a later row would have fitted into an earlier one.
    assert all(used[i] + min(lengths[m] for m in rows[j]) > 16 for j in range(len(rows)) for i in range(j))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 10)), max_size=40), st.tuples(*[st.integers(0, 6)] * 4))
def test_a_prompts_head_takes_room_once_a_row_and_its_sequences_stand_side_by_side(sequences, heads):
    prompt, tail = [p for p, _ in sequences], [n for _, n in sequences]
    rows = first_fit([heads[p] for p in prompt], tail, prompt, 16)
    assert sorted(i for row in rows for i in row) == list(range(len(sequences)))
    for row in rows:
        asked = [prompt[i] for i in row]
        assert sum(tail[i] for i in row) + sum(heads[p] for p in set(asked)) <= 16
        assert sorted(asked) == asked


def test_prompts_share_a_row_only_where_that_takes_no_more_rows():
    """Two answers of 70 and two of 30 to prompts of 1: one of each in a row. Of 8 alike behind 20, 8 in a row."""
    _, mixed = batch_of([(1, 70), (1, 70), (1, 30), (1, 30)], 72, vocab=1000)
    assert len(microbatches(mixed, 1, 102)) == 2
    _, alike = batch_of([(20, 4)] * 8, 24, vocab=1)
    (part,) = microbatches(alike, 1, 60)
    assert int((part.rows.segment_BT > 0).sum()) == 19 + 8 * 5


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 6)), min_size=1, max_size=12), st.integers(1, 3))
def test_packed_rows_hold_every_taught_sequence_once_with_its_numbers_beside_it(lengths, rows):
    # Prompts of one length are equal, so that some share their heads.
    pairs, batch = batch_of(lengths, 12, alike=True)
    leaves = ("behaviour_BT", "advantage_BT", "weight_BT")
    found = []
    for part in microbatches(batch, rows, 12):
        assert {x.shape for x in jax.tree.leaves(part)} == {(rows, 12)}
        tokens, answer, segment, position, behind = (np.asarray(x) for x in part.rows[:5])
        for row in range(rows):
            for number in range(1, segment[row].max() + 1):
                mine = np.flatnonzero(segment[row] == number)
                assert np.array_equal(mine, np.arange(mine[0], mine[0] + len(mine)))
                if not answer[row, mine].any():
                    continue
                head = np.flatnonzero((segment[row] == behind[row, mine[0]]) & (segment[row] != number))
                inside = np.concatenate([head, mine]).astype(int)
                assert np.array_equal(position[row, inside], np.arange(len(inside)))
                values = (tokens, answer, *(getattr(part, name) for name in leaves))
                found.append(tuple(tuple(x[row, inside].tolist()) for x in values))
            assert np.all(part.weight_BT[row, segment[row] == 0] == 0) and not answer[row, segment[row] == 0].any()
    expected = []
    for i, (prompt, answer) in enumerate(pairs):
        inside = range(len(prompt) + len(answer)) if answer else ()
        values = (*batch.rows[:2], *(getattr(batch, name) for name in leaves))
        expected += [tuple(tuple(x[i, inside].tolist()) for x in values)] if answer else []
    assert sorted(found) == sorted(expected)


def test_what_does_not_fit_is_named_and_the_shape_follows_from_the_budget():
    assert microbatch_shape(longest=512, tokens=4096, devices=1) == (8, 512)
    assert microbatch_shape(longest=1500, tokens=4096, devices=4) == (8, 1500)
    # A group of short answers stands in one row, behind its prompt; long ones do not.
    assert microbatch_shape(longest=148, tokens=4096, devices=1, group=448) == (9, 448)
    assert microbatch_shape(longest=148, tokens=1000, devices=2, group=5000) == (2, 1000)
    assert microbatch_shape(longest=1500, tokens=4096, devices=1, group=20_000) == (2, 1500)
    with pytest.raises(UserError, match="config.training.tokens: 511 is not at least 512, what a prompt"):
        microbatch_shape(512, 511, 1)
    with pytest.raises(UserError, match="sequence 1 has 9 tokens, a row holds 8"):
        first_fit([1, 4], [2, 5], [0, 1], 8)


def mixed(params, config, batch, remat="none"):
    """A loss in which every answer token has a weight of its own."""
    logp, entropy = scored(params, config, batch.rows, remat)
    return jnp.sum(batch.weight_BT * logp + batch.advantage_BT * entropy)


LENGTHS = [(3, 5), (1, 7), (6, 1), (4, 0), (2, 6), (1, 1), (2, 2)]


# By default tests/engine/test_prompt_sharing.py holds packed rows to unpacked ones, and tests/kernels/test_attention.py
# blocks to whole rows, packed ones too, each with its gradients.
@pytest.mark.slow
@pytest.mark.parametrize(("long_row", "block"), [(1024, 512), (8, 4)], ids=["whole", "in blocks"])
def test_log_probs_entropies_and_gradients_equal_those_of_unpacked_rows(long_row, block, monkeypatch):
    monkeypatch.setattr(reference, "LONG_ROW", long_row)
    monkeypatch.setattr(reference, "QUERY_BLOCK", block)
    jax.clear_caches()  # What was traced with other lengths of blocks.
    params, (_, batch) = random_params(GROUPED), batch_of(LENGTHS, 8)
    parts = microbatches(batch, rows=2, places=19)
    # Six answers, four of them behind the heads of their prompts.
    assert sum(part.rows.segment_BT.max(axis=1).sum() for part in parts) == 10 and len(parts) == 1
    gradient = jax.jit(jax.grad(mixed), static_argnums=1)
    alone, together = gradient(params, GROUPED, batch), [gradient(params, GROUPED, part) for part in parts]
    for i, expected in enumerate(jax.tree.leaves(alone)):
        found = sum(jax.tree.leaves(tree)[i] for tree in together)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))
    by_weight = {}
    for one in (batch, *parts):
        answer = np.asarray(one.rows.answer_BT)
        values = [np.asarray(x)[answer] for x in scored(params, GROUPED, one.rows)]
        for weight, *value in zip(one.weight_BT[answer].tolist(), *values, strict=True):
            by_weight.setdefault(weight, []).append(value)
    assert len(by_weight) == 22
    for first, second in by_weight.values():
        np.testing.assert_allclose(second, first, rtol=0, atol=1e-5)


def test_a_token_changes_nothing_in_other_segments():
    params, (_, batch) = random_params(GROUPED), batch_of(LENGTHS, 8)
    (part,) = microbatches(batch, rows=2, places=19)
    rows = part.rows
    before = np.asarray(scored(params, GROUPED, rows)[0])
    for row, place in zip(*np.nonzero(rows.segment_BT), strict=True):
        tokens = rows.tokens_BT.copy()
        tokens[row, place] = (tokens[row, place] + 1) % GROUPED.vocab_size
        after = np.asarray(scored(params, GROUPED, rows._replace(tokens_BT=tokens))[0])
        mine = np.zeros_like(rows.answer_BT)
        mine[row] = rows.prefix_segment_BT[row] == rows.prefix_segment_BT[row, place]
        np.testing.assert_array_equal(after[~mine], before[~mine])


DEEP = replace(GROUPED, layers=2, width=8, heads=2, kv_heads=1, head_width=4, ffn_width=64, vocab_size=16)


@pytest.mark.slow
def test_what_is_kept_of_a_layer_changes_no_gradient_and_takes_less_memory():
    params, (_, batch) = random_params(DEEP), batch_of([(8, 24)] * 8, 32, DEEP.vocab_size)
    gradient = jax.jit(jax.grad(mixed), static_argnums=(1, 3))
    plain, *others = (jax.tree.leaves(gradient(params, DEEP, batch, kept)) for kept in REMAT)
    for other in others:
        for found, expected in zip(other, plain, strict=True):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    def kept_bytes(remat):
        """Of what a forward pass of the layers leaves to the backward pass; the parameters are not counted."""

        def hidden(params):
            rows = batch.rows
            return decoder.forward_causal(params, DEEP, rows.tokens_BT, segment_BT=rows.tokens_BT, remat=remat)[0]

        pull = jax.eval_shape(lambda params: jax.vjp(hidden, params)[1], params)
        own = sum(x.nbytes for x in jax.tree.leaves(params))
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pull)) - own

    everything, products, layers = (kept_bytes(remat) for remat in REMAT)
    print(f"bytes kept: {everything}, {products}, {layers}")
    assert layers < 0.5 * products and products < 0.5 * everything
    with pytest.raises(UserError, match="remat: .all. is not one of none, products, layers"):
        scored(params, DEEP, batch.rows, "all")
