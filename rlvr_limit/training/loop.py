"""Trains the arms that are recipes. A killed run goes on from its last state to the same parameters.

Several hosts train together: what is trained lies on the mesh of all of them, they share the drawing of answers and
exchange them (exchange.py), and each puts its own rows of the same batch in place. Host 0 alone writes metrics, samples
and exports. All of them end where one dies, and after the same step where one gets a notice to go.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import jax
import optax

from rlvr_limit import checkpoint, rl
from rlvr_limit.distributed.host_memory import return_freed
from rlvr_limit.distributed.mesh import parameter_shardings, row_devices
from rlvr_limit.distributed.preemption import STOPPED, Preempted
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.shapes import segment_engine_config
from rlvr_limit.grading.pool.pool import GradingPool
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import ModelConfig, Params, init_params, parameter_specs
from rlvr_limit.records.progress import Progress
from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.folders import is_whole, made
from rlvr_limit.rl.reward_functions import reward_named
from rlvr_limit.settings import Limits, Reinforced, Supervised
from rlvr_limit.study import recipes
from rlvr_limit.study.arms import EvaluatedArm, seed_index
from rlvr_limit.study.prepared import Setup, Study
from rlvr_limit.study.weights import is_given, load_weights
from rlvr_limit.training import rejection_sampling, rollouts, segments, weight_cache
from rlvr_limit.training.exchange import AnswerSource
from rlvr_limit.training.learner import Learner, spread
from rlvr_limit.training.logging import Metrics
from rlvr_limit.training.rl_step import Reference, ReinforcedStep, State
from rlvr_limit.training.rollouts import RolloutSource, check_data
from rlvr_limit.types import UserError, not_allowed

Step = Callable[[int, State], tuple[State, dict[str, float]]]
"""(number, state) -> (state, the row of metrics); the state that is given is donated."""

SHOWN = ("loss", "reward", "length", "entropy", "kl_sampler", "truncated")
"""What the progress bar shows of a step."""


def train_missing(study: Study) -> None:
    """Trains each arm whose weights are neither given nor there, those that others start from first."""
    hosts = study.hosts
    own = [entry for entry in study.evaluated if not is_given(study, entry)]
    if hosts.broadcast_from_first(any(not is_whole(study.weights(entry)) for entry in own)):
        try:
            with hosts.all_needed():
                for arm in dict.fromkeys(study.source(entry).arm for entry in own):
                    _check_recipe(study, arm, study.settings.arms[arm].recipe)
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


def _check_recipe(study: Study, arm: str, recipe: Supervised | Reinforced) -> None:
    """Raises UserError, one line, for what training would stumble over, before any arm is trained."""
    tokens, devices = study.settings.training.tokens, row_devices(study.training_mesh)
    check_rows(arm, recipe, study.hosts.count, devices, tokens > 0)
    if tokens > 0:
        study.microbatch(recipe)
    if isinstance(recipe, Reinforced):
        problems = study.setups[arm].training
        check_data(f"config.arms.{arm}.rl", recipe.prompts, problems, study.engine.max_prompt_len)
        if recipe.teacher and study.setups[recipe.teacher].vocabulary != study.setups[arm].vocabulary:
            raise not_allowed(f"config.arms.{arm}.rl.teacher", recipe.teacher, "an arm with this arm's tokenizer")


def _train(study: Study, arm: str) -> None:
    recipe, hosts = study.settings.arms[arm].recipe, study.hosts
    save = {recipe.steps: arm}
    if isinstance(recipe, Reinforced):
        save = {step: f"{arm}-{step}" for step in recipe.save_at}
    cache = weight_cache.place(study.settings, study.setups, study.engine, hosts.count, arm)
    if not hosts.broadcast_from_first(
        hosts.is_first and cache is not None and weight_cache.take(cache, study.root, arm, save)
    ):
        _run_steps(study, arm, recipe, save)
        return_freed()
        if hosts.is_first and cache is not None:
            weight_cache.give(cache, study.root, arm, save)


def _run_steps(study: Study, arm: str, recipe: Supervised | Reinforced, save: dict[int, str]) -> None:
    """Runs steps from the last kept state on, keeps a state every checkpoint_seconds, and exports weights.

    Raises UserError, one line, where training went wrong; the last good state stays.
    """
    folder, hosts = study.root / "train" / arm, study.hosts
    with contextlib.ExitStack() as stack:
        step, state, learner = _begin(study, arm, recipe, stack)
        states = checkpoint.TrainCheckpoints(folder / "states", hosts.count > 1)
        stack.enter_context(contextlib.closing(states))
        done, state = states.restore(state)
        _export(study, arm, save.get(done), learner, state)
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
                last = f"the state after step {kept} is kept in {folder / 'states'}"
                raise UserError(f"arm {arm}, step {number}: {trouble}; {last if kept else 'no state was kept yet'}")
            progress.update(number, **{name: row[name] for name in SHOWN if name in row})
            _export(study, arm, save.get(number), learner, state)
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


def _begin(
    study: Study, arm: str, recipe: Supervised | Reinforced, stack: contextlib.ExitStack
) -> tuple[Step, State, Learner]:
    """The step of a run, the state it begins from, and what it trains. The start's weights are let go of here."""
    if isinstance(recipe, Reinforced):
        if recipe.teacher:
            # Before the start is loaded, beside which another arm's training may have no room.
            _made(study, recipe.teacher)
        return begin_reinforced(study, arm, recipe, start_weights(study, arm, recipe), stack)
    path = rejection_sampling.demonstrations_file(study.root, arm)
    if recipe.teacher and study.hosts.broadcast_from_first(not path.exists()):
        # Before the start is loaded: the teacher's weights need not lie beside it.
        _draw_demonstrations(study, arm, recipe, path)
    learner, state = _learner(study, arm, recipe, recipe.steps, start_weights(study, arm, recipe))
    shown = rejection_sampling.read(path, study.setups[arm]) if recipe.teacher else study.setups[arm].shown
    return _supervised_step(study, arm, recipe, shown, learner), state, learner


