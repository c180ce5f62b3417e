"""Trains the arms that are recipes. A killed run goes on from its last state to the same parameters."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rlvr_limit import checkpoint, likelihood, records, rl
from rlvr_limit.engine import Engine
from rlvr_limit.jobs.experiment import Evaluated, Experiment, Reinforced, Supervised
from rlvr_limit.jobs.prepare import prepare
from rlvr_limit.jobs.progress import Progress
from rlvr_limit.likelihood import Rows
from rlvr_limit.mesh import parameter_shardings, rows_sharding
from rlvr_limit.model import Params, init_params, parameter_specs
from rlvr_limit.rollout import Graded, rollout
from rlvr_limit.types import Problem, SamplingParams

Step = Callable[[int, rl.TrainState], tuple[rl.TrainState, dict[str, float]]]


def run(config: ConfigDict) -> None:
    """The train job: every arm's weights are in the run folder when it returns."""
    train_missing(prepare(config))


def train_missing(experiment: Experiment) -> None:
    """Trains each arm whose weights are neither given nor there, those that others start from first."""
    for entry in experiment.evaluated:
        if _is_given(experiment, entry):
            continue
        if not experiment.weights(entry).is_dir():
            _train(experiment, entry.arm)
        load(experiment, entry)


def load(experiment: Experiment, entry: Evaluated) -> Params:
    """The weights of an arm; their hash is noted in the manifest, which refuses others under the same name."""
    arm, setup = experiment.settings.arms[entry.arm], experiment.setups[entry.arm]
    if setup.folder:
        folder = checkpoint.resolve(arm.weights, arm.revision, with_weights=True)
        params = checkpoint.load_hf(folder, setup.model, experiment.mesh)
    else:
        folder = Path(arm.weights) if arm.weights else experiment.weights(entry)
        params = checkpoint.load_params(folder, setup.model, experiment.mesh)
    digest = checkpoint.weights_sha256(params)
    records.update_manifest(experiment.root, f"arms.{entry.name}.weights_sha256", digest)
    return params


def training_rows(root: Path, arm: str) -> list[dict[str, Any]]:
    """The metrics of an arm's training run, one row a step; empty where there was none."""
    path = root / "train" / arm / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _is_given(experiment: Experiment, entry: Evaluated) -> bool:
    return bool(experiment.settings.arms[entry.arm].weights)


def _train(experiment: Experiment, arm: str) -> None:
    recipe = experiment.settings.arms[arm].recipe
    start = _start(experiment, arm, recipe.start)
    if isinstance(recipe, Reinforced):
        tx = rl.optimizer(recipe.optimizer, recipe.steps * recipe.minibatches)
        step = _reinforced_step(experiment, arm, recipe, tx, start)
        save = {at: f"{arm}-{at}" for at in recipe.save_at}
    else:
        tx = rl.optimizer(recipe.optimizer, recipe.steps)
        step = _supervised_step(experiment, arm, recipe, tx)
        save = {recipe.steps: arm}
    _run_steps(experiment, arm, recipe.steps, step, rl.init_state(start, tx), save)


def _start(experiment: Experiment, arm: str, name: str) -> Params:
    if not name:
        model = experiment.setups[arm].model
        params = init_params(model, jax.random.key(experiment.settings.seed))
        return jax.device_put(params, parameter_shardings(parameter_specs(model), experiment.mesh))
    entry = next(e for e in experiment.evaluated if e.arm == name)
    if not _is_given(experiment, entry) and not experiment.weights(entry).is_dir():
        _train(experiment, name)
    return load(experiment, entry)


def _run_steps(
    experiment: Experiment, arm: str, steps: int, step: Step, state: rl.TrainState, save: dict[int, str]
) -> None:
    """Runs steps from the last kept state on, keeps a state every checkpoint_seconds, and exports weights."""
    folder = experiment.root / "train" / arm
    states = checkpoint.TrainStates(folder / "states")
    done, state = states.restore(state)
    kept = [row for row in training_rows(experiment.root, arm) if row["step"] <= done]
    _rewrite(folder / "metrics.jsonl", kept)
    saved = time.monotonic()
    with Progress(experiment.root, f"train {arm}", steps, "steps", done) as progress:
        with (folder / "metrics.jsonl").open("a") as metrics:
            for number in range(done + 1, steps + 1):
                state, row = step(number, state)
                metrics.write(json.dumps({"step": number, **row}) + "\n")
                metrics.flush()
                progress.update(number, **{k: v for k, v in row.items() if k in ("loss", "reward", "entropy")})
                target = experiment.root / "weights" / save[number] if number in save else None
                if target is not None and not target.is_dir():
                    checkpoint.save_params(target, state.params)
                if target is not None or time.monotonic() - saved > experiment.settings.checkpoint_seconds:
                    states.save(number, state)
                    saved = time.monotonic()
    states.close()


