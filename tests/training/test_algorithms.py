"""Every algorithm through the train job: what is drawn, what is learnt from, what is logged, and what stops a run."""

from __future__ import annotations

import contextlib
import gc
import json
import math
import shutil
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_limit import rl
from rlvr_limit.models import decoder
from rlvr_limit.records.training_log import training_rows
from rlvr_limit.settings import OptimizerConfig
from rlvr_limit.study.prepared import Study
from rlvr_limit.study.weights import load_weights
from rlvr_limit.training import loop, rl_step
from rlvr_limit.types import UserError
from tests.support.studies import (
    ANSWERS,
    MINIBATCHES,
    PROMPTS,
    STEPS,
    algorithms_config,
    answers_of,
    from_trained_base,
    prepare_config,
)

pytestmark = pytest.mark.usefixtures("compilation_cache")

ARMS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "dr_grpo": {},
    "rloo": {},
    "reinforcepp": {"kl": 0.1},
    "remax": {},
    "ppo": {"gae_lambda": 0.95},
    "ppo_full": {"algorithm": "ppo", "critic": "full", "gae_lambda": 0.95},
    "dapo": {"clip_high": 0.3, "overlong_cache": 2},
    "pass_at_k": {"pass_k": 2},
    "grpo_kl": {"algorithm": "grpo", "kl": 0.1, "importance_cap": 2.0, "overlong": "mask"},
}


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """All arms trained in one run folder."""
    before = jax.config.jax_compilation_cache_dir
    study = prepare_config(algorithms_config(tmp_path_factory.mktemp("runs"), ARMS))
    loop.train_missing(study)
    jax.config.update("jax_compilation_cache_dir", before)
    return study


@pytest.fixture
def trained(trained_once: Study, compilation_cache: None) -> Study:
    """The same, while what it compiled can be found."""
    jax.config.update("jax_compilation_cache_dir", str((Path(trained_once.settings.runs) / ".compiled").absolute()))
    return trained_once


def weights(study: Study, name: str) -> Path:
    return study.root / "weights" / name


def refused(config: Any, rows: int = 0) -> str:
    """The one line that training stops with, after so many logged steps of the arm named "arm"."""
    study = prepare_config(config)
    with pytest.raises(UserError) as error:
        loop.train_missing(study)
    assert "\n" not in str(error.value)
    assert len(training_rows(study.root, "arm")) == rows
    return str(error.value)


@pytest.mark.parametrize("arm", ARMS)
def test_every_algorithm_trains_logs_each_step_and_begins_it_on_policy(trained: Study, arm: str) -> None:
    rows = training_rows(trained.root, arm)
    assert [row["step"] for row in rows] == [1, STEPS]
    for row in rows:
        assert all(math.isfinite(value) for value in row.values())
        assert {"reward", "length", "truncated", "entropy", "clipped", "samples", "loss", "grad_norm"} <= row.keys()
        assert abs(row["ratio"] - 1) < 1e-5 and row["max_delta_logp"] < 1e-5 and abs(row["kl_sampler"]) < 1e-6
    assert any(row["grad_norm"] > 0 for row in rows)
    facts = json.loads((trained.root / "manifest.json").read_text())["facts"]
    assert facts[f"arms.{arm}-{STEPS}.weights_sha256"] != facts["arms.base.weights_sha256"]


def test_what_only_some_algorithms_do_is_logged_by_these_alone(trained: Study) -> None:
    rows = {arm: training_rows(trained.root, arm)[0] for arm in ARMS}
    assert {arm for arm, row in rows.items() if "value_loss" in row} == {"ppo", "ppo_full"}
    assert {arm for arm, row in rows.items() if "greedy" in row} == {"remax"}
    assert {arm for arm, row in rows.items() if "kl_reference" in row} == {"reinforcepp", "grpo_kl"}
    # Before the first update the policy is its own reference.
    assert rows["grpo_kl"]["kl_reference"] == pytest.approx(0, abs=1e-6)
    assert training_rows(trained.root, "grpo_kl")[1]["kl_reference"] > 1e-6
    drawn = {arm: row["samples"] for arm, row in rows.items()}
    assert drawn["remax"] == PROMPTS * ANSWERS + PROMPTS
    for row in training_rows(trained.root, "dapo"):
        assert row["samples"] == row["rounds"] * PROMPTS * ANSWERS and row["groups"] <= PROMPTS
    assert {drawn[arm] for arm in ARMS if arm not in ("remax", "dapo")} == {PROMPTS * ANSWERS}


