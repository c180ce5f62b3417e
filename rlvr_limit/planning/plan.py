"""A plan: every program of a workload compiled for a target, what fits there, and what the speed is made of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from jax.sharding import AbstractMesh, Mesh

from rlvr_limit.distributed.mesh import REPLICA_AXIS, TRAINING_AXIS, over_hosts
from rlvr_limit.engine.shapes import EngineShapes
from rlvr_limit.models.decoder import ModelConfig, parameter_count
from rlvr_limit.planning import compiling, estimate, fitting, programs
from rlvr_limit.planning.compiling import Compiled
from rlvr_limit.planning.programs import Program, Update
from rlvr_limit.planning.targets import Target
from rlvr_limit.planning.workload import Workload
from rlvr_limit.settings import EngineConfig, MeshConfig
from rlvr_limit.types import UserError, not_allowed

Updates = Callable[[Mesh | AbstractMesh, int], Sequence[Update]]
"""What the workload's recipes train, on the mesh of so many hosts."""


@dataclass(frozen=True)
class Trained:
    """An Update of a recipe, its programs compiled."""

    update: Update
    programs: tuple[Compiled, ...]


@dataclass(frozen=True)
class Plan:
    """Bytes are of one device, except parameter_bytes.

    Each replica of the sampler lies on `together` hosts, with mesh over all of them; training_mesh is over all hosts of
    the target. own_mesh is the part of both that one host has, as config.mesh says it. Slots, pages and the machine of
    the roofline are of one replica.

    slots is what would run: the config's number, or the most that fit if that is less (0 for none); sizes and
    cache_bytes are of those, slot_pages are those of one slot's longest answer; held_mean and held_longest are how many
    samples of its mean and longest length all pages hold at once. extra names what is to be installed where the
    programs were only lowered, None where they were compiled.
    """

    target: Target
    model: ModelConfig
    engine: EngineConfig
    workload: Workload
    own_mesh: MeshConfig
    together: int
    mesh: MeshConfig
    training_mesh: MeshConfig
    extra: str | None
    parameters: int
    parameter_bytes: int
    device_parameter_bytes: int
    slots: int
    cache_bytes: int
    sizes: EngineShapes
    slot_pages: int
    held_mean: int
    held_longest: int
    fit: fitting.Fit
    others: tuple[Compiled, ...]
    trained: tuple[Trained, ...]
    advice: tuple[str, ...]
    decoder: estimate.Decoder
    machine: estimate.Machine

    @property
    def replicas(self) -> int:
        """Replicas of the sampler, which draw on their own."""
        return self.target.hosts // self.together

    @property
    def batch(self) -> estimate.Batch:
        """The live samples of a step on average, if all answers are equally long and no page is empty."""
        live = min(self.slots, self.held_mean)
        return estimate.Batch(
            rows=live,
            prompts=math.ceil(live / self.workload.per_problem),
            shared=self.workload.prompt_tokens,
            own=self.workload.mean_tokens / 2,
        )

    @property
    def window(self) -> Compiled | None:
        """The decode window of the slots that would run."""
        return self.fit.wanted if self.slots == self.engine.max_num_seqs else self.fit.most