def _rewrite(path: Path, rows: list[dict[str, Any]]) -> None:
    """Drops the rows of steps that are about to be run again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.replace(fresh, path)


def _supervised_step(experiment: Experiment, arm: str, recipe: Supervised, tx: Any) -> Step:
    task, model = experiment.task, experiment.setups[arm].model

    def step(number: int, state: rl.TrainState) -> tuple[rl.TrainState, dict[str, float]]:
        rng = random.Random(f"{experiment.settings.seed}/{arm}/{number}")
        stream = task.demonstrate(task.training, recipe.right, rng)
        rows = likelihood.to_rows([next(stream) for _ in range(recipe.batch)], experiment.row_places)
        rows = jax.device_put(rows, rows_sharding(experiment.mesh))
        state, metrics = rl.supervised_update(state, model, tx, rows)
        return state, _floats(metrics)

    return step


def _reinforced_step(experiment: Experiment, arm: str, recipe: Reinforced, tx: Any, start: Params) -> Step:
    s, task, setup = experiment.settings, experiment.task, experiment.setups[arm]
    engine = Engine(start, setup.model, experiment.engine, s.sampling.max_tokens)

    def sampling(problem: Problem) -> SamplingParams:
        # Rollouts are drawn from the policy itself (no truncation), whatever the evaluation samples at.
        return replace(experiment.sampling_params(setup, problem), temperature=1.0, top_p=1.0, top_k=0, min_p=0.0)

    def step(number: int, state: rl.TrainState) -> tuple[rl.TrainState, dict[str, float]]:
        rng = random.Random(f"{s.seed}/{arm}/{number}")
        chosen = rng.sample(task.training, recipe.prompts)
        engine.load(state.params)
        stream = f"train/{arm}/{number}"
        asked = ((problem, range(recipe.answers)) for problem in chosen)
        drawn = rollout(engine, asked, sampling, s.seed, stream, setup.tokenizer.decode, task.grade)
        found = {(g.sample.problem_id, g.sample.index): g for g in drawn}
        graded = [found[problem.id, i] for problem in chosen for i in range(recipe.answers)]
        batch, row = _policy_batch(experiment, recipe, {p.id: p.prompt_ids for p in chosen}, graded)
        order = np.random.default_rng(number).permutation(len(graded))
        metrics = []
        for part in np.split(order, recipe.minibatches):
            minibatch = jax.tree.map(lambda x, part=part: x[part], batch)
            minibatch = jax.device_put(minibatch, rows_sharding(experiment.mesh))
            state, found_now = rl.policy_update(state, setup.model, tx, recipe.clip, minibatch)
            metrics.append(_floats(found_now))
        # The first minibatch is the only one whose log-probs should still be the sampler's own.
        for name in ("kl_sampler", "max_delta_logp", "entropy"):
            row[name] = metrics[0][name]
        for name in ("loss", "grad_norm", "clipped"):
            row[name] = float(np.mean([m[name] for m in metrics]))
        return state, row

    return step


def _policy_batch(
    experiment: Experiment, recipe: Reinforced, prompts: dict[str, tuple[int, ...]], graded: list[Graded]
) -> tuple[rl.PolicyBatch, dict[str, float]]:
    """A rollout as arrays, and what is worth watching of it."""
    samples = [g.sample for g in graded]
    reward_PG = np.array([g.verdict.correct for g in graded], np.float32).reshape(-1, recipe.answers)
    advantage = np.asarray(rl.grpo_advantages(jnp.asarray(reward_PG))).reshape(-1)
    rows = likelihood.to_rows([(prompts[s.problem_id], s.tokens) for s in samples], experiment.row_places)
    behaviour = np.zeros(rows.tokens_BT.shape, np.float32)
    behaviour[rows.answer_BT] = np.concatenate([s.logp_model for s in samples])
    row = {
        "reward": float(reward_PG.mean()),
        "mixed_groups": float(np.mean(reward_PG.std(axis=1) > 0)),
        "length": float(np.mean([len(s.tokens) for s in samples])),
        "truncated": float(np.mean([s.stop == "length" for s in samples])),
    }
    return rl.PolicyBatch(Rows(*rows), behaviour, advantage), row


def _floats(metrics: dict[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
