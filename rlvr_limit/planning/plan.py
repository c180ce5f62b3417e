"""A plan: every program of a workload compiled for a target, what fits there, and what the speed is made of."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax.numpy as jnp

from rlvr_limit.distributed.mesh import REPLICA_AXIS, TRAINING_AXIS, over_hosts
from rlvr_limit.engine.shapes import EngineShapes
from rlvr_limit.models.decoder import ModelConfig, parameter_count
from rlvr_limit.planning import compiling, fitting, programs, roofline
from rlvr_limit.planning.programs import AnyMesh, CompiledProgram, DeviceProgram, RecipePrograms
from rlvr_limit.planning.targets import Target
from rlvr_limit.planning.workload import Workload
from rlvr_limit.settings import EngineConfig, MeshConfig
from rlvr_limit.types import UserError, not_allowed

Updates = Callable[[AnyMesh, int], Sequence[RecipePrograms]]
"""What the workload's recipes train, on the mesh of so many hosts."""


@dataclass(frozen=True)
class StudyPlan:
    """What would run, and whether it fits. Sequences, pages and the rates are of one replica of the sampler."""

    target: Target
    engine: EngineConfig  # as the config has it
    runs: fitting.FitCase  # with the sequences that would run: the config's, or the most that fit if that is less
    num_seqs: int  # of these; 0: none fit
    own_mesh: MeshConfig  # the part of the other meshes that one host has, as config.mesh says it
    hosts_per_replica: int
    extra: str | None  # to be installed where programs were only lowered; None: they were compiled
    fit: fitting.SequenceFit
    others: tuple[CompiledProgram, ...]  # of the sampler and the scorer, beside the fit's
    trained: tuple[tuple[RecipePrograms, tuple[CompiledProgram, ...]], ...]
    advice: tuple[str, ...]

    @property
    def model(self) -> ModelConfig:
        return self.runs.model

    @property
    def workload(self) -> Workload:
        return self.runs.workload

    @property
    def sizes(self) -> EngineShapes:
        return self.runs.sizes

    @property
    def mesh(self) -> MeshConfig:
        """Of a replica, over all of its hosts."""
        return over_hosts(self.own_mesh, self.hosts_per_replica, REPLICA_AXIS)

    @property
    def training_mesh(self) -> MeshConfig:
        """Over all hosts of the target."""
        return over_hosts(self.own_mesh, self.target.hosts, TRAINING_AXIS)

    @property
    def parameters(self) -> int:
        return parameter_count(self.model)

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all parameters, on however many devices they lie."""
        return self.parameters * jnp.dtype(self.model.dtype).itemsize

    @property
    def cache_bytes(self) -> int:
        """Bytes of a device that all pages take."""
        return self.runs.cache_bytes if self.num_seqs else 0

    @property
    def replicas(self) -> int:
        """Replicas of the sampler, which draw on their own."""
        return self.target.hosts // self.hosts_per_replica

    @property
    def batch(self) -> roofline.LiveBatch:
        """The live samples of a step on average, if all answers are equally long and no page is empty."""
        workload = self.workload
        live = min(self.num_seqs, self.runs.held(workload.mean_tokens))
        prompts = math.ceil(live / workload.per_problem)
        return roofline.LiveBatch(live, prompts, shared=workload.prompt_tokens, own=workload.mean_tokens / 2)

    @property
    def token_cost(self) -> roofline.TokenCost:
        return token_cost(self.model, self.sizes)

    @property
    def rates(self) -> roofline.MachineRates:
        mesh = self.mesh
        kv_shards = mesh.tensor if self.model.kv_heads % mesh.tensor == 0 else 1
        replicas = mesh.data * mesh.fsdp
        return roofline.MachineRates(replicas, mesh.tensor, kv_shards, self.target.bandwidth, self.target.flops)

    @property
    def window(self) -> CompiledProgram | None:
        """The decode window of the sequences that would run."""
        return self.fit.wanted if self.num_seqs == self.engine.max_num_seqs else self.fit.most


def make_plan(
    model: ModelConfig,
    engine: EngineConfig,
    workload: Workload,
    target: Target,
    mesh: MeshConfig | None = None,
    updates: Updates | None = None,
    hosts_per_replica: int = 1,
) -> StudyPlan:
    """Compiles every program for the target and finds the sequences that fit. Raises UserError for an impossible mesh.

    mesh is that of one host; None, or of one device, means the default of programs.mesh_for. A replica of the sampler
    lies on hosts_per_replica hosts where those hold it, else on the fewest that do. Where the target's compiler is not
    installed, programs are lowered only, and what fits is arithmetic without temporaries.
    """
    wanted = mesh or MeshConfig()
    devices = compiling.devices_of(target)
    if target.platform == "cpu":
        target = _cpu_of(target, wanted, len(devices))
        devices = devices[: target.devices]
    own = programs.mesh_for(model, target.host_devices, wanted)
    real = bool(devices)
    # In reference mode the sequences come in tiles of their own; a plan is for speed.
    engine = dataclasses.replace(engine, reference=False)
    case = fitting.FitCase(model, engine, workload, programs.make_mesh(own, devices), target.memory)
    hosts = replica_hosts(case, own, target, hosts_per_replica)
    if hosts > 1:
        devices = compiling.devices_of(target, hosts) if real else []
        case = case._replace(mesh=programs.make_mesh(own, devices, hosts))

    def compiled(program: DeviceProgram) -> CompiledProgram:
        return compiling.compile_program(program, target, real)

    # What these need beside the pages does not depend on how many there are.
    smallest = case.with_num_seqs(case.step)
    helpers = smallest.helpers(compiled)
    fit = fitting.fit_sequences(case, compiled, helpers[-1])
    num_seqs = min(engine.max_num_seqs, fit.num_seqs)
    runs = case.with_num_seqs(num_seqs or case.step)
    beside = max(0, runs.cache_bytes - smallest.cache_bytes) if num_seqs else 0
    others = [dataclasses.replace(program, resident=beside) for program in helpers]
    others += runs.windows(compiled, runs.sizes.buckets[:-1]) if num_seqs else []
    others += fitting.fit_scorer(case, compiled)
    trained = []
    if updates:
        devices = compiling.devices_of(target, target.hosts)[: target.devices] if real else []
        everywhere = programs.make_mesh(own, devices, target.hosts, TRAINING_AXIS)
        trained = [(each, tuple(map(compiled, each.programs))) for each in updates(everywhere, target.hosts)]
    return StudyPlan(
        target=target,
        engine=engine,
        runs=runs,
        num_seqs=num_seqs,
        own_mesh=own,
        hosts_per_replica=hosts,
        extra=None if real else compiling.missing_extra(target),
        fit=fit,
        others=tuple(others),
        trained=tuple(trained),
        advice=tuple(fitting.advice(case, fit, [*others, *(program for _, made in trained for program in made)])),
    )


def token_cost(config: ModelConfig, sizes: EngineShapes) -> roofline.TokenCost:
    """What a token costs with such a cache; of an untied embedding it reads one row and multiplies nothing."""
    looked_up = 0 if config.tied_embedding else config.vocab_size * config.width
    multiplied = parameter_count(config) - looked_up
    return roofline.TokenCost(
        multiplied,
        multiplied * jnp.dtype(config.dtype).itemsize,
        sizes.token_bytes(config),
        4 * config.layers * config.heads * config.head_width,
    )


def replica_hosts(case: fitting.FitCase, own: MeshConfig, target: Target, least: int) -> int:
    """The fewest hosts, of `least` on, whose memory holds the weights, pages for prompts and a few sequences.

    All of them where none do. Raises UserError where there are not so many, or they cannot be so put together.
    """
    if least < 1 or target.hosts % least:
        raise not_allowed("config.hosts.hosts_per_replica", least, f"a divisor of {target.hosts} hosts")
    for hosts in range(least, target.hosts):
        some = case._replace(mesh=programs.make_mesh(own, (), hosts))
        if target.hosts % hosts == 0 and some.fixed_bytes + some.step * some.sequence_bytes <= target.memory:
            return hosts
    return target.hosts


def _cpu_of(cpu: Target, mesh: MeshConfig, there: int) -> Target:
    """The CPU as so many devices as the mesh has."""
    devices = mesh.data * mesh.fsdp * mesh.tensor
    if devices > there:
        raise UserError(f"config.mesh: {devices} CPU devices are asked for, jax has {there}")
    return dataclasses.replace(cpu, devices=devices, memory=cpu.memory // devices)
