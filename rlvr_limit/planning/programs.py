"""The device programs of a workload as abstract values: shapes, dtypes and where they lie, but no array anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from kernels.decode_attention import DecodePlan
from rlvr_limit.distributed.mesh import (
    AXES,
    REPLICA_AXIS,
    arrange_devices,
    over_hosts,
    parameter_shardings,
    row_devices,
    sharding,
)
from rlvr_limit.engine import inputs, programs
from rlvr_limit.engine.cache import Pool
from rlvr_limit.engine.engine import MOVED_PAGES
from rlvr_limit.engine.shapes import EngineShapes
from rlvr_limit.models import decoder as decoder_model
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import ModelConfig, Params, parameter_count
from rlvr_limit.planning.estimate import Decoder
from rlvr_limit.settings import EngineConfig, MeshConfig
from rlvr_limit.types import UserError


class Program(NamedTuple):
    """A program to compile: trace() makes it; beside it lie `resident` bytes on each device that are not its arguments.

    mesh has the size of each axis of its mesh. token_loop is the number of steps of a decode window, 0 for a program
    without one.
    """

    name: str
    trace: Callable[[], Any]
    mesh: Mapping[str, int]
    resident: int = 0
    token_loop: int = 0


class Update(NamedTuple):
    """What a recipe trains, and its programs: bytes of each device that its state's parameters and its optimizer take,
    and weights kept beside them (a reference policy, or what adapters belong to).

    beside_sampler: bytes that lie there while answers are drawn for it, besides the sampler's own; None where none are.
    """

    name: str
    parameters: int
    optimizer: int
    kept: int
    beside_sampler: int | None
    programs: tuple[Program, ...]


def mesh_for(config: ModelConfig, devices: int, wanted: MeshConfig) -> MeshConfig:
    """The mesh of a target: `wanted` where it says more than one device, else the default.

    By default tensor is the largest divisor of devices that cuts key heads, query heads, ffn and vocabulary evenly, so
    that no part of the weights and of the cache lies on a device twice; data is the rest. Raises UserError where
    `wanted` is not of so many devices.
    """
    size = wanted.data * wanted.fsdp * wanted.tensor
    if size > 1 and size != devices:
        raise UserError(
            f"config.mesh: {(wanted.data, wanted.fsdp, wanted.tensor)} has {size} devices, the target {devices}; leave "
            "it at 1, 1, 1 for a default"
        )
    if size > 1:
        return wanted
    cut = math.gcd(config.kv_heads, config.heads, config.ffn_width, config.vocab_size, devices)
    return MeshConfig(data=devices // cut, tensor=cut)


def make_mesh(
    config: MeshConfig, devices: Sequence[Any], hosts: int = 1, axis: str = REPLICA_AXIS
) -> Mesh | AbstractMesh:
    """A mesh of the devices of so many hosts, each of which has `config`, as rlvr_limit.distributed.mesh makes it.

    Without devices an abstract one. axis: the one that grows with the hosts.
    """
    if devices:
        return Mesh(arrange_devices(config, devices, hosts, axis), AXES)
    whole = over_hosts(config, hosts, axis)
    return AbstractMesh((whole.data, whole.fsdp, whole.tensor), AXES)


def placed(tree: Any, lie: Any) -> Any:
    """A tree of arrays or shapes as ShapeDtypeStructs; lie is one sharding, or a tree of them."""
    if isinstance(lie, jax.sharding.Sharding):
        lie = jax.tree.map(lambda _: lie, tree)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, lie)


def abstract_params(config: ModelConfig, mesh: Mesh | AbstractMesh) -> Params:
    """The parameters of a model where the mesh's rules lay them."""
    return abstract(decoder_model.parameter_specs(config), config.dtype, mesh)


def abstract(specs: Params, dtype: str, mesh: Mesh | AbstractMesh) -> Params:
    """What a tree of ParameterSpec says, where the mesh's rules lay it."""
    return jax.tree.map(
        lambda spec, lie: jax.ShapeDtypeStruct(spec.shape, dtype, sharding=lie),
        specs,
        parameter_shardings(specs, mesh),
        is_leaf=lambda x: hasattr(x, "axes"),
    )


def device_bytes(tree: Any) -> int:
    """Bytes that a tree of placed ShapeDtypeStructs takes of each device."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def itemsize(config: ModelConfig) -> int:
    """Bytes of one number of the model's dtype."""
    return jnp.dtype(config.dtype).itemsize


def decoder(config: ModelConfig, sizes: EngineShapes) -> Decoder:
    """What a token costs in this model, with such a cache; of an untied embedding a token reads one row and multiplies
    nothing."""
    looked_up = 0 if config.tied_embedding else config.vocab_size * config.width
    multiplied = parameter_count(config) - looked_up
    return Decoder(
        multiplied,
        multiplied * itemsize(config),
        sizes.token_bytes(config),
        4 * config.layers * config.heads * config.head_width,
    )


