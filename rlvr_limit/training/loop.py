"""Trains the arms that are recipes. A killed run goes on from its last state to the same parameters.

Several hosts train together. What is trained lies on the mesh of all of them (mesh_of_all_hosts), and each writes its
own part of a kept state. For a step of reinforcement each host brings the weights to its own mesh and draws what it
leases of the answers, so that who is done first takes more; then all exchange answers and verdicts, build the same
batch, and put their own rows of it in place. Host 0 alone writes metrics, samples and exports. All of them end where
one dies (hosts.all_needed), and a notice to go that one of them gets is heeded by all after the same step.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import random
import time
from pathlib import Path

import jax

from rlvr_limit import checkpoint, rl
from rlvr_limit.distributed.mesh import parameter_shardings, row_devices
from rlvr_limit.distributed.preemption import STOPPED, Preempted
from rlvr_limit.grading.pool.pool import GradingPool
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import Params, init_params, parameter_specs
from rlvr_limit.records.progress import Progress
from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.folders import is_whole, made
from rlvr_limit.settings import Limits, Reinforced, Supervised
from rlvr_limit.study import recipes
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.prepared import Setup, Study
from rlvr_limit.study.weights import is_given, load_weights
from rlvr_limit.training import learner, rejection_sampling, rl_step, weight_cache
from rlvr_limit.training.learner import Learner
from rlvr_limit.training.logging import Metrics
from rlvr_limit.training.rl_step import State, Step
from rlvr_limit.types import UserError

SHOWN = ("loss", "reward", "length", "entropy", "kl_sampler", "truncated")
"""What the progress bar shows of a step."""


def train_missing(study: Study) -> None:
    """Trains each arm whose weights are neither given nor there, those that others start from first."""
    hosts = study.hosts
    own = [entry for entry in study.evaluated if not is_given(study, entry)]
    if hosts.broadcast_from_first(any(not is_whole(study.weights(entry)) for entry in own)):
        try:
            with hosts.all_needed():
                for entry in own:
                    if _is_lacking(study, entry):
                        _train(study, study.source(entry).arm)
        except Preempted:
            # All hosts end here; host 0, which the others need for their goodbye, waits for them.
            hosts.close()
            raise
    if hosts.is_first:
        for entry in own:
            load_weights(study, entry)
    hosts.wait("train")


def _is_lacking(study: Study, entry: EvaluatedArm) -> bool:
    """Whether an arm's weights are still to be made, as host 0 sees it."""
    return study.hosts.broadcast_from_first(not is_whole(study.weights(entry)))


def _train(study: Study, arm: str) -> None:
    recipe = study.settings.arms[arm].recipe
    saved = recipe.save_at if isinstance(recipe, Reinforced) else (recipe.steps,)
    save = {at: f"{arm}-{at}" if isinstance(recipe, Reinforced) else arm for at in saved}
    hosts = study.hosts
    if not hosts.broadcast_from_first(hosts.is_first and weight_cache.take(study, arm, save)):
        check_shares(study, arm, recipe)
        _run_steps(study, arm, recipe, save)
        if hosts.is_first:
            weight_cache.give(study, arm, save)


def check_shares(study: Study, arm: str, recipe: Supervised | Reinforced) -> None:
    """Raises UserError, one line, where hosts cannot train an arm together, or devices cannot share its rows."""
    hosts, training = study.hosts, study.settings.training
    if hosts.count > 1 and isinstance(recipe, Reinforced) and recipe.segment:
        raise UserError(
            f"config.arms.{arm}.rl.segment: found {recipe.segment} on {hosts.count} hosts, 0 is right, or one host"
        )
    devices = row_devices(study.training_mesh)
    rows = recipe.prompts * recipe.answers // recipe.minibatches if isinstance(recipe, Reinforced) else recipe.batch
    if rows % devices and not training.tokens:
        where, of = f"config.mesh on {hosts.count} hosts", f"an update of arm {arm} has {rows} rows"
        raise UserError(
            f"{where}: {devices} devices share rows along data and fsdp, but {of}; a multiple of {devices} rows, or "
            "training.tokens above 0, is right"
        )


def _begin(
    study: Study, arm: str, recipe: Supervised | Reinforced, stack: contextlib.ExitStack
) -> tuple[Step, State, Learner]:
    """As rl_step.begin; the weights that a run starts from are let go of here."""
    taught = isinstance(recipe, Supervised) and recipe.teacher
    if taught and study.hosts.broadcast_from_first(not rejection_sampling.kept_in(study.root, arm).exists()):
        # Before the start is loaded: the teacher's weights need not lie beside it.
        with contextlib.ExitStack() as graders:
            rejection_sampling.draw(study, arm, recipe, _weights_of(study, recipe.teacher), _pool(study, graders))
        # Written by host 0 before another reads it.
        study.hosts.exchange("taught")
    start = _start(study, arm, recipe.start)
    if isinstance(recipe, Reinforced):
        return rl_step.begin(study, arm, recipe, start, _pool(study, stack))
    tx, s = rl.optimizer(recipe.optimizer, recipe.steps), study.settings
    model, compute = study.setups[arm].model, rl.Compute(s.training.remat)
    start = learner.spread(start, model, study.training_mesh)
    trained, state = learner.begin(
        start, model, tx, compute, s.training.param_dtype, recipes.adapters(recipe), s.seed, study.mesh
    )
    return _supervised_step(study, arm, recipe, trained), state, trained


