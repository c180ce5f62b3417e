"""Batches of random answers, and a training step on them that is cut in several ways."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import optax

from rlvr_limit import rl
from rlvr_limit.distributed import mesh
from rlvr_limit.distributed.mesh import fetch, make_mesh, mesh_of, parameter_shardings, rows_sharding
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import ModelConfig, init_params, parameter_specs
from rlvr_limit.rl import PolicyBatch
from rlvr_limit.rl import update as program
from rlvr_limit.settings import MeshConfig


def batch_of(lengths, places, vocab=23, seed=0, alike=False):
    """(pairs, PolicyBatch) of random tokens; every number is drawn, and marks its token. alike: prompts of one length
    are equal."""
    rng = np.random.default_rng(seed)
    draw = partial(rng.integers, vocab)
    pairs = [(tuple(draw(size=p).tolist()), tuple(draw(size=a).tolist())) for p, a in lengths]
    pairs = [((len(p),) * len(p) if alike else p, a) for p, a in pairs]
    rows = log_probs.answer_rows(pairs, places)
    behaviour, advantage, weight = (np.where(rows.answer_BT, rng.normal(size=(len(pairs), places)), 0) for _ in "abc")
    return pairs, PolicyBatch(rows, *(x.astype(np.float32) for x in (behaviour, advantage, weight)))


@partial(jax.jit, static_argnums=(1, 3))
def scored(params, config, rows, remat="none"):
    return log_probs.answer_log_probs(params, config, rows, remat=remat)


WIDE = ModelConfig(vocab_size=64, width=32, layers=1, heads=16, kv_heads=8, head_width=8, ffn_width=64)
"""Eight devices divide every axis of it, whichever mesh they form."""


OBJECTIVE = rl.Objective(0.2, 0.28)


LENGTHS = [(3, 5), (1, 7), (6, 1), (4, 0), (2, 6), (1, 1), (2, 2), (4, 4), (3, 3), (5, 2), (2, 5), (1, 4)]


SGD = optax.sgd(0.3)


STEPS = 3


TOLERANCE = 1e-4


def placed(shape: tuple[int, int, int]) -> dict:
    params = init_params(WIDE, jax.random.key(0))
    return jax.device_put(params, parameter_shardings(parameter_specs(WIDE), make_mesh(MeshConfig(*shape))))


def whole_step(seed: int = 0) -> rl.PolicyBatch:
    """A step whose behaviour is near the policy's log-probs, and whose weights add up to about 1."""
    _, batch = batch_of(LENGTHS, 8, WIDE.vocab_size, seed)
    answer = batch.rows.answer_BT
    behaviour = np.where(answer, batch.behaviour_BT - np.log(WIDE.vocab_size), 0).astype(np.float32)
    weight = np.where(answer, np.abs(batch.weight_BT) + 0.1, 0).astype(np.float32)
    return batch.replace(behaviour_BT=behaviour, weight_BT=weight / weight.sum())


def sent(batch: rl.PolicyBatch, params: dict) -> rl.PolicyBatch:
    return mesh.placed(batch, rows_sharding(mesh_of(params)))


def gradient(params: dict, parts: list[rl.PolicyBatch]) -> dict:
    sums = rl.zero_sums(params, OBJECTIVE)
    for part in parts:
        sums = program.accumulate(params, WIDE, OBJECTIVE, rl.Compute(), sent(part, params), sums)
    return jax.tree.map(fetch, sums.gradient)


def relative_errors(found: dict, expected: dict) -> list[float]:
    """Per tensor, in float64."""
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    wide = [(np.asarray(x, np.float64), np.asarray(y, np.float64)) for x, y in pairs]
    return [float(np.linalg.norm(x - y) / np.linalg.norm(y)) for x, y in wide]


def trained(params: dict, parts: list[rl.PolicyBatch]) -> list[np.ndarray]:
    """The change of each parameter in STEPS large steps."""
    state = rl.init_state(params, SGD)
    before = [fetch(x) for x in jax.tree.leaves(state.params)]
    for _ in range(STEPS):
        batches = [sent(part, params) for part in parts]
        state, _ = rl.train_step(state, WIDE, SGD, OBJECTIVE, batches)
    return [fetch(x) - old for x, old in zip(jax.tree.leaves(state.params), before, strict=True)]
