"""The device mesh, and where each logical axis of a parameter lies on it."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlvr_limit.types import UserError

RULES = {"embed": "fsdp", "heads": "tensor", "kv_heads": "tensor", "ffn": "tensor", "vocab": "tensor"}
"""Logical axis of a parameter -> mesh axis; an axis that is not named here lies whole on every device."""


@dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis: rows are spread over data x fsdp, parameters over fsdp x tensor."""

    data: int = 1
    fsdp: int = 1
    tensor: int = 1


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh of the first data * fsdp * tensor devices. Raises UserError where there are fewer."""
    shape = (config.data, config.fsdp, config.tensor)
    wanted = math.prod(shape)
    if min(shape) < 1 or wanted > jax.device_count():
        raise UserError(f"config.mesh: {shape} needs {wanted} devices, this machine has {jax.device_count()}")
    return Mesh(np.array(jax.devices()[:wanted]).reshape(shape), ("data", "fsdp", "tensor"))


def parameter_shardings(specs: Any, mesh: Mesh) -> Any:
    """A NamedSharding for every spec (anything with shape and axes) of a tree.

    A dimension that its mesh axis does not divide, such as 2 key heads over 4 devices, stays whole; this is logged.
    """

    def one(path: Any, spec: Any) -> NamedSharding:
        places = []
        for size, axis in zip(spec.shape, spec.axes, strict=True):
            place = RULES.get(axis)
            if place and size % mesh.shape[place]:
                name = jax.tree_util.keystr(path)
                logging.info("%s: %s of size %d does not divide over %s, kept whole", name, axis, size, place)
                place = None
            places.append(place)
        return NamedSharding(mesh, PartitionSpec(*places))

    return jax.tree_util.tree_map_with_path(one, specs, is_leaf=lambda x: hasattr(x, "axes"))


def mesh_of(params: Any) -> Mesh:
    """The mesh that parameters lie on; one device where they were never placed on any."""
    sharding = jax.tree.leaves(params)[0].sharding
    return sharding.mesh if isinstance(sharding, NamedSharding) else make_mesh(MeshConfig())


def cache_sharding(mesh: Mesh, kv_heads: int) -> NamedSharding:
    """Keys and values [rows, kv_heads, ...] over tensor, as the projections that make them; whole if indivisible."""
    return NamedSharding(mesh, PartitionSpec(None, "tensor" if kv_heads % mesh.shape["tensor"] == 0 else None))


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Batch rows over data x fsdp."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
