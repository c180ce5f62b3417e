"""PPO with a full critic through the train job: what it predicts and learns from, and that it learns."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_limit import rl
from rlvr_limit.models import decoder
from rlvr_limit.records.training_log import training_rows
from rlvr_limit.study.prepared import Study
from rlvr_limit.training import loop, rl_step
from tests.support.studies import (
    ANSWERS,
    MINIBATCHES,
    PROMPTS,
    algorithms_config,
    answers_of,
    from_trained_base,
    prepare_config,
)

pytestmark = pytest.mark.usefixtures("compilation_cache")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A trained base in a run folder, and an arm that PPO would train with a critic."""
    before = jax.config.jax_compilation_cache_dir
    arms = {"ppo_full": {"algorithm": "ppo", "critic": "full", "gae_lambda": 0.95}}
    study = prepare_config(algorithms_config(tmp_path_factory.mktemp("runs"), arms))
    loop.start_weights(study, "ppo_full", study.settings.arms["ppo_full"].rl)
    jax.config.update("jax_compilation_cache_dir", before)
    return study


@pytest.mark.slow
def test_the_critic_predicts_by_features_of_its_own_and_its_values_make_advantages_and_returns(
    trained: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step with a critic whose decoder is not the policy's, against the decoder and GAE written out."""
    recipe, setup = trained.settings.arms["ppo_full"].rl, trained.setups["base"]
    start, rng = loop.start_weights(trained, "ppo_full", recipe), np.random.default_rng(0)
    caught: dict[bool, list[rl.PolicyBatch]] = {True: [], False: []}

    def keep(state: Any, config: Any, tx: Any, objective: Any, batches: Any, *_: Any) -> tuple[Any, dict[str, float]]:
        caught[rl.HEAD in state.params] += [jax.tree.map(np.asarray, batch) for batch in batches]
        return state, dict.fromkeys((*rl_step.FIRST, *rl_step.MEAN), 0.5)

    monkeypatch.setattr(rl, "train_step", keep)
    with contextlib.ExitStack() as stack:
        step, state, _ = loop.begin_reinforced(trained, "ppo_full", recipe, start, stack)
        other = decoder.init_params(setup.model, jax.random.key(1))
        head = {"weight_D": jnp.asarray(rng.normal(size=setup.model.width), jnp.float32), "bias": jnp.float32(0.1)}
        critic = state.value.replace(params=rl.critic_params(setup.model, other) | {rl.HEAD: head})
        _, row = step(1, state.replace(value=critic))
    assert row["value_loss"] == 0.5 and len(caught[True]) == len(caught[False]) == MINIBATCHES
    tokens_seen, advantages, expected = 0, [], []
    for mine, policys in zip(caught[True], caught[False], strict=True):
        for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(policys), strict=True):
            np.testing.assert_array_equal(a, b)
        asked = answers_of(trained, mine)
        for i, (prompt, reward, _) in enumerate(asked):
            answer = mine.rows.answer_BT[i]
            tokens = np.array([*prompt, *mine.rows.targets_BT[i][answer]], np.int32)
            hidden = np.asarray(decoder.forward_causal(other, setup.model, tokens[None])[0][0], np.float64)
            value = (hidden @ np.asarray(head["weight_D"], np.float64) + 0.1)[len(prompt) - 1 : -1]
            np.testing.assert_allclose(mine.value_BT[i][answer], value, rtol=1e-4, atol=1e-4)
            # A_t = sum_l lambda^l (r_{t+l} + V_{t+l+1} - V_{t+l}), undiscounted; the reward comes with the last token.
            delta = np.append(value[1:], reward) - value
            gae = [sum(0.95 ** (u - t) * delta[u] for u in range(t, len(value))) for t in range(len(value))]
            np.testing.assert_allclose(mine.return_BT[i][answer], gae + value, rtol=1e-4, atol=1e-4)
            advantages += mine.advantage_BT[i][answer].tolist()
            expected += gae
            tokens_seen += len(value)
    expected = np.array(expected)
    np.testing.assert_allclose(advantages, (expected - expected.mean()) / expected.std(), rtol=1e-3, atol=1e-3)
    assert tokens_seen > PROMPTS * ANSWERS


@pytest.mark.slow
def test_ppo_learns_countdown_and_its_full_critic_knows_more_than_a_probe_of_the_policy(trained: Study) -> None:
    """60 steps on Countdown: the reward rises, and the critic errs by a quarter less than the mean reward would."""
    more = {"algorithm": "ppo", "steps": 60, "save_at": (60,), "prompts": 16, "answers": 16}
    more["value_optimizer"] = {"learning_rate": 0.01, "warmup": 0}
    errors = {}
    for critic in ("full", "probe"):
        study = prepare_config(from_trained_base(trained, critic=critic, **more))
        loop.train_missing(study)
        rows = training_rows(study.root, "arm")
        first, last = (float(np.mean([row["reward"] for row in part])) for part in (rows[:5], rows[-5:]))
        errors[critic], of_mean = np.mean([row["value_loss"] for row in rows[-5:]]), 0.5 * last * (1 - last)
        print(f"{critic}: reward {first:.3f} to {last:.3f}, value loss {errors[critic]:.4f}, of the mean {of_mean:.4f}")
        assert last > first + 0.1
        assert critic == "probe" or errors["full"] < 0.75 * of_mean
    assert errors["full"] < errors["probe"]