def _pool(study: Study, stack: contextlib.ExitStack) -> GradingPool | None:
    """Worker processes for a grader that is not to be called inline; closed with the stack."""
    task, grading = study.task, study.settings.grading
    if task.inline:
        return None
    return stack.enter_context(GradingPool(task.grade, grading.workers, grading.seconds, task.shorten))


def _start(study: Study, arm: str, name: str) -> Params:
    if not name:
        model = study.setups[arm].model
        params = init_params(model, jax.random.key(study.settings.seed))
        return jax.device_put(params, parameter_shardings(parameter_specs(model), study.mesh))
    return _weights_of(study, name)


def _weights_of(study: Study, name: str) -> Params:
    """The weights of an arm, trained first where they are not there; of a reinforced one those of its last step."""
    entry = max((e for e in study.evaluated if e.arm == name), key=lambda e: e.step or 0)
    if not is_given(study, entry) and _is_lacking(study, entry):
        _train(study, name)
    return load_weights(study, entry)


def _run_steps(study: Study, arm: str, recipe: Supervised | Reinforced, save: dict[int, str]) -> None:
    """Runs steps from the last kept state on, keeps a state every checkpoint_seconds, and exports weights.

    Raises UserError, one line, where training went wrong; the last good state stays.
    """
    folder, hosts = study.root / "train" / arm, study.hosts

    def export(number: int, state: State) -> None:
        target = study.root / "weights" / save.get(number, "")
        if number in save and hosts.broadcast_from_first(not is_whole(target)):
            params = trained.weights(state.policy if isinstance(state, rl.ActorCritic) else state)
            if hosts.is_first:
                with made(target) as here:
                    _export(study.setups[arm], here, params)

    with contextlib.ExitStack() as stack:
        step, state, trained = _begin(study, arm, recipe, stack)
        states = stack.enter_context(
            contextlib.closing(checkpoint.TrainCheckpoints(folder / "states", hosts.count > 1))
        )
        done, state = states.restore(state)
        export(done, state)
        if hosts.is_first:
            metrics = stack.enter_context(Metrics(study.root, arm, done, study.settings.wandb))
        progress = Progress(study.root, f"train {arm}", recipe.steps, "steps", done, hosts.is_first)
        stack.enter_context(progress)
        kept = done
        saved = began = time.monotonic()
        for number in range(done + 1, recipe.steps + 1):
            state, row = step(number, state)
            began, seconds = time.monotonic(), time.monotonic() - began
            if hosts.is_first:
                metrics.append(number, row, seconds)
            trouble = _trouble(recipe, row)
            if trouble:
                raise UserError(f"arm {arm}, step {number}: {trouble}; {_kept(folder, kept)}")
            progress.update(number, **{name: row[name] for name in SHOWN if name in row})
            export(number, state)
            is_due, must_go = _on_any_host(study, saved)
            if number in save or is_due or must_go:
                if hosts.is_first:
                    metrics.put()
                states.save(number, state)
                kept, saved = number, time.monotonic()
            # The notice is asked for once a step: one that came since must not stop this host alone, nor unsaved.
            if must_go:
                raise Preempted(STOPPED)
    # The last weights are there before another host reads them.
    hosts.exchange("trained")


def _on_any_host(study: Study, saved: float) -> tuple[bool, bool]:
    """(whether a state is to be kept for the time since the last one, by host 0's clock; whether a host must go)."""
    due = time.monotonic() - saved > study.settings.checkpoint_seconds
    said = [json.loads(text) for text in study.hosts.exchange(json.dumps([due, bool(study.notice)]))]
    return said[0][0], any(must_go for _, must_go in said)


def _export(setup: Setup, target: Path, params: Params) -> None:
    """Weights that started from a Hugging Face folder end in one, which transformers and vLLM open too."""
    if setup.folder:
        checkpoint.export_hf(target, params, setup.model, setup.folder)
    else:
        checkpoint.save_params(target, params)


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


def _kept(folder: Place, step: int) -> str:
    return f"the state after step {step} is kept in {folder / 'states'}" if step else "no state was kept yet"


def _supervised_step(study: Study, arm: str, recipe: Supervised, trained: Learner) -> Step:
    task, setup, training = study.task, study.setups[arm], study.settings.training
    shown = rejection_sampling.read(study, arm) if recipe.teacher else setup.shown
    if not setup.training and not shown:
        raise UserError(f"arm {arm}: there is nothing to learn from, 1 training problem or demonstration is needed")
    for prompt, answer in shown:
        if len(prompt) + len(answer) > study.row_places:
            raise UserError(
                f"arm {arm}: a demonstration has {len(prompt)} + {len(answer)} tokens, engine.max_prompt_len + "
                f"sampling.max_tokens = {study.row_places} is the most"
            )

    def step(number: int, state: rl.TrainState) -> tuple[rl.TrainState, dict[str, float]]:
        rng = random.Random(f"{study.settings.seed}/{arm}/{number}")
        if shown:
            pairs = rng.choices(shown, k=recipe.batch)
        else:
            pairs = list(itertools.islice(task.demonstrate(setup.training, recipe.right, rng), recipe.batch))
        rows = log_probs.answer_rows(pairs, study.row_places)
        batch = rl.supervised_batch(rows)
        parts = rl.microbatches(batch, *study.microbatch) if training.tokens else [batch]
        state, metrics = trained.step(state, None, [trained.sent(part) for part in parts])
        return state, _floats(metrics)

    return step


def _floats(metrics: dict[str, jax.Array]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}
