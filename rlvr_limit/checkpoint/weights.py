"""Weights through Orbax, and the identity of a set of weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from rlvr_limit.distributed.mesh import fetch_uncached, parameter_shardings
from rlvr_limit.models import decoder
from rlvr_limit.models.decoder import ModelConfig, Params
from rlvr_limit.types import UserError

from .orbax_trees import by_this_host, laid_out, one_line, to_fill, to_save


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
    array = fetch_uncached(x) if isinstance(x, jax.Array) else x
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def save_params(folder: Path, params: Params) -> None:
    """Writes weights into a new folder; it appears whole or not at all."""
    with ocp.StandardCheckpointer(multiprocessing_options=by_this_host()) as checkpointer:
        checkpointer.save(folder.absolute(), to_save(params))


def load_params(folder: Path, config: ModelConfig, mesh: Mesh) -> Params:
    """Weights of a model of this config, onto the mesh. UserError naming the folder that lacks them or holds others."""
    if not folder.is_dir():
        raise UserError(f"weights: there is no folder {folder}")
    shapes = jax.eval_shape(lambda: decoder.init_params(config, jax.random.key(0)))
    shardings = parameter_shardings(decoder.parameter_specs(config), mesh)
    wanted = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    with ocp.StandardCheckpointer(multiprocessing_options=by_this_host()) as checkpointer:
        try:
            return laid_out(checkpointer.restore(folder.absolute(), to_fill(wanted)), wanted)
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise UserError(
                f"weights: {folder} does not hold the weights of this config's model: {one_line(error)}"
            ) from error
