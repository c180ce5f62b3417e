"""The device mesh, and where each logical axis of a parameter or an activation lies on it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from rlvr_limit.settings import MeshConfig
from rlvr_limit.types import UserError

RULES = {
    "rows": ("data", "fsdp"),
    "draws": ("data", "fsdp", "tensor"),
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "ffn": ("tensor",),
    "vocab": ("tensor",),
}
"""Logical axis -> the mesh axes it is cut over; an axis that is not named here lies whole on every device.

rows are sequences; draws are the same rows where each device draws tokens from whole distributions."""


AXES = ("data", "fsdp", "tensor")

REPLICA_AXIS, TRAINING_AXIS = "tensor", "fsdp"
"""The axis that grows with the hosts: of a replica of the sampler that one host cannot hold, and of training."""


def over_hosts(config: MeshConfig, hosts: int, axis: str) -> MeshConfig:
    """The mesh of several hosts of which each has this one: the axis is as many times as long."""
    return replace(config, **{axis: getattr(config, axis) * hosts})


def arrange_devices(config: MeshConfig, devices: Sequence[Any], hosts: int, axis: str) -> np.ndarray:
    """Devices, given host by host, as over_hosts says: along the axis each host has a stretch of its own."""
    shape = (hosts, config.data, config.fsdp, config.tensor)
    return np.concatenate(np.array(devices).reshape(shape), axis=AXES.index(axis))


def make_mesh(config: MeshConfig, hosts: Sequence[int] = ()) -> Mesh:
    """A mesh of the first data * fsdp * tensor devices of this host, or of each of these as over_hosts says.

    Raises UserError where there are fewer.
    """
    shape = (config.data, config.fsdp, config.tensor)
    wanted = math.prod(shape)
    if min(shape) < 1 or wanted > jax.local_device_count():
        raise UserError(f"config.mesh: {shape} needs {wanted} devices, this machine has {jax.local_device_count()}")
    if not hosts:
        return Mesh(np.array(jax.local_devices()[:wanted]).reshape(shape), AXES)
    return Mesh(arrange_devices(config, _devices_of(hosts, wanted), len(hosts), REPLICA_AXIS), AXES)


def mesh_of_all_hosts(mesh: Mesh) -> Mesh:
    """The devices of `mesh` of all hosts of a run, side by side along fsdp; on one host, mesh itself.

    fsdp cuts both rows and parameters, so each further host leaves the others less of an optimizer's state to hold;
    tensor parallelism, which talks within each layer, stays inside a host.
    """
    count = jax.process_count()
    if count == 1:
        return mesh
    own = MeshConfig(*mesh.devices.shape)
    return Mesh(arrange_devices(own, _devices_of(range(count), mesh.size), count, TRAINING_AXIS), AXES)


def _devices_of(hosts: Sequence[int], each: int) -> list[jax.Device]:
    """So many devices of each of these hosts, host by host."""
    by_host = ([device for device in jax.devices() if device.process_index == host] for host in hosts)
    return [device for devices in by_host for device in devices[:each]]


def machine() -> str:
    """Kind and number of the devices, such as "NVIDIA H200 x 8"."""
    return f"{jax.local_devices()[0].device_kind} x {jax.local_device_count()}"


def partition(mesh: Mesh | AbstractMesh, shape: Sequence[int], axes: Sequence[str | None]) -> PartitionSpec:
    """Where a value of these logical axes lies; each dimension is cut over the leading axes of its rule that divide it.

    Mesh axes of one device and trailing whole dimensions are left out, as XLA names the same place when it returns it:
    the two must be equal, or jit would compile again.
    """

    def place(size: int, axis: str | None) -> tuple[str, ...] | None:
        kept: tuple[str, ...] = ()
        for name in RULES.get(axis, ()):
            if size % math.prod(mesh.shape[part] for part in (*kept, name)):
                break
            kept += (name,) if mesh.shape[name] > 1 else ()
        return kept or None

    places = [place(size, axis) for size, axis in zip(shape, axes, strict=True)]
    while places and places[-1] is None:
        places.pop()
    return PartitionSpec(*(part[0] if part and len(part) == 1 else part for part in places))


def sharding(mesh: Mesh, shape: Sequence[int], axes: Sequence[str | None]) -> NamedSharding:
    """partition as a sharding on real devices."""
    return NamedSharding(mesh, partition(mesh, shape, axes))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Inside jit: x, told to lie by its logical axes on the mesh of the parameters it was made from.

    On one device, with a mesh or without, x itself: nothing is added to the program.
    """
    mesh = jax.typeof(x).sharding.mesh
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, partition(mesh, x.shape, axes)))


class Part(NamedTuple):
    """A result of on_each_device: its whole shape, and the logical axes of its first dimensions."""

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]


def on_each_device(f: Callable, mesh: Mesh | AbstractMesh, axes: Sequence[Any], out: Any) -> Callable:
    """f, run by each device on its own part of every argument, with no communication (jax.shard_map).

    axes are the logical axes of each argument's first dimensions, for all leaves of it; out is a Part, or a tree of
    them, for the result. On one device f itself.
    """
    if mesh.size == 1:
        return f

    def spec(shape: tuple[int, ...], axes: tuple[str | None, ...]) -> PartitionSpec:
        return partition(mesh, shape, axes + (None,) * (len(shape) - len(axes)))

    def call(*args: Any) -> Any:
        inside = tuple(jax.tree.map(lambda x, a=a: spec(x.shape, a), arg) for a, arg in zip(axes, args, strict=True))
        result = jax.tree.map(lambda part: spec(*part), out, is_leaf=lambda x: isinstance(x, Part))
        return jax.shard_map(f, mesh=mesh, in_specs=inside, out_specs=result, check_vma=False)(*args)

    return call