def pool(config: ModelConfig, sizes: EngineShapes, mesh: Mesh | AbstractMesh) -> Pool:
    """All pages of the engine's cache, where they lie."""
    lie = _spec(config, sizes, mesh, sizes.buckets[-1])
    return jax.tree.map(lambda x: _on(lie, x, programs.CACHE_AXES), sizes.abstract_pool(config))


def prefill(
    config: ModelConfig, engine: EngineConfig, sizes: EngineShapes, mesh: Mesh | AbstractMesh, places: int
) -> Program:
    """The engine's prefill of one batch of prompts that are padded to so many places."""
    lie = _spec(config, sizes, mesh, sizes.buckets[-1])
    tokens = jax.ShapeDtypeStruct((engine.prefill_rows, places), jnp.int32)
    filed = jax.ShapeDtypeStruct((sizes.shards, engine.prefill_rows, places // sizes.page_size), jnp.int32)
    args = abstract_params(config, mesh), lie, pool(config, sizes, mesh), tokens, _on(lie, filed, ("rows",))
    name = f"prefill of {engine.prefill_rows} x {places:,} tokens"
    return Program(name, lambda: programs.prefill.trace(*args), mesh.shape)


def decode_window(config: ModelConfig, sizes: EngineShapes, mesh: Mesh | AbstractMesh, rows: int) -> Program:
    """The engine's window of decode steps over so many rows of all shards."""
    args = _window(config, sizes, mesh, rows)
    name = f"decode_window of {rows} rows"
    return Program(name, lambda: programs.decode_window.trace(*args), mesh.shape, token_loop=sizes.steps_per_call)


def verify_window(config: ModelConfig, sizes: EngineShapes, mesh: Mesh | AbstractMesh, rows: int) -> Program:
    """The engine's pass over a whole window of guesses in so many rows of all shards."""
    args = _window(config, sizes, mesh, rows)
    return Program(f"verify_window of {rows} rows", lambda: programs.verify_window.trace(*args), mesh.shape)


def _window(config: ModelConfig, sizes: EngineShapes, mesh: Mesh | AbstractMesh, rows: int) -> tuple:
    lie = _spec(config, sizes, mesh, rows)
    sent = jax.tree.map(lambda x: _on(lie, x, ("rows",)), abstract_inputs(sizes, rows))
    return abstract_params(config, mesh), lie, pool(config, sizes, mesh), *sent


def moved_pages(config: ModelConfig, sizes: EngineShapes, mesh: Mesh | AbstractMesh) -> tuple[Program, Program]:
    """What takes pages of a sample to the host, and what puts them back."""
    lie = _spec(config, sizes, mesh, sizes.buckets[-1])
    filed = pool(config, sizes, mesh)
    at = jax.ShapeDtypeStruct((sizes.shards, MOVED_PAGES), jnp.int32)
    saved = jax.tree.map(lambda x: jax.ShapeDtypeStruct((at.size, *x.shape[1:]), x.dtype), filed)
    return (
        Program(f"read_pages of {MOVED_PAGES}", lambda: programs.read_pages.trace(lie, filed, at), mesh.shape),
        Program(f"write_pages of {MOVED_PAGES}", lambda: programs.write_pages.trace(lie, filed, at, saved), mesh.shape),
    )


def abstract_inputs(sizes: EngineShapes, rows: int) -> tuple[programs.WindowInputs, DecodePlan]:
    """What the engine sends a window: shapes and dtypes, those of one in which nobody sits."""
    sent = inputs.window_inputs([None] * rows, [[]] * rows, sizes)
    plan = inputs.attention_plan([[]] * sizes.shards, sizes.page_size, sizes.plan(rows), sizes.min_shared_prefix)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (sent, plan))


def _spec(config: ModelConfig, sizes: EngineShapes, mesh: Mesh | AbstractMesh, rows: int) -> programs.ProgramSpec:
    return programs.ProgramSpec(mesh, config, sizes.steps_per_call, sizes.plan(rows).tile, sizes.cache_dtype)


def _on(lie: programs.ProgramSpec, x: Any, axes: Sequence[str | None]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=lie.sharding(x.shape, *axes))


def scorer(config: ModelConfig, mesh: Mesh | AbstractMesh, batch: int, prompt: int, answer: int) -> Program:
    """The log-probs of `batch` answers of so many tokens, each to a prompt of its own, on each shard of the rows."""
    batch *= row_devices(mesh)
    lie = sharding(mesh, (batch,), ("rows",))

    def of(dtype: Any, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=lie)

    i32 = jnp.int32
    rows = log_probs.PrefixBatch(of(i32, prompt), of(i32), of(i32), of(i32, answer), of(i32, answer), of(bool, answer))
    params = abstract_params(config, mesh)
    name = f"scorer of {batch} x {prompt + answer:,} tokens"
    return Program(name, lambda: log_probs.score_prefix_batch.trace(params, config, rows), mesh.shape)


def replicated(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """placed, whole on every device."""
    return placed(tree, sharding(mesh, (), ()))
