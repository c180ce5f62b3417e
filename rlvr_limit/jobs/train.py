"""Trains the arms that are recipes. A killed run goes on from its last state to the same parameters."""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import time
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from rlvr_limit import checkpoint, likelihood, records, rl
from rlvr_limit.jobs import reinforce
from rlvr_limit.jobs.experiment import Evaluated, Experiment
from rlvr_limit.jobs.prepare import prepare
from rlvr_limit.jobs.progress import Progress
from rlvr_limit.jobs.recipes import Limits, Reinforced, Supervised
from rlvr_limit.jobs.reinforce import State, Step
from rlvr_limit.mesh import parameter_shardings, rows_sharding
from rlvr_limit.model import Params, init_params, parameter_specs
from rlvr_limit.types import UserError


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
    saved = recipe.save_at if isinstance(recipe, Reinforced) else (recipe.steps,)
    save = {at: f"{arm}-{at}" if isinstance(recipe, Reinforced) else arm for at in saved}
    _run_steps(experiment, arm, recipe, save)


def _begin(experiment: Experiment, arm: str, recipe: Supervised | Reinforced) -> tuple[Step, State]:
    """The step of a run and the state it begins from; the weights it starts from are let go of here."""
    start = _start(experiment, arm, recipe.start)
    if isinstance(recipe, Reinforced):
        return reinforce.begin(experiment, arm, recipe, start)
    tx = rl.optimizer(recipe.optimizer, recipe.steps)
    return _supervised_step(experiment, arm, recipe, tx), rl.init_state(start, tx)


def _start(experiment: Experiment, arm: str, name: str) -> Params:
    if not name:
        model = experiment.setups[arm].model
        params = init_params(model, jax.random.key(experiment.settings.seed))
        return jax.device_put(params, parameter_shardings(parameter_specs(model), experiment.mesh))
    entry = next(e for e in experiment.evaluated if e.arm == name)
    if not _is_given(experiment, entry) and not experiment.weights(entry).is_dir():
        _train(experiment, name)
    return load(experiment, entry)


def _run_steps(experiment: Experiment, arm: str, recipe: Supervised | Reinforced, save: dict[int, str]) -> None:
    """Runs steps from the last kept state on, keeps a state every checkpoint_seconds, and exports weights.

    Raises UserError, one line, where training went wrong; the last good state stays.
    """
    step, state = _begin(experiment, arm, recipe)
    folder = experiment.root / "train" / arm
    with contextlib.closing(checkpoint.TrainStates(folder / "states")) as states:
        done, state = states.restore(state)
        _rewrite(folder / "metrics.jsonl", [r for r in training_rows(experiment.root, arm) if r["step"] <= done])
        kept, saved = done, time.monotonic()
        with (
            Progress(experiment.root, f"train {arm}", recipe.steps, "steps", done) as progress,
            (folder / "metrics.jsonl").open("a") as metrics,
        ):
            for number in range(done + 1, recipe.steps + 1):
                state, row = step(number, state)
                metrics.write(json.dumps({"step": number, **row}) + "\n")
                metrics.flush()
                trouble = _trouble(recipe, row)
                if trouble:
                    raise UserError(f"arm {arm}, step {number}: {trouble}; {_kept(folder, kept)}")
                progress.update(number, **{k: v for k, v in row.items() if k in ("loss", "reward", "entropy")})
                target = experiment.root / "weights" / save[number] if number in save else None
                if target is not None and not target.is_dir():
                    checkpoint.save_params(target, state.params)
                if target is not None or time.monotonic() - saved > experiment.settings.checkpoint_seconds:
                    states.save(number, state)
                    kept, saved = number, time.monotonic()


def _trouble(recipe: Supervised | Reinforced, row: dict[str, float]) -> str:
    """What makes it useless to go on: a loss or gradient that is no number, or a collapsed policy; "" if nothing."""
    for name in ("loss", "grad_norm"):
        if not math.isfinite(row[name]):
            return f"{name} is {row[name]}"
    limits = recipe.limits if isinstance(recipe, Reinforced) else Limits()
    for name in ("entropy", "length", "reward"):
        limit = getattr(limits, name)
        if limit and not limit[0] <= row[name] <= limit[1]:
            return f"{name} is {row[name]:.4g}, outside rl.limits.{name} = {limit[0]:g} to {limit[1]:g}"
    return ""


def _kept(folder: Path, step: int) -> str:
    return f"the state after step {step} is kept in {folder / 'states'}" if step else "no state was kept yet"


def _rewrite(path: Path, rows: list[dict[str, Any]]) -> None:
    """Drops the rows of steps that are about to be run again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.replace(fresh, path)


def _supervised_step(experiment: Experiment, arm: str, recipe: Supervised, tx: Any) -> Step:
    task, model = experiment.task, experiment.setups[arm].model
    if not task.training:
        raise UserError(f"arm {arm}: there are no training problems to show, 1 or more are needed")

    def step(number: int, state: rl.TrainState) -> tuple[rl.TrainState, dict[str, float]]:
        rng = random.Random(f"{experiment.settings.seed}/{arm}/{number}")
        stream = task.demonstrate(task.training, recipe.right, rng)
        rows = likelihood.to_rows([next(stream) for _ in range(recipe.batch)], experiment.row_places)
        rows = jax.device_put(rows, rows_sharding(experiment.mesh))
        state, metrics = rl.supervised_update(state, model, tx, rows)
        return state, _floats(metrics)

    return step


def _floats(metrics: dict[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