@pytest.mark.parametrize("arm", ["ppo", "ppo_full", "dapo", "remax", "reinforcepp"])
def test_run_that_lost_its_last_step_ends_with_bitwise_the_same_weights(
    trained: Study, tmp_path: Path, arm: str
) -> None:
    root = Path(shutil.copytree(trained.root, tmp_path / "run"))
    lost = [root / "train" / arm / "states" / str(STEPS), root / "weights" / f"{arm}-{STEPS}"]
    for folder in lost:
        shutil.rmtree(folder)
    again = replace(trained, root=root)
    loop._train(again, arm)
    assert all(folder.is_dir() for folder in lost)
    # The manifest remembers the hash of the weights and refuses others.
    load_weights(again, next(entry for entry in again.evaluated if entry.name == f"{arm}-{STEPS}"))
    assert training_rows(root, arm) == training_rows(trained.root, arm)


Caught = list[tuple[rl.PolicyBatch, rl.Objective]]


def step_of(trained: Study, arm: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Caught, dict[str, float], Any]:
    """(minibatches of an arm's first step with their objectives, its row, the base's weights); nothing is learnt."""
    recipe = trained.settings.arms[arm].rl
    start = loop.start_weights(trained, arm, recipe)
    caught: Caught = []

    def keep(policy: Any, config: Any, tx: Any, objective: Any, batches: Any, *_: Any) -> tuple[Any, dict[str, float]]:
        caught.append((jax.tree.map(np.asarray, batches[0]), objective))
        return policy, dict.fromkeys((*rl_step.FIRST, *rl_step.MEAN), 0.0)

    monkeypatch.setattr(rl, "train_step", keep)
    with contextlib.ExitStack() as stack:
        step, state, _ = loop.begin_reinforced(trained, arm, recipe, start, stack)
        return caught, step(1, state)[1], start


