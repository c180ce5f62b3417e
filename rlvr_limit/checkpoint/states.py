"""Weights and train states through Orbax, and the identity of a set of weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from rlvr_limit import model
from rlvr_limit.mesh import parameter_shardings
from rlvr_limit.model import ModelConfig, Params
from rlvr_limit.types import UserError


def on_host(x: jax.Array) -> np.ndarray:
    """The values of an array that live only as long as what is returned here.

    np.asarray keeps its copy inside the array: over a tree of sharded arrays the whole model would gather on the host.
    """
    parts = [shard.data for shard in x.addressable_shards]
    return np.asarray(jax.make_array_from_single_device_arrays(x.shape, x.sharding, parts))


def weights_sha256(params: Params) -> str:
    """Identity of a set of weights: SHA-256 over names, shapes, dtypes and bytes, whatever folder they came from.

    One parameter at a time lies on the host.
    """
    digest = hashlib.sha256()
    leaves = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    for name, x in sorted(leaves.items()):
        digest.update(f"{name} {x.shape} {x.dtype}\n".encode())
        digest.update(_raw(x))
    return digest.hexdigest()


def _raw(x: Any) -> np.ndarray:
    """The bytes of an array, row by row."""
    array = on_host(x) if isinstance(x, jax.Array) else x
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def save_params(folder: Path, params: Params) -> None:
    """Writes weights into a new folder; it appears whole or not at all."""
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute(), params)


def load_params(folder: Path, config: ModelConfig, mesh: Mesh) -> Params:
    """Weights of a model of this config, onto the mesh. UserError naming the folder that lacks them or holds others."""
    if not folder.is_dir():
        raise UserError(f"weights: there is no folder {folder}")
    shapes = jax.eval_shape(lambda: model.init_params(config, jax.random.key(0)))
    shardings = parameter_shardings(model.parameter_specs(config), mesh)
    wanted = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    with ocp.StandardCheckpointer() as checkpointer:
        try:
            return checkpointer.restore(folder.absolute(), wanted)
        except (ValueError, KeyError, FileNotFoundError) as error:
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"weights: {folder} does not hold the weights of this config's model: {reason}") from error


class TrainStates:
    """The last two states of a training run; each is written whole before it counts."""

    def __init__(self, folder: Path):
        # Written before save returns: the next update donates the arrays, and on CPU Orbax reads them where they lie.
        options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def save(self, step: int, state: Any) -> None:
        """Keeps the state that is reached after `step` steps; saving a step twice is no error."""
        if step not in self._manager.all_steps():
            self._manager.save(step, args=ocp.args.StandardSave(state))

    def restore(self, fresh: Any) -> tuple[int, Any]:
        """(steps done, newest state), laid out as `fresh` is; (0, fresh) where there is none yet.

        The mesh, and the number of devices, may be others than those it was saved from.
        """
        step = self._manager.latest_step()
        if step is None:
            return 0, fresh
        return step, self._manager.restore(step, args=ocp.args.StandardRestore(fresh))

    def close(self) -> None:
        """Lets go of the folder."""
        self._manager.close()
