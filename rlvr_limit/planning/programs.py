"""The device programs of a workload as abstract values: shapes, dtypes and where they lie, but no array anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, Sharding

from kernels.decode_attention import DecodePlan
from rlvr_limit.distributed.mesh import (
    AXES,
    REPLICA_AXIS,
    arrange_devices,
    over_hosts,
    parameter_shardings,
    platform_of,
    row_devices,
    sharding,
)
from rlvr_limit.engine import inputs, programs
from rlvr_limit.engine.cache import Pool
from rlvr_limit.engine.engine import MOVED_PAGES
from rlvr_limit.engine.images import images_a_call
from rlvr_limit.engine.shapes import EngineShapes
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import ImageTokens, ModelConfig, Params, for_inference, parameter_specs
from rlvr_limit.models.image_layout import ImageBatch, SeenRows, VisionConfig, image_batch
from rlvr_limit.settings import EngineConfig, MeshConfig

I32, F32 = jnp.int32, jnp.float32
AnyMesh = Mesh | AbstractMesh


class DeviceProgram(NamedTuple):
    """A program to compile: trace() makes it; beside it lie `resident` bytes on each device, not its arguments."""

    name: str
    trace: Callable[[], Any]
    resident: int = 0


@dataclass(frozen=True)
class CompiledProgram:
    """What became of a program; bytes are of one device, None where they are not known."""

    name: str
    real: bool  # compiled, not only lowered
    seconds: float
    resident: int  # what lies beside the program
    alone: int | None = None  # all that the program itself holds while it runs
    temporaries: int | None = None
    refused: bool = False  # the compiler found no room for it

    @property
    def total(self) -> int | None:
        """Bytes on a device while the program runs, where known."""
        return None if self.alone is None else self.alone + self.resident

    def fits(self, memory: int) -> bool | None:
        """Whether the program runs in so many bytes; None where that is not known."""
        if self.refused:
            return False
        return None if self.total is None else self.total <= memory


class RecipePrograms(NamedTuple):
    """What a recipe trains, in bytes of each device, and its programs."""

    name: str
    parameters: int
    optimizer: int
    kept: int  # beside them: a reference policy, a critic with its optimizer, or what adapters belong to
    beside_sampler: int | None  # there while answers are drawn for it, besides the sampler's own; None: none are drawn
    programs: tuple[DeviceProgram, ...]


def make_mesh(config: MeshConfig, devices: Sequence[Any], hosts: int = 1, axis: str = REPLICA_AXIS) -> AnyMesh:
    """A mesh of the devices of so many hosts, each of which has `config`, as rlvr_limit.distributed.mesh makes it.

    Without devices an abstract one. axis: the one that grows with the hosts.
    """
    if devices:
        return Mesh(arrange_devices(config, devices, hosts, axis), AXES)
    whole = over_hosts(config, hosts, axis)
    return AbstractMesh((whole.data, whole.fsdp, whole.tensor), AXES)


def placed(tree: Any, lie: Any) -> Any:
    """A tree of arrays or shapes as ShapeDtypeStructs; lie is one sharding, or a tree of them."""
    if isinstance(lie, Sharding):
        lie = jax.tree.map(lambda _: lie, tree)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, lie)


def replicated(tree: Any, mesh: AnyMesh) -> Any:
    """placed, whole on every device."""
    return placed(tree, sharding(mesh, (), ()))


def abstract_params(config: ModelConfig, mesh: AnyMesh) -> Params:
    """The parameters of a model where the mesh's rules lay them."""
    return abstract(parameter_specs(config), config.dtype, mesh)


def abstract_for_inference(config: ModelConfig, mesh: AnyMesh) -> Params:
    """The same as the engine and the scorer hold them."""
    params = abstract_params(config, mesh)
    return for_inference(params) if isinstance(mesh, Mesh) and platform_of(mesh) == "cpu" else params


def abstract(specs: Params, dtype: str, mesh: AnyMesh) -> Params:
    """What a tree of ParameterSpec says, where the mesh's rules lay it."""
    return jax.tree.map(
        lambda spec, lie: jax.ShapeDtypeStruct(spec.shape, dtype, sharding=lie),
        specs,
        parameter_shardings(specs, mesh),
        is_leaf=lambda x: hasattr(x, "axes"),
    )


def row_arrays(mesh: AnyMesh, batch: int) -> Callable[..., jax.ShapeDtypeStruct]:
    """(dtype, *shape) -> an array that lies as `batch` rows do."""
    lie = sharding(mesh, (batch,), ("rows",))
    return lambda dtype, *shape: jax.ShapeDtypeStruct(shape, dtype, sharding=lie)


def prefix_batch(mesh: AnyMesh, batch: int, prompts: int, prompt_len: int, answer_len: int) -> log_probs.PrefixBatch:
    """Answers behind prompts."""
    array = row_arrays(mesh, batch)
    return log_probs.PrefixBatch(
        array(I32, prompts, prompt_len),
        array(I32, prompts),
        array(I32, batch),
        array(I32, batch, answer_len),
        array(I32, batch, answer_len),
        array(bool, batch, answer_len),
    )


def seen_rows(mesh: AnyMesh, vision: VisionConfig, shape: tuple[int, int], images: int, patches: int) -> SeenRows:
    """What rows [B, T] see: so many images, which a mesh shares where their number divides."""
    array = row_arrays(mesh, shape[0])
    batch = jax.eval_shape(lambda: ImageBatch(*map(jnp.asarray, image_batch([], vision, patches, images))))
    lie = sharding(mesh, (images,), ("rows",))
    places = array(I32, *shape), array(I32, *shape), array(I32, *shape, 3)
    return SeenRows(placed(batch, lie), *places, array(I32, shape[0]))