def shard_count(where: Mesh | AbstractMesh | jax.Array, size: int, axis: str = "rows") -> int:
    """Into how many parts a dimension of this size and logical axis is cut: on a mesh, or inside jit on an array's."""
    mesh = jax.typeof(where).sharding.mesh if isinstance(where, jax.Array) else where
    spec = PartitionSpec() if mesh.empty else partition(mesh, (size,), (axis,))
    return math.prod(mesh.shape[name] for name in (np.atleast_1d(spec[0]) if len(spec) else ()))


def row_devices(mesh: Mesh | AbstractMesh) -> int:
    """Into how many parts a mesh cuts rows that divide by it."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def parameter_shardings(specs: Any, mesh: Mesh) -> Any:
    """A NamedSharding for every spec (anything with shape and axes) of a tree.

    A dimension that its mesh axis does not divide, such as 2 key heads over 4 devices, stays whole; each such axis is
    logged once.
    """
    whole: dict[tuple[str, int], None] = {}

    def lay(spec: Any) -> NamedSharding:
        for size, axis in zip(spec.shape, spec.axes, strict=True):
            if size % math.prod(mesh.shape[name] for name in RULES.get(axis, ())):
                whole[axis, size] = None
        return sharding(mesh, spec.shape, spec.axes)

    shardings = jax.tree.map(lay, specs, is_leaf=lambda x: hasattr(x, "axes"))
    for axis, size in whole:
        logging.info("%s of size %d does not divide over %s, kept whole", axis, size, dict(mesh.shape))
    return shardings


def abstract_parameters(specs: Any, dtype: str, mesh: Mesh) -> Any:
    """ShapeDtypeStructs for a tree of specs, where parameter_shardings lays them."""
    return jax.tree.map(
        lambda lie, spec: jax.ShapeDtypeStruct(spec.shape, dtype, sharding=lie), parameter_shardings(specs, mesh), specs
    )


def platform_of(mesh: Mesh | AbstractMesh) -> str:
    """What its devices are, such as "gpu"; "cpu" where it has none."""
    return mesh.devices.flat[0].platform if isinstance(mesh, Mesh) else "cpu"


def mesh_of(params: Any) -> Mesh:
    """The mesh that parameters lie on; one device where they were never placed on any."""
    placement = getattr(jax.tree.leaves(params)[0], "sharding", None)
    return placement.mesh if isinstance(placement, NamedSharding) else make_mesh(MeshConfig())


def rows_sharding(mesh: Mesh) -> NamedSharding:
    """Batch rows over data x fsdp."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, PartitionSpec())


def _whole(x: jax.Array) -> jax.Array:
    """x, or all of it on every device where this host has but a part; hosts of the mesh ask together."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return x
    return jax.jit(lambda whole: whole, out_shardings=replicated(x.sharding.mesh))(x)


def fetch(x: jax.Array) -> np.ndarray:
    """The values of an array; where it lies on devices of several hosts, each of them gets all, and all must ask."""
    return np.asarray(_whole(x))


def fetch_uncached(x: jax.Array) -> np.ndarray:
    """fetch, where np.asarray would keep its copy inside the array: a tree of them would gather on the host."""
    x = _whole(x)
    parts = [shard.data for shard in x.addressable_shards]
    return np.asarray(jax.make_array_from_single_device_arrays(x.shape, x.sharding, parts))


def placed(tree: Any, shardings: Any) -> Any:
    """A tree laid out by a tree of shardings, or by one for all, on a mesh of this host or of all of a run.

    In the latter case each host gives its own devices what they hold of values that all hosts have.
    """
    first, *_ = jax.tree.leaves(shardings)
    if first.is_fully_addressable:
        return jax.device_put(tree, shardings)

    def place(x: Any, target: NamedSharding) -> jax.Array:
        values = fetch_uncached(x) if isinstance(x, jax.Array) else x
        return jax.make_array_from_callback(x.shape, target, lambda index: values[index])

    return jax.tree.map(place, tree, jax.tree.map(lambda _: shardings, tree) if first is shardings else shardings)


def copy_to_this_host(tree: Any, shardings: Any) -> Any:
    """A tree that lies on the mesh of all hosts, laid out on this host's mesh by a tree of shardings.

    A collective: hosts call it together. Each device is sent what it lacks of its own part and no more.
    """
    everybody, here = mesh_of(tree), jax.tree.leaves(shardings)[0].mesh
    data, fsdp, tensor = here.devices.shape
    apart = Mesh(everybody.devices.reshape(data, -1, fsdp, tensor), ("data", "hosts", "fsdp", "tensor"))
    copies = jax.device_put(tree, jax.tree.map(lambda target: NamedSharding(apart, target.spec), shardings))

    def own_part(x: jax.Array, target: NamedSharding) -> jax.Array:
        parts = [shard.data for shard in x.addressable_shards]
        return jax.make_array_from_single_device_arrays(x.shape, target, parts)

    return jax.tree.map(own_part, copies, shardings)


def all_gather_bytes(own: bytes, lengths: Sequence[int]) -> list[bytes]:
    """What every host of a run brings, by index, so many bytes each. A collective: hosts call it together."""
    # A power of two: few programs are compiled.
    padded = np.zeros(1 << max(*lengths, 1).bit_length(), np.uint8)
    padded[: len(own)] = np.frombuffer(own, np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]