@pytest.mark.parametrize("arm", ["grpo", "dr_grpo", "dapo", "grpo_kl"])
def test_minibatches_hold_each_answer_once_with_its_advantage_and_weight(
    trained: Study, arm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught, row, _ = step_of(trained, arm, monkeypatch)
    assert len(caught) == MINIBATCHES
    batch = jax.tree.map(lambda *parts: np.concatenate(parts), *(part for part, _ in caught))
    answer, rows = batch.rows.answer_BT, [found for part, _ in caught for found in answers_of(trained, part)]
    by_prompt: dict[tuple, list[int]] = {}
    for i, (prompt, *_) in enumerate(rows):
        by_prompt.setdefault(prompt, []).append(i)
    assert len(by_prompt) == PROMPTS and {len(places) for places in by_prompt.values()} == {ANSWERS}
    reward, cut = np.array([r for _, r, _ in rows]), np.array([c for *_, c in rows])
    learnt = np.ones(len(rows), bool)
    shaped = reward.copy()
    if arm == "dapo":
        most, cache = trained.settings.sampling.max_tokens, 2
        length = answer.sum(axis=1)
        shaped += np.where(cut, -1, np.minimum(0, (most - cache - length) / cache).clip(-1))
    for places in by_prompt.values():
        group = shaped[places]
        expected = group - group.mean() if np.ptp(group) else 0 * group
        if arm != "dr_grpo":
            expected = expected / (group.std(ddof=1) + 1e-6)
        found = np.array([batch.advantage_BT[i][answer[i]] for i in places], object)
        for mine, one in zip(found, expected, strict=True):
            np.testing.assert_allclose(mine.astype(float), one, rtol=1e-5, atol=1e-6)
        if arm == "dapo":
            learnt[places] = np.ptp(reward[places]) > 0
    if arm == "grpo_kl":
        learnt &= ~cut
        assert cut.any() and batch.reference_BT is not None and batch.proximal_BT is not None
    assert arm != "dapo" or row["groups"] == learnt.sum() / ANSWERS > 0
    np.testing.assert_array_equal(batch.weight_BT > 0, answer & learnt[:, None])
    for part, objective in caught:
        kept = (part.weight_BT > 0).any(axis=1)
        tokens = part.rows.answer_BT.sum(axis=1)
        total = part.weight_BT.sum(axis=1)
        if arm == "dapo":
            np.testing.assert_allclose(total[kept], tokens[kept] / tokens[kept].sum(), rtol=1e-5)
            assert objective.clip_high == 0.3
        elif arm == "dr_grpo":
            np.testing.assert_allclose(total, tokens / trained.settings.sampling.max_tokens / len(tokens), rtol=1e-5)
        else:
            np.testing.assert_allclose(total[kept], 1 / kept.sum(), rtol=1e-5)


def test_remax_holds_answers_against_what_the_likeliest_tokens_earn(
    trained: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    caught, row, start = step_of(trained, "remax", monkeypatch)
    setup, config = trained.setups["base"], trained.setups["base"].model
    by_prompt = {p.prompt_ids: p for p in trained.setups["base"].training}
    likeliest = jax.jit(
        lambda tokens: jnp.argmax(decoder.logits(start, decoder.forward_causal(start, config, tokens)[0]), axis=-1)
    )
    earned: dict[tuple[int, ...], float] = {}
    for batch, _ in caught:
        for (prompt, reward, _), advantage, answer in zip(
            answers_of(trained, batch), batch.advantage_BT, batch.rows.answer_BT, strict=True
        ):
            if prompt not in earned:
                tokens = np.zeros((1, trained.row_places(trained.settings.arms["remax"].rl)), np.int32)
                tokens[0, : len(prompt)] = prompt
                for place in range(len(prompt), len(prompt) + trained.settings.sampling.max_tokens):
                    tokens[0, place] = int(likeliest(tokens)[0, place - 1])
                    if tokens[0, place] in setup.stop_tokens:
                        break
                text = setup.tokenizer.decode(tuple(tokens[0, len(prompt) : place + 1].tolist()))
                earned[prompt] = float(trained.task.grade(by_prompt[prompt], text).correct)
            np.testing.assert_allclose(advantage[answer], reward - earned[prompt], atol=1e-6)
    assert row["greedy"] == pytest.approx(np.mean(list(earned.values())))


def test_ppo_moves_its_value_head_towards_the_returns(trained: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    caught, _, start = step_of(trained, "ppo", monkeypatch)
    config, tx, objective = trained.setups["ppo"].model, rl.optimizer(OptimizerConfig(0.01, 0), 60), caught[0][1]
    batch = caught[0][0].replace(return_BT=np.where(caught[0][0].rows.answer_BT, 0.7, 0.0).astype(np.float32))
    free = replace(objective, value_clip=0.0)
    assert np.all(batch.value_BT == 0) and batch.return_BT.any()
    value, seen = rl.init_value(config, start, tx), []
    for _ in range(60):
        value, loss = rl.value_update(value, start, config, tx, free, [batch])
        seen.append(float(loss))
    assert seen[0] == pytest.approx(0.5 * 0.7**2, rel=1e-5) and seen[-1] < 0.1 * seen[0]
    found = np.asarray(rl.answer_values(start, value.head, config, batch.rows))
    answer = batch.rows.answer_BT
    assert np.all(found[~answer] == 0) and abs(found[answer].mean() - 0.7) < 0.2
    # A state's value must not see the token that is about to be drawn in it, nor any later one: these go in behind it.
    row, place = 0, 1
    tokens = np.array(batch.rows.tokens_BT)
    tokens[row, place + 1 :] = (tokens[row, place + 1 :] + 1) % config.vocab_size
    again = np.asarray(rl.answer_values(start, value.head, config, batch.rows._replace(tokens_BT=tokens)))
    np.testing.assert_array_equal(again[row, : place + 1], found[row, : place + 1])
    assert answer[row].sum() < 3 or np.any(again[row, place + 1 :] != found[row, place + 1 :])


@pytest.mark.parametrize("arm", ["grpo", "grpo_kl"])
def test_weights_of_the_start_are_held_only_as_the_reference(trained: Study, arm: str) -> None:
    recipe = trained.settings.arms[arm].rl
    start = loop.start_weights(trained, arm, recipe)
    watched = [weakref.ref(x) for x in jax.tree.leaves(start)]
    begun = loop.begin_reinforced(trained, arm, recipe, start, contextlib.ExitStack())
    del start
    gc.collect()
    assert {ref() is not None for ref in watched} == {arm == "grpo_kl"}
    assert begun


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        ("raises", "raised KeyError: 'no such\\nanswer'"),
        ("not_a_number", f"the reward of answer {ANSWERS - 1}: nan is not a finite number"),
        ("too_few", f"returned {ANSWERS - 1} rewards for {ANSWERS} answers"),
        ("text", "the reward of answer 0: '1.0' is not a finite number"),
    ],
)
def test_a_reward_function_that_goes_wrong_is_named_with_the_problem(trained: Study, reward: str, words: str) -> None:
    line = refused(from_trained_base(trained, f"tests.support.reward_functions:{reward}"))
    ids = {p.id for p in trained.setups["base"].training}
    assert words in line and line.startswith("config.arms.arm.rl.reward: problem ")
    assert line.split("problem ")[1].split(":")[0] in ids


def test_a_reward_of_ones_own_is_what_is_learnt_from_and_part_of_the_conditions(trained: Study) -> None:
    study = prepare_config(from_trained_base(trained, "tests.support.reward_functions:words", steps=1, save_at=(1,)))
    loop.train_missing(study)
    (row,) = training_rows(study.root, "arm")
    assert row["reward"] == pytest.approx(row["length"], abs=1.0) and row["mixed_groups"] > 0.9
    conditions = json.loads((study.root / "manifest.json").read_text())["conditions"]
    assert len(conditions["rewards"]["arm"]) == 8


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"task.train_problems": 0}, "config.arms.arm.rl.prompts: 4 is not at most 0, the number of"),
        ({"task.train_problems": 3}, "config.arms.arm.rl.prompts: 4 is not at most 3, the number of"),
        ({"engine.max_prompt_len": 3}, "its prompt: 5 is not at most config.engine.max_prompt_len = 3"),
    ],
)
def test_too_few_problems_and_too_long_prompts_are_refused_before_anything_is_drawn(
    trained: Study, fields: dict[str, Any], named: str
) -> None:
    config = from_trained_base(trained)
    config.update_from_flattened_dict(fields)
    assert named in refused(config)