def plan(
    model: ModelConfig,
    engine: EngineConfig,
    workload: Workload,
    target: Target,
    mesh: MeshConfig | None = None,
    updates: Updates | None = None,
    together: int = 1,
) -> Plan:
    """Compiles every program for the target and finds the slots that fit. Raises UserError for an impossible mesh.

    mesh is that of one host; None, or of one device, means the default of programs.mesh_for. A replica of the sampler
    lies on `together` hosts where those hold it, else on the fewest that do. Where the target's compiler is not
    installed, programs are lowered only, and what fits is arithmetic without temporaries.
    """
    wanted = mesh or MeshConfig()
    devices = compiling.devices_of(target)
    if target.platform == "cpu":
        target = _as_many_as(target, wanted, len(devices))
        devices = devices[: target.devices]
    own = programs.mesh_for(model, target.host_devices, wanted)
    real = bool(devices)
    # In reference mode the slots come in tiles of their own; a plan is for speed.
    engine = dataclasses.replace(engine, reference=False)
    case = fitting.Case(model, engine, workload, programs.make_mesh(own, devices), target.memory)
    together = _together(case, own, target, together)
    if together > 1:
        devices = compiling.devices_of(target, together) if real else []
        case = case._replace(mesh=programs.make_mesh(own, devices, together))
    shape = over_hosts(own, together, REPLICA_AXIS)

    def compiled(program: Program) -> Compiled:
        return compiling.compile_program(program, target, real)

    # What these need beside the pages does not depend on how many there are.
    smallest = case.with_slots(case.step)
    helpers = smallest.helpers(compiled)
    fit = fitting.fit_slots(case, compiled, helpers[-1])
    slots = min(engine.max_num_seqs, fit.slots)
    runs = case.with_slots(slots or case.step)
    cache_bytes = runs.cache_bytes if slots else 0
    beside = max(0, cache_bytes - smallest.cache_bytes)
    others = [dataclasses.replace(program, resident=beside) for program in helpers]
    others += runs.windows(compiled, runs.sizes.buckets[:-1]) if slots else []
    others += fitting.fit_scorer(case, compiled)
    trained = []
    if updates:
        devices = compiling.devices_of(target, target.hosts)[: target.devices] if real else []
        everywhere = programs.make_mesh(own, devices, target.hosts, TRAINING_AXIS)
        for update in updates(everywhere, target.hosts):
            trained.append(Trained(update, tuple(map(compiled, update.programs))))
    return Plan(
        target=target,
        model=model,
        engine=engine,
        workload=workload,
        own_mesh=own,
        together=together,
        mesh=shape,
        training_mesh=over_hosts(own, target.hosts, TRAINING_AXIS),
        extra=None if real else compiling.missing_extra(target),
        parameters=parameter_count(model),
        parameter_bytes=parameter_count(model) * programs.itemsize(model),
        device_parameter_bytes=case.weight_bytes,
        slots=slots,
        cache_bytes=cache_bytes,
        sizes=runs.sizes,
        slot_pages=case.slot_pages,
        held_mean=runs.held(workload.mean_tokens),
        held_longest=runs.held(workload.max_tokens),
        fit=fit,
        others=tuple(others),
        trained=tuple(trained),
        advice=tuple(fitting.advice(case, fit, [*others, *(p for each in trained for p in each.programs)])),
        decoder=programs.decoder(model, runs.sizes),
        machine=estimate.Machine(
            replicas=shape.data * shape.fsdp,
            weight_shards=shape.tensor,
            kv_shards=shape.tensor if model.kv_heads % shape.tensor == 0 else 1,
            bandwidth=target.bandwidth,
            flops=target.flops,
        ),
    )


def _together(case: fitting.Case, own: MeshConfig, target: Target, least: int) -> int:
    """The fewest hosts, of `least` on, whose memory holds the weights, pages for prompts and a few slots.

    All of them where none do. Raises UserError where there are not so many, or they cannot be so put together.
    """
    if least < 1 or target.hosts % least:
        raise not_allowed("config.hosts.hosts_per_replica", least, f"a divisor of {target.hosts} hosts")
    for hosts in range(least, target.hosts):
        some = case._replace(mesh=programs.make_mesh(own, (), hosts))
        if target.hosts % hosts == 0 and some.fixed_bytes + some.step * some.slot_bytes <= target.memory:
            return hosts
    return target.hosts


def _as_many_as(cpu: Target, mesh: MeshConfig, there: int) -> Target:
    devices = mesh.data * mesh.fsdp * mesh.tensor
    if devices > there:
        raise UserError(f"config.mesh: {devices} CPU devices are asked for, jax has {there}")
    return dataclasses.replace(cpu, devices=devices, memory=cpu.memory // devices)
