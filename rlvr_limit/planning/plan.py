"""A plan: all programs of a workload, compiled for a target in the shapes that fit, its speed, its text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp

from rlvr_limit.distributed.mesh import REPLICA_AXIS, TRAINING_AXIS, over_hosts
from rlvr_limit.engine.shapes import EngineShapes
from rlvr_limit.models.decoder import ModelConfig, parameter_count
from rlvr_limit.models.image_layout import MIN_PATCHES, padded_length
from rlvr_limit.planning import compiling, fitting, programs, roofline
from rlvr_limit.planning.fitting import FitCase, FittedShapes, Wanted
from rlvr_limit.planning.programs import CompiledProgram, RecipePrograms
from rlvr_limit.planning.targets import Target
from rlvr_limit.planning.updates import recipe_programs
from rlvr_limit.planning.workload import Workload
from rlvr_limit.settings import MeshConfig
from rlvr_limit.types import UserError, not_allowed


@dataclass(frozen=True)
class StudyPlan:
    """What would run, and whether it fits. Sequences, pages and the rates are of one replica of the sampler."""

    target: Target
    shapes: FittedShapes
    case: FitCase  # of the sampler, in these shapes
    hosts_per_replica: int
    extra: str | None  # to be installed where programs were only lowered for want of a compiler
    real: bool  # programs were compiled, not only lowered
    windows: tuple[CompiledProgram, ...]  # decode windows, the largest last
    others: tuple[CompiledProgram, ...]  # of the sampler and the scorer
    trained: tuple[tuple[RecipePrograms, tuple[CompiledProgram, ...]], ...]

    @property
    def model(self) -> ModelConfig:
        return self.case.model

    @property
    def workload(self) -> Workload:
        return self.case.workload

    @property
    def sizes(self) -> EngineShapes:
        return self.case.sizes

    @property
    def num_seqs(self) -> int:
        return self.shapes.engine.max_num_seqs

    @property
    def mesh(self) -> MeshConfig:
        """Of a replica, over all of its hosts."""
        return over_hosts(self.shapes.mesh, self.hosts_per_replica, REPLICA_AXIS)

    @property
    def training_mesh(self) -> MeshConfig:
        """Over all hosts of the target."""
        return over_hosts(self.shapes.mesh, self.target.hosts, TRAINING_AXIS)

    @property
    def parameters(self) -> int:
        return parameter_count(self.model)

    @property
    def parameter_bytes(self) -> int:
        """Bytes of all parameters, on however many devices they lie."""
        return self.parameters * jnp.dtype(self.model.dtype).itemsize

    @property
    def replicas(self) -> int:
        """Replicas of the sampler, which draw on their own."""
        return self.target.hosts // self.hosts_per_replica

    @property
    def batch(self) -> roofline.LiveBatch:
        """The live samples of a step on average, if all answers are equally long and no page is empty."""
        workload = self.workload
        live = min(self.num_seqs, self.case.held(workload.mean_tokens))
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
    def programs(self) -> tuple[CompiledProgram, ...]:
        """All of them."""
        return (*self.others, *self.windows, *(program for _, made in self.trained for program in made))

    @property
    def too_large(self) -> list[str]:
        """A line for each program that the compiler found larger than the memory, alone or beside training."""
        memory = self.target.memory - self.target.process
        lines = [
            f"{program.name} needs {f'{program.total / 1e9:.1f} GB' if program.total else 'more than there is'}"
            for program in self.programs
            if program.fits(memory) is False
        ]
        beside = {update.name: self.beside_sampler(update) for update, _ in self.trained}
        return lines + [
            f"sampling beside the training of {name} needs {total / 1e9:.1f} GB"
            for name, total in beside.items()
            if total is not None and total > memory
        ]

    def beside_sampler(self, update: RecipePrograms) -> int | None:
        """Bytes of a device while answers are drawn for an update; None where none are, or that is not known."""
        window = self.windows[-1].total
        return None if update.beside_sampler is None or window is None else update.beside_sampler + window


def make_plan(wanted: Wanted, target: Target) -> StudyPlan:
    """Compiles every program for the target in the shapes that a run would have there.

    A replica of the sampler lies on hosts_per_replica hosts where those hold it, else on the fewest that do. Where the
    target's compiler is not installed, programs are lowered only. Raises UserError where nothing fits.
    """
    devices = compiling.devices_of(target)
    shapes, hosts = fit_over_hosts(wanted, target)
    if target.platform == "cpu":
        target = dataclasses.replace(target, devices=math.prod(dataclasses.astuple(shapes.mesh)))
    real = bool(devices)
    if hosts > 1:
        devices = compiling.devices_of(target, hosts) if real else []
    model = wanted.model
    mesh = programs.make_mesh(shapes.mesh, devices[: hosts * math.prod(dataclasses.astuple(shapes.mesh))], hosts)
    # In reference mode the sequences come in tiles of their own; a plan is for speed.
    engine = dataclasses.replace(shapes.engine, reference=False)
    case = FitCase(model, engine, wanted.workload, mesh, target.memory)
    sizes = case.sizes

    # Where the cache holds less than every sequence at its limit, samples can be preempted, and their pages moved.
    made = [*programs.moved_pages(model, sizes, mesh)] if engine.cache_tokens else []
    made += [programs.prefill(model, engine, sizes, mesh, length) for length in sizes.prefill_lengths]
    if wanted.workload.images:
        most = padded_length(wanted.workload.images.most, MIN_PATCHES)
        made.append(programs.encode_images(model, sizes, mesh, most))
    rows = max(1, wanted.workload.score_tokens // wanted.workload.max_tokens)
    made.append(programs.scorer(model, mesh, rows, engine.max_prompt_len, wanted.workload.max_tokens))
    windows = [programs.decode_window(model, sizes, mesh, rows) for rows in sizes.buckets]
    updates: Sequence[RecipePrograms] = ()
    if wanted.trained:
        devices = compiling.devices_of(target, target.hosts)[: target.devices] if real else []
        everywhere = programs.make_mesh(shapes.mesh, devices, target.hosts, TRAINING_AXIS)
        trains = wanted.trained, model, engine, everywhere, target.hosts, shapes.training, wanted.workload
        updates = recipe_programs(*trains)
    trains_of = [each.programs for each in updates]
    others, compiled_windows, *trained = compiling.compile_each([made, windows, *trains_of], target, real)
    return StudyPlan(
        target=target,
        shapes=shapes,
        case=case,
        hosts_per_replica=hosts,
        extra=None if real else compiling.missing_extra(target),
        real=real,
        windows=compiled_windows,
        others=others,
        trained=tuple(zip(updates, trained, strict=True)),
    )


def fit_over_hosts(wanted: Wanted, target: Target) -> tuple[FittedShapes, int]:
    """The shapes, and the fewest hosts, of hosts_per_replica on, that hold a replica of the sampler in them."""
    least = wanted.hosts_per_replica
    if target.hosts % least:
        raise not_allowed("config.hosts.hosts_per_replica", least, f"a divisor of {target.hosts} hosts")
    numbers = [hosts for hosts in range(least, target.hosts + 1) if target.hosts % hosts == 0]
    if wanted.trained:
        numbers = numbers[:1]
    for hosts in numbers:
        try:
            return fitting.fit(dataclasses.replace(wanted, hosts_per_replica=hosts), target), hosts
        except UserError:
            if hosts == numbers[-1]:
                raise
    raise AssertionError("a loop over at least one number of hosts")


def token_cost(config: ModelConfig, sizes: EngineShapes) -> roofline.TokenCost:
    """What a token costs with such a cache; of an untied embedding it reads one row and multiplies nothing."""
    looked_up = 0 if config.tied_embedding else config.vocab_size * config.width
    multiplied = parameter_count(dataclasses.replace(config, vision=None)) - looked_up
    return roofline.TokenCost(
        multiplied,
        multiplied * jnp.dtype(config.dtype).itemsize,
        sizes.token_bytes(config),
        4 * config.layers * config.heads * config.head_width,
    )


def render(plan: StudyPlan) -> str:
    """The whole plan, a page of plain text; its last line says whether it fits."""
    parts = [_head(plan), _memory(plan), _programs(plan), _training(plan), _speed(plan), _verdict(plan)]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _head(plan: StudyPlan) -> list[str]:
    t = plan.target
    how = "compiled for real" if plan.real else "lowered only: no compiler here knows this chip"
    if plan.extra:
        how = f"lowered only: pip install -e '.[{plan.extra}]' compiles them"
    hosts = f"{t.hosts} hosts of {t.host_devices}" if t.hosts > 1 else f"{t.devices}"
    return [
        f"target {t.name}: {hosts} x {t.chip}; programs {how}",
        f"model: {plan.parameters:,} parameters, {plan.parameter_bytes:,} bytes in {plan.model.dtype}{_replicas(plan)}",
        *_tower(plan),
        *fitting.describe(plan.shapes, t),
    ]


def _tower(plan: StudyPlan) -> list[str]:
    """The vision tower's share of the weights, and its time; every arm encodes every image once."""
    w, sizes, vision = plan.workload, plan.workload.images, plan.model.vision
    if sizes is None:
        return []
    own = plan.parameters - parameter_count(dataclasses.replace(plan.model, vision=None))
    flops = roofline.tower_flops(vision, plan.model.width, sizes.mean)
    images = w.arms * sizes.per_problem * sum(b.problems for b in w.benchmarks)
    seconds = images * flops / (plan.target.flops * plan.mesh.tensor * plan.replicas)
    return [
        f"vision tower: {own:,} of them, {_gb(own * jnp.dtype(plan.model.dtype).itemsize)}; {images:,.0f} images "
        f"of {sizes.mean:,.0f} patches on average, once an arm: {flops / 1e12:,.1f} TFLOP, {seconds / 3600:,.3f} hours"
    ]


