"""Rows whose ratio is not a token's, and one taught by another arm, through the train job."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from rlvr_limit import rl
from rlvr_limit.models import log_probs
from rlvr_limit.records.training_log import training_rows
from rlvr_limit.study.prepared import Study
from rlvr_limit.study.weights import load_weights
from rlvr_limit.training import loop
from tests.support.studies import ANSWERS, PROMPTS, STEPS, algorithms_config, prepare_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compilation_cache")]

# Of a coin toss, as a base of two steps is never right.
ARMS = {"gspo": {"reward": "random"}, "cispo": {"reward": "random"}, "distill": {"teacher": "gspo"}}


@pytest.fixture(scope="module")
def caught() -> list[tuple[rl.PolicyBatch, rl.Objective]]:
    """What the optimizer steps of reinforcement were given, in order, once the fixture below was made."""
    return []


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, caught: list) -> Study:
    config = algorithms_config(tmp_path_factory.mktemp("runs"), ARMS)
    config.arms.base.pretrain.update({"steps": 2})
    study, real = prepare_config(config), rl.train_step

    def keep(*args):
        if args[3]:
            caught.append((jax.tree.map(np.asarray, args[4][0]), args[3]))
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rl, "train_step", keep)
        loop.train_missing(study)
    return study


@pytest.mark.parametrize("arm", ARMS)
def test_it_trains_and_begins_each_step_on_policy(trained: Study, arm: str) -> None:
    rows = training_rows(trained.root, arm)
    assert [row["step"] for row in rows] == [1, STEPS] and any(row["grad_norm"] > 0 for row in rows)
    for row in rows:
        assert np.isfinite(list(row.values())).all() and abs(row["ratio"] - 1) < 1e-5
        assert ("kl_reference" in row) == (arm == "distill")
        assert row["samples"] == row["rounds"] * PROMPTS * ANSWERS and (arm == "cispo" or row["rounds"] == 1)
    # Its clips are a thousandth of the others', so that one update leaves them.
    assert arm != "gspo" or max(row["clipped"] for row in rows) > 0


def test_a_pupil_is_taught_what_its_teacher_thinks_of_each_token_it_drew(trained: Study, caught: list) -> None:
    setup, pupil = trained.setups["distill"], trained.settings.arms["distill"].rl
    teacher = load_weights(trained, trained.named(f"gspo-{STEPS}"))
    seen = [batch for batch, objective in caught if objective.ratio == "token"]
    assert len(seen) == STEPS * pupil.minibatches
    apart = []
    for batch in seen:
        rows, pairs = batch.rows, []
        for i, of in enumerate(rows.prefix_index_B):
            prompt = (*rows.prefix_PS[of, : rows.length_P[of]].tolist(), int(rows.tokens_BT[i, 0]))
            pairs.append((prompt, tuple(rows.targets_BT[i][rows.answer_BT[i]].tolist())))
        wide = log_probs.answer_rows(pairs, trained.row_places(pupil))
        theirs = np.asarray(log_probs.answer_log_probs(teacher, setup.model, wide)[0])
        expected = np.concatenate([theirs[i][wide.answer_BT[i]] for i in range(len(pairs))])
        taught, drawn = batch.advantage_BT[rows.answer_BT], batch.behaviour_BT[rows.answer_BT]
        np.testing.assert_allclose(taught, expected - drawn, rtol=1e-4, atol=1e-5)
        apart += (drawn - expected).tolist()
    assert np.abs(apart).max() > 1e-3


def test_objectives_are_the_rows(trained: Study, caught: list) -> None:
    clips = {objective.ratio: (objective.clip_low, objective.clip_high) for _, objective in caught}
    assert clips == {"sequence": (3e-4, 4e-4), "weight": (1.0, 3.0), "token": (0.2, 0.2)}