def start_weights(study: Study, arm: str, recipe: Supervised | Reinforced) -> Params:
    """The weights that a recipe starts from, on this host."""
    if recipe.start:
        return _weights_of(study, recipe.start)
    model = study.setups[arm].model
    params = init_params(model, jax.random.key(study.settings.seed))
    return jax.device_put(params, parameter_shardings(parameter_specs(model), study.mesh))


def _weights_of(study: Study, name: str) -> Params:
    """The weights of an arm, trained first where they are not there; of a reinforced one those of its last step."""
    return load_weights(study, _made(study, name))


def _made(study: Study, name: str) -> EvaluatedArm:
    """The arm, or its last step, whose weights are there now, trained where they were not."""
    entry = max((e for e in study.evaluated if e.arm == name), key=lambda e: e.step or 0)
    if not is_given(study, entry) and _is_lacking(study, entry):
        _train(study, name)
    return entry


def _learner(
    study: Study, arm: str, recipe: Supervised | Reinforced, updates: int, start: Params
) -> tuple[Learner, rl.TrainState]:
    """What is trained, on the mesh of all hosts, and its state at step 0."""
    s, model, training = study.settings, study.setups[arm].model, study.settings.training
    unstarted = Learner(
        model=model,
        mesh=study.training_mesh,
        here=study.mesh,
        tx=rl.optimizer(recipe.optimizer, updates, training.vision),
        compute=rl.Compute(training.remat or "none", trains_vision=training.vision),
        max_lengths=(study.engine.max_prompt_len, recipes.answer_len(recipe, s.sampling)),
        microbatch=study.microbatch(recipe) if training.tokens > 0 else None,
        lora=recipes.adapters(recipe),
    )
    return unstarted.begin(spread(start, model, study.training_mesh), training.param_dtype, s.seed, seed_index(arm))


def begin_reinforced(
    study: Study, arm: str, recipe: Reinforced, start: Params, stack: contextlib.ExitStack
) -> tuple[Step, State, Learner]:
    """As _begin. start is kept only where KL needs a reference, or adapters what they belong to."""
    s, setup, engine = study.settings, study.setups[arm], study.engine
    longest = answer_len = recipes.answer_len(recipe, s.sampling)
    if recipe.segment:
        engine, longest = segment_engine_config(engine, study.row_places(recipe)), min(recipe.segment, answer_len)
    # From the policy itself: nothing is cut off its distribution.
    drawn = replace(setup.sampling, temperature=1.0, top_p=1.0, top_k=0, min_p=0.0, max_tokens=answer_len)
    reward = reward_named(recipe.reward, f"config.arms.{arm}.rl.reward")
    sampler = Engine(start, setup.model, engine, longest)
    sampler.load(None)
    source = RolloutSource(
        arm=arm,
        recipe=recipe,
        algorithm=recipes.algorithm(recipe),
        problems=setup.training,
        answers=_answer_source(study, setup, sampler, stack, is_graded=reward is None),
        sampling=partial(study.sampling_params, replace(setup, sampling=drawn)),
        max_tokens=answer_len,
        folder=study.root / "train" / arm,
        reward=reward,
    )
    updates = recipe.steps * recipe.minibatches
    start = spread(start, setup.model, study.training_mesh)
    learner, state = _learner(study, arm, recipe, updates, start)
    value_tx = None
    if recipe.value_optimizer:
        value_tx = rl.optimizer(recipe.value_optimizer, updates, s.training.vision)
        state = rl.ActorCritic(state, _value_state(recipe, setup.model, start, value_tx, s.training.param_dtype))
    draw = segments.draw if recipe.segment else rollouts.draw
    reference = None
    if recipe.teacher:
        model = study.setups[recipe.teacher].model
        reference = Reference(spread(_weights_of(study, recipe.teacher), model, study.training_mesh), model)
    elif recipe.kl:
        reference = Reference(start, setup.model)
    step = ReinforcedStep(source, draw, recipes.objective(recipe), learner, value_tx, reference)
    return step, state, learner