def _mesh(mesh: MeshConfig) -> str:
    return f"data {mesh.data}, fsdp {mesh.fsdp}, tensor {mesh.tensor}"


def _replicas(plan: StudyPlan) -> str:
    hosts = plan.hosts_per_replica
    if plan.target.hosts == 1:
        return ""
    where = f"each over {hosts} hosts (config.hosts.hosts_per_replica = {hosts})" if hosts > 1 else "one a host"
    return f"; {plan.replicas} replicas of the sampler, {where}, which send each other nothing"


def _memory(plan: StudyPlan) -> list[str]:
    s = plan.sizes
    lines = [
        "each device holds",
        f"  parameters   {_gb(plan.case.weight_bytes):>10}",
        f"  KV cache     {_gb(plan.case.cache_bytes):>10}   {s.pages:,} pages of {s.page_size} tokens: "
        f"{s.pages * s.page_size:,}",
    ]
    window = plan.windows[-1]
    if window.temporaries is not None:
        share = f"{window.temporaries / plan.case.cache_bytes:.1%} of the cache"
        lines.append(f"  temporaries  {_gb(window.temporaries):>10}   of the decode window, by the compiler: {share}")
        lines.append(f"  together     {_gb(window.total):>10}   of {_gb(plan.target.memory)}")
    return lines + _pages(plan)


