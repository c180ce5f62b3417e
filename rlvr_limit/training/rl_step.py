"""One step of reinforcement: answers from the policy as it is, their advantages, and the updates they ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import jax
import numpy as np
import optax

from rlvr_limit import rl
from rlvr_limit.distributed.mesh import fetch, mesh_of, row_devices, shard_count
from rlvr_limit.engine.engine import Engine
from rlvr_limit.grading.pool.pool import GradingPool
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import ModelConfig, Params
from rlvr_limit.models.log_probs import AnswerRows
from rlvr_limit.rl.reward_functions import reward_named
from rlvr_limit.settings import Reinforced
from rlvr_limit.study import recipes
from rlvr_limit.study.prepared import Study
from rlvr_limit.training import learner, segments
from rlvr_limit.training.learner import Learner
from rlvr_limit.training.logging import SAMPLES_EVERY, write_samples
from rlvr_limit.training.rollouts import Drawn, Source, check_data, draw
from rlvr_limit.types import Stop

State = rl.TrainState | rl.ActorCritic
Step = Callable[[int, State], tuple[State, dict[str, float]]]

KEPT = 4
"""Answers kept as text, each the first of its group."""

FIRST = ("kl_sampler", "max_delta_logp", "ratio", "entropy")
"""Of the first minibatch, the only one whose log-probs should still be the sampler's own."""

MEAN = ("loss", "grad_norm", "clipped")


def begin(
    study: Study, arm: str, recipe: Reinforced, start: Params, pool: GradingPool | None = None
) -> tuple[Step, State, Learner]:
    """The step of a run, the state it begins from, and what it trains. start lies on this host; its weights are kept,
    on the mesh of all hosts, only where KL needs a reference, or adapters what they belong to.

    pool grades where the task's grader is not to be called inline.
    """
    s, model = study.settings, study.setups[arm].model
    where = f"config.arms.{arm}.rl"
    check_data(where, recipe, study.setups[arm].training, study.engine.max_prompt_len)
    shapes, longest = study.engine, s.sampling.max_tokens
    if recipe.segment:
        shapes, longest = segments.engine_config(shapes, study.row_places), min(recipe.segment, longest)
    engine = Engine(start, model, shapes, longest)
    engine.load(None)
    source = Source(study, arm, recipe, engine, reward_named(recipe.reward, f"{where}.reward"), pool)
    updates = recipe.steps * recipe.minibatches
    tx = rl.optimizer(recipe.optimizer, updates)
    compute = rl.Compute(s.training.remat)
    start = learner.spread(start, model, study.training_mesh)
    trained, state = learner.begin(
        start, model, tx, compute, s.training.param_dtype, recipes.adapters(recipe), s.seed, study.mesh
    )
    value_tx = None
    if recipe.value_optimizer:
        value_tx = rl.optimizer(recipe.value_optimizer, updates)
        state = rl.ActorCritic(state, rl.init_value(model, start, value_tx))
    return _step(source, trained, value_tx, start if recipe.kl else None), state, trained


def _step(
    source: Source, trained: Learner, value_tx: optax.GradientTransformation | None, reference: Params | None
) -> Step:
    recipe, model = source.recipe, source.study.setups[source.arm].model
    training = source.study.settings.training
    objective = recipes.objective(recipe)

    def step(number: int, state: State) -> tuple[State, dict[str, float]]:
        policy, value = (state.policy, state.value) if value_tx else (state, None)
        source.engine.load(trained.weights(policy))
        drawn = segments.draw(source, number) if recipe.segment else draw(source, number)
        # Weights in another dtype, or with adapters merged, are a copy, for which an update may have no room.
        source.engine.load(None)
        if number % SAMPLES_EVERY == 1 and source.study.hosts.is_first:
            _keep_samples(source, number, drawn)
        batch, kept_B, row = _batch(source, drawn, trained.policy(policy), value, reference)
        seen: list[dict[str, jax.Array]] = []
        for part in np.split(np.random.default_rng(number).permutation(len(kept_B)), recipe.minibatches):
            minibatch = _minibatch(source, batch, kept_B, part)
            if training.tokens:
                parts = rl.microbatches(minibatch, *source.study.microbatch)
            else:
                places = source.study.engine.max_prompt_len, source.study.settings.sampling.max_tokens
                parts = [rl.behind_prompts(minibatch, *places, shard_count(trained.mesh, len(part)))]
            fitted = trained.fitted(parts)
            parts = [trained.sent(x) for x in parts]
            value_loss = {}
            if value_tx:
                value, loss = rl.value_update(value, trained.policy(policy), model, value_tx, objective, parts)
                value_loss["value_loss"] = loss
            policy, found = fitted.step(policy, objective, parts)
            seen.append(found | value_loss)
        row |= {name: float(seen[0][name]) for name in FIRST}
        row |= {name: float(np.mean([float(m[name]) for m in seen])) for name in (*MEAN, *value_loss)}
        return rl.ActorCritic(policy, value) if value_tx else policy, drawn.row | row

    return step


