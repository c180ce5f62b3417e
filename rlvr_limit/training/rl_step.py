"""One step of reinforcement: answers from the policy as it is, their advantages, and the updates they ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from rlvr_limit import rl
from rlvr_limit.distributed.host_memory import return_freed
from rlvr_limit.distributed.mesh import fetch, mesh_of, row_devices
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import ModelConfig, Params
from rlvr_limit.models.image_layout import with_images
from rlvr_limit.models.log_probs import AnswerRows
from rlvr_limit.training.learner import Learner
from rlvr_limit.training.logging import SAMPLES_EVERY, write_samples
from rlvr_limit.training.rollouts import Rollout, RolloutSource
from rlvr_limit.types import Stop

State = rl.TrainState | rl.ActorCritic

KEPT = 4
"""Answers kept as text, each the first of its group."""

FIRST = ("kl_sampler", "max_delta_logp", "ratio", "entropy")
"""Of the first minibatch, the only one whose log-probs should still be the sampler's own."""

MEAN = ("loss", "grad_norm", "clipped")


class Reference(NamedTuple):
    """The weights that KL is measured from: the start's, or a teacher's."""

    params: Params
    model: ModelConfig


@dataclass(frozen=True)
class ReinforcedStep:
    """(number, state) -> (state, the row of metrics). state is donated."""

    source: RolloutSource
    draw: Callable[[RolloutSource, int], Rollout]
    objective: rl.Objective
    learner: Learner
    value_tx: optax.GradientTransformation | None = None  # of the value head, if there is one
    reference: Reference | None = None

    def __call__(self, number: int, state: State) -> tuple[State, dict[str, float]]:
        learner, engine, hosts = self.learner, self.source.answers.engine, self.source.answers.hosts
        policy, value = (state.policy, state.value) if self.value_tx else (state, None)
        engine.load(learner.weights(policy))
        rollout = self.draw(self.source, number)
        # Weights in another dtype, or with adapters merged, are a copy, for which an update may have no room.
        engine.load(None)
        return_freed()
        if number % SAMPLES_EVERY == 1 and hosts.is_first:
            self._write_samples(number, rollout)
        batch, shown, kept_B, row = self._batch(rollout, learner.policy(policy), value)
        seen: list[dict[str, jax.Array]] = []
        for part in np.split(np.random.default_rng(number).permutation(len(kept_B)), self.source.recipe.minibatches):
            batches = learner.laid_out(self._minibatch(batch, kept_B, part), shown)
            fitted = learner.fitted(batches)
            batches = learner.sent(batches)
            value_loss = {}
            if self.value_tx:
                value, value_loss["value_loss"] = self._learn_values(value, learner.policy(policy), batches)
            policy, metrics = fitted.step(policy, self.objective, batches)
            seen.append(metrics | value_loss)
        row |= {name: float(seen[0][name]) for name in FIRST}
        row |= {name: float(np.mean([float(m[name]) for m in seen])) for name in (*MEAN, *value_loss)}
        return rl.ActorCritic(policy, value) if self.value_tx else policy, rollout.row | row

    def _learn_values(
        self, value: rl.ValueState | rl.TrainState, policy: Params, batches: Sequence[rl.PolicyBatch]
    ) -> tuple[rl.ValueState | rl.TrainState, jax.Array]:
        """One step of the probe or of the critic, and its loss."""
        learner = self.learner
        if isinstance(value, rl.ValueState):
            return rl.value_update(value, policy, learner.model, self.value_tx, self.objective, batches)
        value, metrics = rl.train_step(value, learner.model, self.value_tx, self.objective, batches, learner.compute)
        return value, metrics["loss"]

    def _write_samples(self, number: int, rollout: Rollout) -> None:
        rows = [
            {
                "problem_id": group.problem.id,
                "answer": str(group.problem.answer),
                "reward": float(group.reward_G[0]),
                "stop": group.samples[0].stop.value,
                "status": group.status[0].value,
                "text": self.source.answers.decode(group.samples[0].tokens),
            }
            for group in rollout.groups[:KEPT]
        ]
        write_samples(self.source.folder, number, rows)

    def _batch(
        self, rollout: Rollout, params: Params, value: rl.ValueState | rl.TrainState | None
    ) -> tuple[rl.PolicyBatch, list[Any], np.ndarray, dict[str, float]]:
        """(the answers as arrays on the host, without weights; the images that they see; which rows count [B]; metrics
        of the reference)."""
        recipe, algorithm, learner = self.source.recipe, self.source.algorithm, self.learner
        samples = [sample for group in rollout.groups for sample in group.samples]
        problems = [group.problem for group in rollout.groups for _ in group.samples]
        asked = zip(problems, samples, strict=True)
        pairs = [(problem.prompt_ids, sample.tokens, problem.images) for problem, sample in asked]
        rows, shown = log_probs.seen_answer_rows(pairs, sum(learner.max_lengths), learner.model.vision)
        at_once = learner.microbatch[0] if learner.microbatch else len(pairs) // recipe.minibatches

        def at_tokens(per_answer: Iterable[tuple[float, ...]]) -> np.ndarray:
            values_BT = np.zeros(rows.tokens_BT.shape, np.float32)
            values_BT[rows.answer_BT] = np.concatenate(list(per_answer))
            return values_BT

        def scored(under: Params, model: ModelConfig) -> np.ndarray:
            tokens = -(-at_once // row_devices(mesh_of(under))) * learner.max_lengths[1]
            scores = log_probs.score_pairs(under, model, pairs, tokens, learner.max_lengths)
            return at_tokens(answer.logp for answer in scores)

        behaviour_BT = at_tokens(sample.logp_model for sample in samples)
        reference_BT = None if self.reference is None else scored(*self.reference)
        value_BT = None if value is None else self._values(params, value, rows, shown, at_once)
        in_reward = reference_BT is not None and algorithm.kl_in == "reward"
        rewards = rl.Rewards(
            reward_PG=np.stack([group.reward_G for group in rollout.groups]),
            answer_BT=rows.answer_BT,
            log_ratio_BT=behaviour_BT.astype(np.float64) - reference_BT if in_reward else None,
            greedy_P=rollout.greedy_P,
            value_BT=None if value_BT is None else value_BT.astype(np.float64),
            judged_PG=rollout.judged_PG,
        )
        advantage_BT, return_BT = rl.advantage(algorithm, rewards, recipe.kl, recipe.pass_k, recipe.gae_lambda)
        kept_B = np.repeat(rollout.learn_P, recipe.answers) & rollout.judged_PG.reshape(-1)
        if algorithm.overlong == "mask":
            kept_B &= np.array([sample.stop != Stop.LENGTH for sample in samples])
        batch = rl.PolicyBatch(
            rows,
            behaviour_BT,
            advantage_BT.astype(np.float32),
            weight_BT=np.zeros_like(behaviour_BT),
            reference_BT=None if in_reward else reference_BT,
            value_BT=value_BT,
            return_BT=None if return_BT is None else return_BT.astype(np.float32),
            proximal_BT=scored(params, learner.model) if recipe.importance_cap else None,
        )
        if reference_BT is None:
            return batch, shown, kept_B, {}
        kl = float(np.mean(rl.k3(behaviour_BT, reference_BT)[rows.answer_BT]))
        return batch, shown, kept_B, {"kl_reference": kl}

    def _minibatch(self, batch: rl.PolicyBatch, kept_B: np.ndarray, part: np.ndarray) -> rl.PolicyBatch:
        """The rows of one optimizer step, with what each of their tokens counts in its loss."""
        batch = jax.tree.map(lambda x: x[part], batch)
        aggregation, max_tokens = self.source.algorithm.aggregation, self.learner.max_lengths[1]
        return batch.replace(weight_BT=rl.token_weights(batch.rows.answer_BT, kept_B[part], aggregation, max_tokens))

    def _values(
        self, params: Params, value: rl.ValueState | rl.TrainState, rows: AnswerRows, shown: list[Any], at_once: int
    ) -> np.ndarray:
        """Predicted values, `at_once` rows at a time; the last are padded, so that one program does."""
        if isinstance(value, rl.ValueState):
            head = value.head
        else:
            params, head = value.params, value.params[rl.HEAD]
        count = len(rows.tokens_BT)
        padded = jax.tree.map(lambda x: np.pad(x, ((0, -count % at_once), *[(0, 0)] * (x.ndim - 1))), rows)
        parts = [jax.tree.map(lambda x, i=i: x[i : i + at_once], padded) for i in range(0, count, at_once)]
        if shown:
            seen = with_images([part.seen for part in parts], shown, self.learner.model.vision)
            parts = [part._replace(seen=mine) for part, mine in zip(parts, seen, strict=True)]
        values = [fetch(rl.answer_values(params, head, self.learner.model, part)) for part in parts]
        return np.concatenate(values)[:count]