def _pages(plan: StudyPlan) -> list[str]:
    e, s, workload = plan.shapes.engine, plan.sizes, plan.workload
    held = [f"{plan.case.held(tokens):,}" for tokens in (workload.mean_tokens, workload.max_tokens)]
    whose = f"each of {s.shards} shards has pages of its own" if s.shards > 1 else "one shard has all pages"
    lengths = " or ".join(f"{length:,}" for length in s.prefill_lengths)
    room = "" if e.cache_tokens else f", with room for {e.prefix_rows} prompts beside it"
    return [
        f"a sequence takes {plan.case.seq_pages * s.page_size:,} tokens at its limit; {whose}{room}",
        f"the pages hold {held[0]} samples of {workload.mean_tokens:,} tokens or {held[1]} of "
        f"{workload.max_tokens:,}, and their prompts of {workload.prompt_tokens}",
        f"rows compiled: {', '.join(map(str, s.buckets))}; prompts padded to {lengths} tokens",
    ]


def _programs(plan: StudyPlan) -> list[str]:
    made = (*plan.others, *plan.windows)
    spent = sum(program.seconds for program in made)
    return [
        f"{'program':42} {'seconds':>7} {'temporaries':>12} {'together':>12}  fits",
        *(_program(program, plan.target.memory) for program in made),
        f"seconds to compile: {spent:,.0f}",
    ]


