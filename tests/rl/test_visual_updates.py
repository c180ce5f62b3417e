"""Answers to prompts with images in one update: packed rows, shared prompts and rows alone give one gradient."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_limit import rl
from rlvr_limit.models import log_probs
from rlvr_limit.models.image_layout import with_images
from rlvr_limit.settings import OptimizerConfig
from tests.support.visual_models import seeing_model, seen_pairs

NAME = "qwen25vl-untied"
MODEL = seeing_model(NAME)[0]
PLACES = 96


def whole() -> tuple[rl.PolicyBatch, list]:
    rows, shown = log_probs.seen_answer_rows(seen_pairs(), PLACES, MODEL.vision)
    rng = np.random.default_rng(0)
    numbers = [np.where(rows.answer_BT, rng.normal(size=rows.answer_BT.shape), 0).astype(np.float32) for _ in range(3)]
    return rl.PolicyBatch(rows, *numbers), shown


def filled(batches: list[rl.PolicyBatch], shown: list) -> list[rl.PolicyBatch]:
    seen = with_images([batch.rows.seen for batch in batches], shown, MODEL.vision)
    return [batch.replace(rows=batch.rows._replace(seen=mine)) for batch, mine in zip(batches, seen, strict=True)]


def loss(params: dict, batch: rl.PolicyBatch) -> jax.Array:
    """A sum in which every answer token has a weight of its own."""
    logp, entropy = log_probs.answer_log_probs(params, MODEL, batch.rows)
    return jnp.sum(batch.weight_BT * logp + batch.advantage_BT * entropy)


@pytest.mark.slow
def test_gradients_of_packed_rows_and_shared_prompts_equal_those_of_rows_alone() -> None:
    _, params = seeing_model(NAME)
    batch, shown = whole()
    assert len(shown) == 3
    gradient = jax.jit(jax.value_and_grad(loss))
    expected = gradient(params, filled([batch], shown)[0])
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(expected[1]["vision"]))
    packed = filled(rl.microbatches(batch, 1, PLACES), shown)
    assert len(packed) > 1 and len({part.rows.seen.images.patches_INC.shape for part in packed}) == 1
    cuts = {"packed": packed, "shared": filled([rl.prefix_batch(batch, PLACES - 8, 8)], shown)}
    for cut, parts in cuts.items():
        sums = [gradient(params, part) for part in parts]
        found = jax.tree.map(lambda *x: sum(x), *sums)
        for mine, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            error = np.linalg.norm(mine - other) / np.linalg.norm(other)
            assert error <= 1e-3, (cut, mine.shape, error)


def test_a_prompt_with_another_image_is_another_prompt() -> None:
    batch, _ = whole()
    prompt_B = rl.packing.sequence_bounds(batch).prompt_B
    assert prompt_B.tolist() == [0, 1, 0, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("trains_vision", [True, False])
def test_an_update_moves_the_tower_or_leaves_every_bit_of_it(trains_vision: bool) -> None:
    _, params = seeing_model(NAME)
    tx = rl.optimizer(OptimizerConfig(1e-2, warmup=1, weight_decay=0.1), 10, trains_vision)
    rows, shown = log_probs.seen_answer_rows(seen_pairs(), PLACES, MODEL.vision)
    batch = rl.supervised_batch(rows)
    compute, state = rl.Compute(trains_vision=trains_vision), rl.init_state(params, tx)
    losses = []
    for _ in range(3):
        state, metrics = rl.train_step(state, MODEL, tx, None, filled([batch], shown), compute)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]
    towers = (jax.tree.leaves(tree["vision"]) for tree in (state.params, params))
    same = [np.array_equal(x, y) for x, y in zip(*towers, strict=True)]
    assert not any(same) if trains_vision else all(same)
    assert not np.array_equal(state.params["layers"][0]["q"], params["layers"][0]["q"])