def _value_state(
    recipe: Reinforced, model: ModelConfig, start: Params, tx: optax.GradientTransformation, param_dtype: str
) -> rl.ValueState | rl.TrainState:
    """What predicts values, at step 0."""
    if recipe.critic == "probe":
        return rl.init_value(model, start, tx)
    return rl.init_state(rl.critic_params(model, start), tx, param_dtype)


def _answer_source(
    study: Study, setup: Setup, engine: Engine, stack: contextlib.ExitStack, is_graded: bool = True
) -> AnswerSource:
    """Answers of the engine; a grader that is not to be called inline runs in processes that the stack closes."""
    task, grading, pool = study.task, study.settings.grading, None
    if is_graded and not task.inline:
        pool = stack.enter_context(GradingPool(task.grade, grading.workers, grading.seconds, task.shorten))
    grader = task.grade if is_graded else None
    return AnswerSource(engine, setup.tokenizer.decode, study.settings.seed, study.hosts, grader, pool)


def _draw_demonstrations(study: Study, arm: str, recipe: Supervised, path: Place) -> None:
    setup, problems, hosts = study.setups[recipe.teacher], study.setups[arm].lessons, study.hosts
    weights = _weights_of(study, recipe.teacher)
    engine = Engine(weights, setup.model, study.engine, study.settings.sampling.max_tokens)
    total = len(problems) * recipe.answers
    with contextlib.ExitStack() as stack:
        source = _answer_source(study, setup, engine, stack)
        progress = stack.enter_context(Progress(study.root, f"teach {arm}", total, "answers", shown=hosts.is_first))
        sampling = partial(study.sampling_params, setup)
        rejection_sampling.draw(path, arm, recipe, source, problems, sampling, progress)
    # Written by host 0 before another reads it.
    hosts.exchange("taught")


def _supervised_step(
    study: Study, arm: str, recipe: Supervised, shown: Sequence[log_probs.Pair], learner: Learner
) -> Step:
    task, setup, places = study.task, study.setups[arm], study.row_places(recipe)
    if not setup.training and not shown:
        raise UserError(f"arm {arm}: there is neither a training problem nor a demonstration to learn from")
    for prompt, answer, *_ in shown:
        if len(prompt) + len(answer) > places:
            allowed = f"at most {places}, engine.max_prompt_len + sampling.max_tokens"
            raise not_allowed(f"arm {arm}: the length of a demonstration", len(prompt) + len(answer), allowed)

    def step(number: int, state: rl.TrainState) -> tuple[rl.TrainState, dict[str, float]]:
        rng = random.Random(f"{study.settings.seed}/{arm}/{number}")
        if shown:
            pairs = rng.choices(shown, k=recipe.batch)
        else:
            pairs = list(itertools.islice(task.demonstrate(setup.training, recipe.right, rng), recipe.batch))
        rows, images = log_probs.seen_answer_rows(pairs, places, learner.model.vision)
        batches = learner.laid_out(rl.supervised_batch(rows), images)
        state, metrics = learner.step(state, None, learner.sent(batches))
        return state, {name: float(value) for name, value in metrics.items()}

    return step


def check_rows(arm: str, recipe: Supervised | Reinforced, hosts: int, devices: int, packed: bool) -> None:
    """Raises UserError, one line, where hosts cannot train an arm together, or devices cannot share its rows."""
    if hosts > 1 and isinstance(recipe, Reinforced) and recipe.segment:
        raise not_allowed(
            f"config.arms.{arm}.rl.segment", recipe.segment, f"0, as {hosts} hosts need; take one host, or 0"
        )
    rows = recipe.prompts * recipe.answers // recipe.minibatches if isinstance(recipe, Reinforced) else recipe.batch
    if rows % devices and not packed:
        raise UserError(
            f"config.mesh on {hosts} hosts: {devices} devices share rows along data and fsdp, but an update of arm "
            f"{arm} has {rows} rows; take a multiple of {devices}, or training.tokens above 0"
        )


def _on_any_host(study: Study, saved: float) -> tuple[bool, bool]:
    """(whether a state is to be kept for the time since the last one, by host 0's clock; whether a host must go)."""
    due = time.monotonic() - saved > study.settings.checkpoint_seconds
    said = [json.loads(text) for text in study.hosts.exchange(json.dumps([due, bool(study.notice)]))]
    return said[0][0], any(must_go for _, must_go in said)


def _export(study: Study, arm: str, name: str | None, learner: Learner, state: State) -> None:
    """Writes weights under a name, if there is one. What started from a Hugging Face folder ends in one."""
    if name is None or not study.hosts.broadcast_from_first(not is_whole(study.root / "weights" / name)):
        return
    params, setup = learner.weights(state.policy if isinstance(state, rl.ActorCritic) else state), study.setups[arm]
    if study.hosts.is_first:
        with made(study.root / "weights" / name) as here:
            if setup.folder:
                checkpoint.export_hf(here, params, setup.model, setup.folder)
            else:
                checkpoint.save_params(here, params)


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