def _training(plan: StudyPlan) -> list[str]:
    """What training holds and runs on the mesh of all hosts."""
    if not plan.trained:
        return []
    hosts = f" over all {plan.target.hosts} hosts" if plan.target.hosts > 1 else ""
    lines = [f"training mesh: {_mesh(plan.training_mesh)}{hosts}"]
    for update, made in plan.trained:
        kept = f", kept beside them {_gb(update.kept)}" if update.kept else ""
        parts = f"parameters {_gb(update.parameters)}, optimizer {_gb(update.optimizer)}{kept}"
        lines += [f"{update.name}: each device holds {parts}"]
        lines += [_program(program, plan.target.memory) for program in made]
        both = plan.beside_sampler(update)
        if both is not None:
            verdict = "fits" if both <= plan.target.memory - plan.target.process else "does not fit"
            lines.append(
                f"while it draws answers: {_gb(update.beside_sampler)} of that and the sampler's "
                f"{_gb(plan.windows[-1].total)}, together {_gb(both)} of {_gb(plan.target.memory)}: {verdict}"
            )
    return lines


def _program(program: CompiledProgram, memory: int) -> str:
    temporaries = "-" if program.temporaries is None else _gb(program.temporaries)
    together = "-" if program.total is None else _gb(program.total)
    fits = {True: "yes", False: "no", None: "lowered only"}[program.fits(memory)]
    return f"{program.name:42} {program.seconds:7.1f} {temporaries:>12} {together:>12}  {fits}"


def _verdict(plan: StudyPlan) -> list[str]:
    if plan.too_large:
        lines = [f"does not fit: {line}, a device has {_gb(plan.target.memory)}" for line in plan.too_large]
        return [*lines, "a smaller engine.max_num_seqs, engine.cache_tokens or training.tokens, by hand, takes less"]
    e = plan.shapes.engine
    cache = plan.sizes.pages * plan.sizes.page_size * plan.sizes.shards
    seconds = sum(_seconds(plan))
    return [
        f"fits: mesh {_mesh(plan.mesh)}; {e.max_num_seqs} sequences; {cache:,} tokens of cache; sampling and scoring "
        f"about {seconds / 3600:,.1f} hours at the roofline"
    ]


def _seconds(plan: StudyPlan) -> tuple[float, float]:
    """Of sampling and of scoring, at the roofline."""
    s = plan.workload
    each = roofline.tokens_per_second(plan.token_cost, plan.rates, plan.batch)
    length = 1 << (s.prompt_tokens + s.mean_tokens - 1).bit_length()
    # What one model is to score of one arm's answers is not shared.
    scoring = min(plan.replicas, s.scoring_shares)
    seconds = roofline.scoring_seconds(plan.token_cost, plan.rates, s.scorings / scoring, length)
    return s.answers * s.mean_tokens / (plan.replicas * each), seconds


def _speed(plan: StudyPlan) -> list[str]:
    t, s = plan.target, plan.workload
    counts = ", ".join(f"{b.name} {b.problems} x {b.n}" for b in s.benchmarks)
    tokens = s.answers * s.mean_tokens
    lines = [
        f"assumed of each device: {t.bandwidth / 1e9:,.0f} GB/s and {t.flops / 1e12:,.1f} TFLOP/s ({t.source})",
        "reading and computing add up; what devices send, softmax, sampling and the host are not counted",
        f"the workload: {s.arms} arms, {counts}: {s.answers:,} answers",
        f"assumed of them: {s.mean_tokens:,} tokens after {s.prompt_tokens} of prompt, {tokens / 1e6:,.1f} M to draw",
    ]
    batch = plan.batch
    each = roofline.tokens_per_second(plan.token_cost, plan.rates, batch)
    speed = plan.replicas * each
    all_of_them = f" a replica, {speed:,.0f} by {plan.replicas}" if plan.target.hosts > 1 else ""
    lines.append(
        f"roofline, {batch.rows} live samples of {batch.own:,.0f} tokens on average, their {batch.prompts} prompts of "
        f"{batch.shared} read once a step: {each:,.0f} tokens/s{all_of_them}, {tokens / speed / 3600:,.1f} hours"
    )
    length = 1 << (s.prompt_tokens + s.mean_tokens - 1).bit_length()
    lines.append(
        f"roofline of scoring {s.scored} answers a problem, under the base and under the arm, padded to {length:,} "
        f"tokens: {_seconds(plan)[1] / 3600:,.2f} hours"
    )
    return lines


def _gb(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"