def test_no_demonstrations_without_training_problems(tmp_path: Path) -> None:
    config = algorithms_config(tmp_path, {})
    config.task.train_problems = 0
    config.arms.other = {"label": "x", "group": "rl", "weights": "nowhere"}
    assert "arm base: there is neither a training problem" in refused(config)


def test_groups_that_never_differ_stop_dynamic_sampling(trained: Study) -> None:
    line = refused(from_trained_base(trained, "tests.support.reward_functions:always_one", rounds=3))
    assert "config.arms.arm.rl.rounds: step 1 drew 12 prompts in 3 rounds" in line


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"entropy": (50.0, 60.0)}, "outside rl.limits.entropy = 50 to 60"),
        ({"length": (0.0, 0.5)}, "outside rl.limits.length = 0 to 0.5"),
        ({"reward": (2.0, 3.0)}, "outside rl.limits.reward = 2 to 3"),
    ],
)
def test_collapse_stops_a_run_in_one_line(trained: Study, limits: dict[str, Any], words: str) -> None:
    line = refused(from_trained_base(trained, limits=limits), rows=1)
    assert line.startswith("arm arm, step 1: ") and words in line and "no state was kept yet" in line


def test_loss_that_is_no_number_stops_a_run_and_the_last_good_state_is_kept(
    trained: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = from_trained_base(trained, steps=3, save_at=(1, 3))
    real, calls = rl.train_step, []

    def spoilt(*args: Any) -> tuple[Any, dict[str, Any]]:
        state, found = real(*args)
        calls.append(0)
        return state, found | {"loss": jnp.nan if len(calls) > MINIBATCHES else found["loss"]}

    monkeypatch.setattr(rl, "train_step", spoilt)
    line = refused(config, rows=2)
    root = prepare_config(config).root
    assert line == f"arm arm, step 2: loss is nan; the state after step 1 is kept in {root / 'train/arm/states'}"
    assert [path.name for path in (root / "train" / "arm" / "states").iterdir() if path.name.isdigit()] == ["1"]
    assert not (root / "weights" / "arm-3").exists()
    monkeypatch.undo()
    loop.train_missing(prepare_config(config))
    assert [row["step"] for row in training_rows(root, "arm")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"algorithm": "grpo2"}, "algorithm: 'grpo2' is not one of grpo, dr_grpo"),
        ({"answers": 1}, "answers: 1 is not at least 2: grpo compares answers"),
        ({"answers": 1, "algorithm": "reinforcepp", "rounds": 2}, "answers: 1 is not at least 2: groups"),
        ({"clip": 1.0}, "clip: 1.0 is not in [0, 1)"),
        ({"clip_high": -0.1}, "clip_high: -0.1 is not at least 0"),
        ({"kl": -1.0}, "kl: -1.0 is not at least 0"),
        ({"overlong": "drop"}, "overlong: 'drop' is not one of '', keep, shape, mask"),
        ({"overlong_cache": 2}, "overlong_cache: 2 is not 0, as overlong is not 'shape'"),
        ({"overlong": "shape", "overlong_cache": 9}, "overlong_cache: 9 is not in [0, max_tokens = 8]"),
        (
            {"overlong": "shape", "overlong_cache": 4, "max_tokens": 3},
            "overlong_cache: 4 is not in [0, max_tokens = 3]",
        ),
        ({"algorithm": "pass_at_k"}, "pass_k: 0 is not in [1, answers = 8]"),
        ({"pass_k": 2}, "pass_k: 2 is not 0, as grpo does not use it"),
        (
            {"algorithm": "pass_at_k", "pass_k": 2, "overlong": "shape"},
            "overlong: 'shape' is not pass_at_k's",
        ),
        ({"value_optimizer": {"learning_rate": 0.1}}, "value_optimizer: grpo has no value head"),
        ({"algorithm": "ppo", "value_optimizer": None}, "value_optimizer: ppo needs one"),
        ({"critic": "full"}, "critic: 'full' is not 'probe': grpo has no critic"),
        ({"algorithm": "ppo", "critic": "full", "lora_rank": 2}, "critic: 'full' is not 'probe', as adapters"),
        ({"gae_lambda": 1.5}, "gae_lambda: 1.5 is not in [0, 1]"),
        ({"limits": {"entropy": (1.0,)}}, "limits.entropy: (1.0,) is not (least, most) or ()"),
        ({"reward": "nothing"}, "reward: 'nothing' is not verdict, random"),
        ({"reward": "tests.nowhere:f"}, "reward: tests.nowhere cannot be imported"),
        ({"reward": "tests.support.smoke:f"}, "reward: tests.support.smoke has no function 'f'"),
        ({"save_at": (0, 1)}, "save_at[0]: 0 is not at least 1"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError) as error:
        prepare_config(algorithms_config(tmp_path, {"arm": {"algorithm": "grpo", **changes}}))
    assert f"config.arms.arm.rl.{named}" in str(error.value)
    assert "\n" not in str(error.value)