def _keep_samples(source: Source, number: int, drawn: Drawn) -> None:
    decode = source.study.setups[source.arm].tokenizer.decode
    rows = [
        {
            "problem_id": group.problem.id,
            "answer": str(group.problem.answer),
            "reward": float(group.reward_G[0]),
            "stop": group.samples[0].stop.value,
            "status": group.status[0].value,
            "text": decode(group.samples[0].tokens),
        }
        for group in drawn.groups[:KEPT]
    ]
    write_samples(source.study.root, source.arm, number, rows)


def _batch(
    source: Source, drawn: Drawn, params: Params, value: rl.ValueState | None, reference: Params | None
) -> tuple[rl.PolicyBatch, np.ndarray, dict[str, float]]:
    """(a rollout as arrays on the host, without weights; which rows count [B]; what is worth watching of it)."""
    study, recipe = source.study, source.recipe
    row, model = recipes.algorithm(recipe), study.setups[source.arm].model
    samples = [sample for group in drawn.groups for sample in group.samples]
    pairs = [(group.problem.prompt_ids, sample.tokens) for group in drawn.groups for sample in group.samples]
    rows = log_probs.answer_rows(pairs, study.row_places)
    at_once = study.microbatch[0] if study.settings.training.tokens else len(pairs) // recipe.minibatches

    def placed(per_answer: Iterable[tuple[float, ...]]) -> np.ndarray:
        found = np.zeros(rows.tokens_BT.shape, np.float32)
        found[rows.answer_BT] = np.concatenate(list(per_answer))
        return found

    def scored(under: Params) -> np.ndarray:
        lengths = study.engine.max_prompt_len, study.settings.sampling.max_tokens
        tokens = -(-at_once // row_devices(mesh_of(under))) * lengths[1]
        return placed(found.logp for found in log_probs.score_pairs(under, model, pairs, tokens, lengths))

    behaviour_BT = placed(sample.logp_model for sample in samples)
    reference_BT = None if reference is None else scored(reference)
    value_BT = None if value is None else _values(params, value, model, rows, at_once)
    in_reward = reference_BT is not None and row.kl_in == "reward"
    rewards = rl.Rewards(
        reward_PG=np.stack([group.reward_G for group in drawn.groups]),
        answer_BT=rows.answer_BT,
        log_ratio_BT=behaviour_BT.astype(np.float64) - reference_BT if in_reward else None,
        greedy_P=drawn.greedy_P,
        value_BT=None if value_BT is None else value_BT.astype(np.float64),
        judged_PG=drawn.judged_PG,
    )
    advantage_BT, return_BT = rl.advantage(row, rewards, recipe.kl, recipe.pass_k, recipe.gae_lambda)
    kept_B = np.repeat(drawn.learn_P, recipe.answers) & drawn.judged_PG.reshape(-1)
    if row.overlong == "mask":
        kept_B &= np.array([sample.stop != Stop.LENGTH for sample in samples])
    batch = rl.PolicyBatch(
        rows,
        behaviour_BT,
        advantage_BT.astype(np.float32),
        weight_BT=np.zeros_like(behaviour_BT),
        reference_BT=None if in_reward else reference_BT,
        value_BT=value_BT,
        return_BT=None if return_BT is None else return_BT.astype(np.float32),
        proximal_BT=scored(params) if recipe.importance_cap else None,
    )
    found = {}
    if reference_BT is not None:
        found["kl_reference"] = float(np.mean(rl.k3(behaviour_BT, reference_BT)[rows.answer_BT]))
    return batch, kept_B, found


def _minibatch(source: Source, batch: rl.PolicyBatch, kept_B: np.ndarray, part: np.ndarray) -> rl.PolicyBatch:
    """The rows of one optimizer step, with what each of their tokens counts in its loss."""
    most, how = source.study.settings.sampling.max_tokens, recipes.algorithm(source.recipe).aggregation
    found = jax.tree.map(lambda x: x[part], batch)
    return found.replace(weight_BT=rl.token_weights(found.rows.answer_BT, kept_B[part], how, most))


def _values(params: Params, value: rl.ValueState, model: ModelConfig, rows: AnswerRows, at_once: int) -> np.ndarray:
    """The value head's predictions, `at_once` rows at a time; the last ones are padded, so that one program does."""
    count = len(rows.tokens_BT)
    padded = jax.tree.map(lambda x: np.pad(x, ((0, -count % at_once), (0, 0))), rows)
    starts = range(0, count, at_once)
    parts = (jax.tree.map(lambda x, start=start: x[start : start + at_once], padded) for start in starts)
    return np.concatenate([fetch(rl.answer_values(params, value.head, model, part)) for part in parts])[:count]
