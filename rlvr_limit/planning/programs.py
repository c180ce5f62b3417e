"""The device programs of a study as abstract values: shapes, dtypes and where they lie, but no array anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh

from rlvr_limit import likelihood, model
from rlvr_limit.engine import EngineConfig, programs
from rlvr_limit.engine.engine import STOP_TOKENS
from rlvr_limit.mesh import MeshConfig, everywhere, parameter_shardings, sharding
from rlvr_limit.model import ModelConfig, Params, parameter_count
from rlvr_limit.planning.estimate import Decoder
from rlvr_limit.types import UserError

AXES = ("data", "fsdp", "tensor")


class Program(NamedTuple):
    """A program to compile: trace() makes it; beside it lie `resident` bytes on each device that are not its arguments.

    token_loop is the number of steps of a decode window, 0 for a program without one.
    """

    name: str
    trace: Callable[[], Any]
    resident: int = 0
    token_loop: int = 0


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


def make_mesh(config: MeshConfig, devices: Sequence[Any]) -> Mesh | AbstractMesh:
    """A mesh of these devices in their order, as rlvr_limit.mesh makes it; without devices an abstract one."""
    shape = (config.data, config.fsdp, config.tensor)
    return Mesh(np.array(devices).reshape(shape), AXES) if devices else AbstractMesh(shape, AXES)


def placed(tree: Any, lie: Any) -> Any:
    """A tree of arrays or shapes as ShapeDtypeStructs; lie is one sharding, or a tree of them."""
    if isinstance(lie, jax.sharding.Sharding):
        lie = jax.tree.map(lambda _: lie, tree)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, lie)


def abstract_params(config: ModelConfig, mesh: Mesh | AbstractMesh) -> Params:
    """The parameters of a model where the mesh's rules lay them."""
    specs = model.parameter_specs(config)
    return jax.tree.map(
        lambda spec, lie: jax.ShapeDtypeStruct(spec.shape, config.dtype, sharding=lie),
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


def decoder(config: ModelConfig) -> Decoder:
    """What a token costs in this model; of an untied embedding a token reads one row and multiplies nothing."""
    looked_up = 0 if config.tied_embedding else config.vocab_size * config.width
    multiplied = parameter_count(config) - looked_up
    return Decoder(
        multiplied,
        multiplied * itemsize(config),
        2 * config.layers * config.kv_heads * config.head_width * itemsize(config),
        4 * config.layers * config.heads * config.head_width,
    )


def cache(config: ModelConfig, engine: EngineConfig, mesh: Mesh | AbstractMesh, max_tokens: int) -> Any:
    """The cache of an engine's slots, for a prompt and max_tokens new tokens in each."""
    rows = engine.slots
    places = engine.prompt_places + -(-max_tokens // engine.window) * engine.window
    shapes = jax.eval_shape(lambda: programs.empty_cache(config, rows, places))
    return placed(shapes, programs.places_on(mesh, config, rows).cache)


def prefixes(config: ModelConfig, engine: EngineConfig, mesh: Mesh | AbstractMesh) -> Any:
    """The store of prompts' keys and values, with its one spare row."""
    shapes = jax.eval_shape(lambda: programs.empty_cache(config, engine.prefix_rows + 1, engine.prompt_places))
    return placed(shapes, programs.places_on(mesh, config, engine.slots).prefixes)


def prefill(config: ModelConfig, engine: EngineConfig, mesh: Mesh | AbstractMesh, max_tokens: int) -> Program:
    """The engine's prefill of one batch of prompts; the cache of all slots lies beside it."""
    lie = programs.places_on(mesh, config, engine.slots)
    jitted, _ = programs.compile_for(lie)
    tokens = jax.ShapeDtypeStruct((engine.prefill_rows, engine.prompt_places), jnp.int32)
    rows = jax.ShapeDtypeStruct((engine.prefill_rows,), jnp.int32)
    store, params = prefixes(config, engine, mesh), abstract_params(config, mesh)
    resident = device_bytes(cache(config, engine, mesh, max_tokens))
    return Program("prefill", lambda: jitted.trace(params, config, store, tokens, rows), resident)


def decode_window(config: ModelConfig, engine: EngineConfig, mesh: Mesh | AbstractMesh, max_tokens: int) -> Program:
    """The engine's window of decode steps over all its slots."""
    lie = programs.places_on(mesh, config, engine.slots)
    _, jitted = programs.compile_for(lie)
    slots = placed(abstract_slots(engine.slots), lie.slots)
    store, params = prefixes(config, engine, mesh), abstract_params(config, mesh)
    filed = cache(config, engine, mesh, max_tokens)
    return Program(
        f"decode_window of {engine.slots} slots",
        lambda: jitted.trace(params, config, engine.window, filed, store, slots),
        token_loop=engine.window,
    )


def scorer(config: ModelConfig, mesh: Mesh | AbstractMesh, batch: int, places: int) -> Program:
    """The log-probs of `batch` rows of `places` tokens."""
    lie = sharding(mesh, (batch,), ("rows",))
    rows = likelihood.Rows(
        jax.ShapeDtypeStruct((batch, places), jnp.int32, sharding=lie),
        jax.ShapeDtypeStruct((batch, places), bool, sharding=lie),
    )
    params = abstract_params(config, mesh)
    name = f"scorer of {batch} x {places:,} tokens"
    return Program(name, lambda: likelihood.batch_logprobs.trace(params, config, rows))


def abstract_slots(rows: int) -> programs.Slots:
    """The engine's table of slots: shapes and dtypes."""
    i32 = jax.ShapeDtypeStruct((rows,), jnp.int32)
    f32 = jax.ShapeDtypeStruct((rows,), jnp.float32)
    yes = jax.ShapeDtypeStruct((rows,), bool)
    return programs.Slots(
        live_B=yes,
        admit_B=yes,
        row_B=i32,
        token_B=i32,
        length_B=i32,
        generated_B=i32,
        limit_B=i32,
        key_B2=jax.ShapeDtypeStruct((rows, 2), jnp.uint32),
        index_B=i32,
        temperature_B=f32,
        top_p_B=f32,
        stops_BE=jax.ShapeDtypeStruct((rows, STOP_TOKENS), jnp.int32),
    )


def replicated(tree: Any, mesh: Mesh | AbstractMesh) -> Any:
    """placed, whole on every device."""
    return placed(tree, everywhere(mesh))
