"""What a run trains: all parameters of a model, or low-rank adapters of weights that stay as they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from rlvr_limit import rl
from rlvr_limit.distributed.mesh import (
    copy_to_this_host,
    mesh_of,
    parameter_shardings,
    placed,
    replicated,
    row_devices,
    rows_sharding,
    shard_count,
)
from rlvr_limit.models.decoder import ModelConfig, Params, parameter_specs
from rlvr_limit.models.image_layout import with_images
from rlvr_limit.rl.lora import adapter_specs, attached

Batch = rl.PolicyBatch | rl.SupervisedBatch


@dataclass(frozen=True)
class Learner:
    """How a policy is updated, and where its parameters are. With lora a state holds adapters of `base` alone."""

    model: ModelConfig
    mesh: Mesh  # of all hosts
    here: Mesh  # of this host
    tx: optax.GradientTransformation
    compute: rl.Compute
    max_lengths: tuple[int, int]  # tokens of a prompt and of an answer
    microbatch: tuple[int, int] | None = None  # (rows, places) of packed sequences; None: a minibatch at once
    lora: rl.Lora | None = None
    base: Params | None = field(default=None, repr=False)

    def begin(self, start: Params, param_dtype: str, seed: int, run: int = 0) -> tuple[Learner, rl.TrainState]:
        """The learner and the state at step 0, on the mesh of `start`, whose arrays are kept only for adapters.

        run is which of several of one recipe it is; adapters begin otherwise in each.
        """
        if self.lora is None:
            return self, rl.init_state(start, self.tx, param_dtype)
        lie = parameter_shardings(adapter_specs(self.model, self.lora), self.mesh)
        key = jax.random.key(seed)
        key = jax.random.fold_in(key, run) if run else key
        adapters = placed(rl.init_adapters(self.model, self.lora, key), lie)
        return replace(self, base=start), rl.init_state(adapters, self.tx)

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

    def laid_out(self, batch: Batch, shown: Sequence[Any] = ()) -> list[Batch]:
        """The batch of one optimizer step, one sequence a row, as the batches that it is computed in; on the host.

        shown are the images that its rows see.
        """
        batches = [batch]
        if self.microbatch:
            batches = rl.microbatches(batch, *self.microbatch)
        elif isinstance(batch, rl.PolicyBatch):
            batches = [rl.prefix_batch(batch, *self.max_lengths, shard_count(self.mesh, len(batch.weight_BT)))]
        if not shown:
            return batches
        seen = with_images([x.rows.seen for x in batches], shown, self.model.vision)
        return [x.replace(rows=x.rows._replace(seen=mine)) for x, mine in zip(batches, seen, strict=True)]

    def sent(self, batches: Sequence[Batch]) -> list[Batch]:
        """Batches from the host, their rows spread over the mesh."""
        rows, count = rows_sharding(self.mesh), row_devices(self.mesh)
        # Only images may be of a number that does not divide.
        return [
            placed(batch, jax.tree.map(lambda x: rows if len(x) % count == 0 else replicated(self.mesh), batch))
            for batch in batches
        ]

    def fitted(self, batches: Sequence[rl.PolicyBatch]) -> Learner:
        """The same, with logits at about as many places as these batches on the host have answer tokens."""
        shards = shard_count(self.mesh, len(batches[0].weight_BT))
        return replace(self, compute=self.compute.at_answers(self.model, batches, shards))

    def step(
        self, state: rl.TrainState, objective: rl.Objective | None, batches: Sequence[Batch]
    ) -> tuple[rl.TrainState, dict[str, jax.Array]]:
        """One optimizer step; objective None: on demonstrations. state is donated."""
        return rl.train_step(state, self.model, self.tx, objective, batches, self.compute, self.lora, self.base)


def spread(params: Params, model: ModelConfig, mesh: Mesh) -> Params:
    """Weights that lie on this host, on the mesh of all hosts; the same arrays where this host is all of them."""
    if mesh_of(params).size == mesh.size:
        return params
    return placed(params, parameter_shardings(parameter_specs(model), mesh))
