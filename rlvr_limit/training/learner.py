"""What a run trains: all parameters of a model, or low-rank adapters of weights that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import jax
import optax
from jax.sharding import Mesh

from rlvr_limit import rl
from rlvr_limit.distributed.mesh import (
    copy_to_this_host,
    mesh_of,
    parameter_shardings,
    placed,
    rows_sharding,
    shard_count,
)
from rlvr_limit.models.decoder import ModelConfig, Params, parameter_specs
from rlvr_limit.rl.lora import adapter_specs, attached

T = TypeVar("T")


@dataclass(frozen=True)
class Learner:
    """How a policy is updated, and where its parameters are found. With lora a state holds adapters of `base` alone,
    and so do its optimizer and what is kept of it; without, base is None.

    mesh is that of all hosts, here that of this one.
    """

    model: ModelConfig
    mesh: Mesh
    here: Mesh
    tx: optax.GradientTransformation
    compute: rl.Compute
    lora: rl.Lora | None = None
    base: Params | None = field(default=None, repr=False)

    def policy(self, state: rl.TrainState) -> Params:
        """The parameters that gradients are taken at, adapters beside the matrices they belong to."""
        return attached(self.base, state.params, self.lora) if self.lora else state.params

    def weights(self, state: rl.TrainState) -> Params:
        """Plain weights in the model's dtype on this host, adapters merged: what is sampled from and exported.

        A collective, where there are several hosts.
        """
        if self.lora:
            merged = rl.merged(self.base, state.params, self.lora)
            plain = jax.device_put(merged, jax.tree.map(lambda x: x.sharding, self.base))
        else:
            plain = rl.weights(state, self.model)
        if self.mesh.size == self.here.size:
            return plain
        return copy_to_this_host(plain, parameter_shardings(parameter_specs(self.model), self.here))

    def sent(self, batch: T) -> T:
        """A batch from the host, its rows spread over the mesh."""
        return placed(batch, rows_sharding(self.mesh))

    def fitted(self, batches: Sequence[rl.PolicyBatch]) -> Learner:
        """The same, with logits at about as many places as these microbatches on the host have answer tokens."""
        shards = shard_count(self.mesh, len(batches[0].weight_BT))
        return replace(self, compute=self.compute.at_answers(self.model, batches, shards))

    def step(
        self,
        state: rl.TrainState,
        objective: rl.Objective | None,
        batches: Sequence[rl.PolicyBatch | rl.SupervisedBatch],
    ) -> tuple[rl.TrainState, dict[str, jax.Array]]:
        """One optimizer step; objective None: on demonstrations. state is donated."""
        return rl.train_step(state, self.model, self.tx, objective, batches, self.compute, self.lora, self.base)


def spread(params: Params, model: ModelConfig, mesh: Mesh) -> Params:
    """Weights that lie on this host, on the mesh of all hosts; the same arrays where this host is all of them."""
    if mesh_of(params).size == mesh.size:
        return params
    return placed(params, parameter_shardings(parameter_specs(model), mesh))


def begin(
    start: Params,
    model: ModelConfig,
    tx: optax.GradientTransformation,
    compute: rl.Compute,
    param_dtype: str,
    lora: rl.Lora | None,
    seed: int,
    here: Mesh | None = None,
) -> tuple[Learner, rl.TrainState]:
    """A learner and the state at step 0, on the mesh of `start`; here is this host's, None where it is the same. The
    start's arrays are kept only where adapters belong to them."""
    mesh = mesh_of(start)
    here = here or mesh
    if lora is None:
        return Learner(model, mesh, here, tx, compute), rl.init_state(start, tx, param_dtype)
    lie = parameter_shardings(adapter_specs(model, lora), mesh)
    adapters = placed(rl.init_adapters(model, lora, jax.random.key(seed)), lie)
    return Learner(model, mesh, here, tx, compute, lora, start), rl.init_state(adapters, tx)