def device_bytes(tree: Any) -> int:
    """Bytes that a tree of placed ShapeDtypeStructs takes of each device."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def pool(config: ModelConfig, sizes: EngineShapes, mesh: AnyMesh) -> Pool:
    """All pages of the engine's cache, where they lie."""
    spec = _spec(config, sizes, mesh, sizes.buckets[-1])
    return jax.tree.map(lambda x: _on(spec, x, programs.CACHE_AXES), sizes.abstract_pool(config))


def prefill(
    config: ModelConfig, engine: EngineConfig, sizes: EngineShapes, mesh: AnyMesh, length: int
) -> DeviceProgram:
    """The engine's prefill of one batch of prompts that are padded to so many tokens."""
    spec = _spec(config, sizes, mesh, sizes.buckets[-1])
    tokens = jax.ShapeDtypeStruct((engine.prefill_rows, length), I32)
    pages = jax.ShapeDtypeStruct((sizes.shards, engine.prefill_rows, length // sizes.page_size), I32)
    seen = None
    if config.vision:
        rows = jax.ShapeDtypeStruct((tokens.size, config.width), config.dtype)
        seen = programs.SeenPrompts(ImageTokens(rows, tokens), jax.ShapeDtypeStruct((*tokens.shape, 3), I32))
    args = abstract_for_inference(config, mesh), spec, pool(config, sizes, mesh), tokens, _sent(spec, pages), seen
    name = f"prefill of {engine.prefill_rows} x {length:,} tokens"
    return DeviceProgram(name, lambda: programs.prefill.trace(*args))


def encode_images(config: ModelConfig, sizes: EngineShapes, mesh: AnyMesh, patches: int) -> DeviceProgram:
    """The engine's pass over images that are padded to so many patches."""
    spec, count = _spec(config, sizes, mesh, sizes.buckets[-1]), images_a_call(patches)
    images = jax.eval_shape(lambda: tuple(map(jnp.asarray, image_batch([], config.vision, patches, count))))
    args = abstract_for_inference(config, mesh), spec, ImageBatch(*images)
    name = f"encode_images of {count} x {patches:,} patches"
    beside = device_bytes(pool(config, sizes, mesh))
    return DeviceProgram(name, lambda: programs.encode_images.trace(*args), beside)


def decode_window(config: ModelConfig, sizes: EngineShapes, mesh: AnyMesh, rows: int) -> DeviceProgram:
    """The engine's window of decode steps over so many rows of all shards."""
    spec = _spec(config, sizes, mesh, rows)
    sent = _sent(spec, abstract_inputs(sizes, rows))
    args = abstract_for_inference(config, mesh), spec, pool(config, sizes, mesh), *sent
    return DeviceProgram(f"decode_window of {rows} rows", lambda: programs.decode_window.trace(*args))


def moved_pages(config: ModelConfig, sizes: EngineShapes, mesh: AnyMesh) -> tuple[DeviceProgram, DeviceProgram]:
    """What takes pages of a sample to the host, and what puts them back."""
    spec = _spec(config, sizes, mesh, sizes.buckets[-1])
    pages = pool(config, sizes, mesh)
    at = jax.ShapeDtypeStruct((sizes.shards, MOVED_PAGES), I32)
    saved = jax.tree.map(lambda x: jax.ShapeDtypeStruct((at.size, *x.shape[1:]), x.dtype), pages)
    return (
        DeviceProgram(f"read_pages of {MOVED_PAGES}", lambda: programs.read_pages.trace(spec, pages, at)),
        DeviceProgram(f"write_pages of {MOVED_PAGES}", lambda: programs.write_pages.trace(spec, pages, at, saved)),
    )


def abstract_inputs(sizes: EngineShapes, rows: int) -> tuple[programs.WindowInputs, DecodePlan]:
    """What the engine sends a window: shapes and dtypes, those of one in which nobody sits."""
    sent = inputs.window_inputs([None] * rows, sizes)
    plan = inputs.attention_plan([[]] * sizes.shards, sizes.page_size, sizes.plan(rows), sizes.min_shared_prefix)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), (sent, plan))


def _spec(config: ModelConfig, sizes: EngineShapes, mesh: AnyMesh, rows: int) -> programs.ProgramSpec:
    return programs.ProgramSpec(mesh, config, sizes.steps_per_call, sizes.plan(rows).tile)


def _sent(spec: programs.ProgramSpec, tree: Any) -> Any:
    """Host arrays where the engine lays them; a single device takes them with the call."""
    return tree if spec.mesh.size == 1 else jax.tree.map(lambda x: _on(spec, x, ("rows",)), tree)


def _on(spec: programs.ProgramSpec, x: Any, axes: Sequence[str | None]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=spec.sharding(x.shape, *axes))


def scorer(config: ModelConfig, mesh: AnyMesh, batch: int, prompt_len: int, answer_len: int) -> DeviceProgram:
    """The log-probs of `batch` answers, each to a prompt of its own, on each shard of the rows."""
    batch *= row_devices(mesh)
    rows = prefix_batch(mesh, batch, batch, prompt_len, answer_len)
    params = abstract_for_inference(config, mesh)
    name = f"scorer of {batch} x {prompt_len + answer_len:,} tokens"
    return DeviceProgram(name, lambda: log_probs.score_prefix_batch.trace(params, config, rows))
