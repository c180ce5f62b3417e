"""The shapes that a study runs in on a machine: what a config leaves at auto, chosen by arithmetic.

A run and a plan both ask here. Nothing is compiled, so that a run begins at once; a plan then compiles what was chosen.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlvr_limit.distributed.mesh import TRAINING_AXIS, row_devices
from rlvr_limit.engine.shapes import EngineShapes, batch_sizes, own_pages, shapes_of
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.planning import programs
from rlvr_limit.planning.memory import Footprint
from rlvr_limit.planning.programs import AnyMesh
from rlvr_limit.planning.targets import Target
from rlvr_limit.planning.updates import RecipeUpdates, TrainedArm
from rlvr_limit.planning.workload import Workload
from rlvr_limit.rl import Compute
from rlvr_limit.settings import EngineConfig, MeshConfig, Reinforced, Training
from rlvr_limit.types import UserError

SLOTS_STEP = 8
MOST_SEQS = {"cpu": 64, "cuda": 256, "tpu": 256}
"""Sequences of a device group beyond which more of them gain little: an H200 computes as long as it reads at 184."""

SEQ_COUNTS = (256, 192, 128, 96, 64, 48, 32, 24, 16, 8)
"""Sequences of a device group that are tried: rows in tiles of 8 or more, a quarter of many too."""

ENOUGH_SEQS = 128
"""Sequences of a device group that leave nothing to gain from cutting the weights once more."""

SHORT_ANSWER = 2048
"""Answers up to this are expected at their limit; longer ones at a quarter of it, but at least this."""

PREFILL_SHARE = 0.05  # of the memory, for a batch of prompts
CPU_PREFILL = 128  # tokens that a CPU computes as fast a token as more; rows without a prompt are computed too

MARGIN = {"cpu": 0.8, "cuda": 0.84, "tpu": 0.95}
"""Share of the memory that is filled; the rest is for fragments and for errors of the arithmetic. XLA:GPU schedules for
80 % of a GPU: where arguments alone are more, it computes again what it need not."""

MOST_TOKENS = 16_384  # of a microbatch: beyond, products gain nothing

KEPT_BYTES_PER_SECOND = 5e8
KEEPING_SHARE = 0.05
"""A state of training is kept so seldom that writing it takes about this share of the time, at that rate."""


@dataclass(frozen=True)
class Wanted:
    """What is to fit. Fields of engine and training that are at auto, and mesh None, are to be chosen."""

    model: ModelConfig  # the largest of the study
    engine: EngineConfig  # max_prompt_len is known
    workload: Workload
    mesh: MeshConfig | None = None
    training: Training = Training()
    trained: tuple[TrainedArm, ...] = ()
    hosts_per_replica: int = 1
    workers: int = 0
    checkpoint_seconds: float = 0.0


@dataclass(frozen=True)
class FittedShapes:
    """What was chosen, and the most that is expected to lie on a device."""

    mesh: MeshConfig  # of a host
    engine: EngineConfig
    training: Training
    workers: int
    checkpoint_seconds: float
    sampling_bytes: int
    scoring_bytes: int
    training_bytes: int  # 0: nothing is trained

    def fits(self, machine: Target) -> bool:
        """Whether shapes that were chosen elsewhere go on a machine's devices."""
        devices = self.mesh.data * self.mesh.fsdp * self.mesh.tensor
        return devices <= machine.host_devices and self.peak_bytes <= machine.memory

    @property
    def peak_bytes(self) -> int:
        return max(self.sampling_bytes, self.scoring_bytes, self.training_bytes)


class FitCase(NamedTuple):
    """A sampler in `memory` bytes of each device of a mesh. Bytes are of one device."""

    model: ModelConfig
    engine: EngineConfig
    workload: Workload
    mesh: AnyMesh
    memory: int

    def with_engine(self, **fields: int) -> FitCase:
        """The same with other fields of the engine's config."""
        return self._replace(engine=dataclasses.replace(self.engine, **fields))

    def with_num_seqs(self, num_seqs: int) -> FitCase:
        """The same with another number of sequences."""
        return self.with_engine(max_num_seqs=num_seqs)

    @property
    def step(self) -> int:
        """Sequences come in multiples of this, so that every device has as many rows and as many draws."""
        return math.lcm(self.mesh.size, SLOTS_STEP)

    @property
    def sizes(self) -> EngineShapes:
        """Pages and programs of the engine."""
        return shapes_of(self.engine, self.mesh, self.workload.max_tokens)

    @property
    def cache_bytes(self) -> int:
        """All pages."""
        return programs.device_bytes(programs.pool(self.model, self.sizes, self.mesh))

    @property
    def page_bytes(self) -> int:
        """One page of each shard."""
        return self.cache_bytes // self.sizes.pages

    @property
    def seq_pages(self) -> int:
        """Pages that a sequence's own tokens take at the limit."""
        return own_pages(self.workload.max_tokens, self.engine.steps_per_call, self.sizes.page_size)

    @property
    def weight_bytes(self) -> int:
        """The parameters."""
        return programs.device_bytes(programs.abstract_params(self.model, self.mesh))

    def held(self, tokens: int) -> int:
        """Samples of so many tokens, and their prompts, that the pages of all shards hold together."""
        sizes, room = self.sizes, self.sizes.pages - 1
        own = max(1, own_pages(tokens, sizes.steps_per_call, sizes.page_size))
        prompt = -(-(self.workload.prompt_tokens - 1) // sizes.page_size)

        def taken(samples: int) -> int:
            # A prompt lies on each shard once for all of its samples.
            return samples * own + math.ceil(samples * sizes.shards / self.workload.per_problem) * prompt

        samples = room // own
        while samples > 0 and taken(samples) > room:
            samples -= max(1, (taken(samples) - room) // (own + prompt))
        return max(0, samples) * sizes.shards


class Shortage(NamedTuple):
    """Why nothing fits on a mesh: what is asked of a device, in bytes, and which fields would ask for less."""

    what: str
    needed: float
    fields: str


def fit(wanted: Wanted, machine: Target) -> FittedShapes:
    """The shapes for a machine. Raises UserError, one line, where nothing fits: what was asked, and what would fit."""
    chosen = _best(wanted, machine)
    if not isinstance(chosen, Shortage):
        return chosen
    enough = ""
    for times in (2, 4, 8, 16) if machine.platform != "cpu" and wanted.mesh is None else ():
        larger = dataclasses.replace(machine, devices=times * machine.devices)
        if not isinstance(_best(wanted, larger), Shortage):
            enough = f"{larger.devices} such devices would fit it; "
            break
    raise UserError(
        f"{machine.name}: {chosen.what} needs {chosen.needed / 1e9:.1f} GB of a device, which has "
        f"{_budget(machine) / 1e9:.1f} GB to fill ({machine.devices} x {machine.chip}); {enough}{chosen.fields}"
    )


def _best(wanted: Wanted, machine: Target) -> FittedShapes | Shortage:
    """Meshes are tried from the one that cuts the weights least: each further cut makes devices wait for each other."""
    best: FittedShapes | None = None
    shortages = []
    for mesh in _meshes(wanted, machine):
        tried = _on_mesh(wanted, machine, mesh)
        if isinstance(tried, Shortage):
            shortages.append(tried)
            continue
        groups = mesh.data * mesh.fsdp
        if tried.engine.max_num_seqs >= min(ENOUGH_SEQS * groups, _most_seqs(wanted, machine, groups)):
            return tried
        if best is None or tried.engine.max_num_seqs > best.engine.max_num_seqs:
            best = tried
    return best or min(shortages, key=lambda shortage: shortage.needed)


def describe(shapes: FittedShapes, machine: Target) -> list[str]:
    """The shapes in five lines."""
    e, mesh = shapes.engine, shapes.mesh
    cache = f"{e.cache_tokens:,} tokens of cache" if e.cache_tokens else "cache for every sequence's longest answer"
    tokens = shapes.training.tokens
    batch = f"microbatches of {tokens:,} tokens" if tokens > 0 else "a minibatch at once"
    trained, peak = "", f"sampling {shapes.sampling_bytes / 1e9:.1f} GB, scoring {shapes.scoring_bytes / 1e9:.1f} GB"
    if shapes.training_bytes:
        peak += f", training {shapes.training_bytes / 1e9:.1f} GB"
        trained = f"; training: {batch}, activations computed again: {shapes.training.remat}, "
        trained += f"a state kept every {shapes.checkpoint_seconds:.0f} s"
    return [
        f"machine: {machine.devices} x {machine.chip}, {machine.memory / 1e9:.1f} GB each; "
        f"mesh data {mesh.data}, fsdp {mesh.fsdp}, tensor {mesh.tensor}",
        f"sampler: {e.max_num_seqs} sequences in batches of {', '.join(map(str, e.buckets))}; {cache}",
        f"prompts: up to {e.max_prompt_len:,} tokens, {e.prefill_rows} prefilled at once",
        f"grading: {shapes.workers} workers{trained}",
        f"expected at most, on a device: {peak}",
    ]


def _meshes(wanted: Wanted, machine: Target) -> Iterator[MeshConfig]:
    """Meshes of a host to try, the least cut first. Raises UserError where a config's own has too many devices."""
    devices, m = machine.host_devices, wanted.model
    if wanted.mesh is not None:
        size = wanted.mesh.data * wanted.mesh.fsdp * wanted.mesh.tensor
        if size > devices:
            shape = (wanted.mesh.data, wanted.mesh.fsdp, wanted.mesh.tensor)
            raise UserError(f"config.mesh: {shape} needs {size} devices, {machine.name} has {devices}")
        yield wanted.mesh
        return
    if machine.platform == "cpu":
        # Virtual devices of one memory gain nothing.
        yield MeshConfig()
        return
    most = math.gcd(m.kv_heads, m.heads, m.ffn_width, m.vocab_size, devices)
    cuts = [cut for cut in range(1, most + 1) if most % cut == 0]
    yield from (MeshConfig(data=devices // cut, tensor=cut) for cut in cuts)
    if wanted.trained:
        yield from (MeshConfig(fsdp=devices // cut, tensor=cut) for cut in cuts if devices // cut > 1)


def _on_mesh(wanted: Wanted, machine: Target, own: MeshConfig) -> FittedShapes | Shortage:
    if machine.platform == "cpu":
        # Virtual devices have one memory between them.
        size = own.data * own.fsdp * own.tensor
        machine = dataclasses.replace(machine, memory=machine.memory // size, process=machine.process / size)
    trained = _fit_training(wanted, machine, own)
    if isinstance(trained, Shortage):
        return trained
    sampler = _fit_sampler(wanted, machine, own, trained.beside)
    if isinstance(sampler, Shortage):
        return sampler
    engine, sampling, scoring = sampler
    return FittedShapes(
        own,
        engine,
        trained.training,
        wanted.workers or max(2, min(32, machine.cores - 1)),
        wanted.checkpoint_seconds or max(10.0, trained.state / KEPT_BYTES_PER_SECOND / KEEPING_SHARE),
        round(sampling + machine.process),
        round(scoring + machine.process),
        round(trained.peak + machine.process) if wanted.trained else 0,
    )


class _Trained(NamedTuple):
    training: Training
    beside: float  # bytes of a device that lie there while answers are drawn
    peak: float
    state: float  # bytes of a device that are kept on disk


def _fit_training(wanted: Wanted, machine: Target, own: MeshConfig) -> _Trained | Shortage:
    """Microbatches and remat that every recipe's update has room for."""
    budget = _budget(machine)
    mesh = programs.make_mesh(own, (), machine.hosts, TRAINING_AXIS)
    beside = peak = state = 0.0
    by_hand = wanted.training
    training = dataclasses.replace(by_hand, tokens=by_hand.tokens or -1, remat=by_hand.remat or "none")
    shapes: list[tuple[int, str]] = []
    for arm, recipe, answer_len in wanted.trained:
        updates = RecipeUpdates(wanted.model, wanted.engine, mesh, training, recipe, answer_len, wanted.workload)
        held = updates.held_bytes
        fitted = _microbatch(updates, by_hand, machine.platform, budget - held)
        if fitted is None:
            least = held + _gradient_bytes(updates, updates.row_places, "layers", machine.platform)
            return Shortage(
                f"training arm {arm} (weights, gradients and optimizer {held / 1e9:.1f} GB)",
                least,
                f"lora_rank above 0 or optimizer.kind adafactor in the recipe of config.arms.{arm}, or fewer "
                f"{'images.max_pixels or ' if wanted.workload.images else ''}sampling.max_tokens take less",
            )
        shapes.append(fitted)
        peak = max(peak, held + _gradient_bytes(updates, *fitted, machine.platform))
        state = max(state, updates.state_bytes)
        if isinstance(recipe, Reinforced):
            beside = max(beside, updates.beside_sampler(machine.hosts))
    packed = [tokens for tokens, _ in shapes if tokens > 0]
    order = ("none", "products", "layers")
    if shapes:
        remat = max((remat for _, remat in shapes), key=order.index)
        training = dataclasses.replace(training, tokens=min(packed) if packed else -1, remat=remat)
    return _Trained(training, beside, peak, state)


def _microbatch(updates: RecipeUpdates, by_hand: Training, platform: str, room: float) -> tuple[int, str] | None:
    """(tokens, remat) of a microbatch that has room, the least computed again first; None where there is none."""
    places = updates.row_places
    for remat in [by_hand.remat] if by_hand.remat else ["none", "layers"]:
        if by_hand.tokens:
            choices = [by_hand.tokens]
        else:
            rows = min(updates.at_once(-1).tokens, max(places, MOST_TOKENS)) // places
            choices = [-1, *(places * 2**i for i in reversed(range(max(1, rows.bit_length()))))]
        for tokens in choices:
            if _gradient_bytes(updates, tokens, remat, platform) <= room:
                return tokens, remat
    return None


def _gradient_bytes(updates: RecipeUpdates, tokens: int, remat: str, platform: str) -> float:
    footprint = Footprint(updates.model, updates.mesh.shape["tensor"], platform, updates.mesh.shape["fsdp"])
    return footprint.gradient(updates.at_once(tokens), remat, Compute().max_live_logits, updates.trains_vision)


def _fit_sampler(
    wanted: Wanted, machine: Target, own: MeshConfig, beside: float
) -> tuple[EngineConfig, float, float] | Shortage:
    """The engine's shapes beside so many bytes of training, and the most that sampling and scoring take."""
    mesh = programs.make_mesh(own, (), wanted.hosts_per_replica)
    groups, budget, workload = row_devices(mesh), _budget(machine), wanted.workload
    footprint = Footprint(wanted.model, mesh.shape["tensor"], machine.platform, mesh.shape["fsdp"])
    engine = dataclasses.replace(wanted.engine, reference=False)
    longest = shapes_of(dataclasses.replace(engine, max_num_seqs=groups), mesh, workload.max_tokens).prefill_lengths[-1]
    rows, most = 16, CPU_PREFILL if machine.platform == "cpu" else math.inf
    while rows > 1 and (rows * longest > most or footprint.prefill(rows, longest) > PREFILL_SHARE * machine.memory):
        rows //= 2
    engine = dataclasses.replace(engine, prefill_rows=engine.prefill_rows or rows)
    prefill = footprint.prefill(engine.prefill_rows, longest)
    case = FitCase(wanted.model, engine, workload, mesh, machine.memory)
    weights, page = case.weight_bytes, case.with_num_seqs(case.step).page_bytes
    fixed = weights + beside
    expected = min(workload.max_tokens, max(SHORT_ANSWER, workload.max_tokens // 4))
    scorer = weights + footprint.scorer(max(workload.score_tokens, workload.max_tokens + longest))
    least = math.inf
    for num_seqs in _sequence_counts(wanted, machine, groups, case.step):
        case = case.with_num_seqs(num_seqs)
        cache_tokens = engine.cache_tokens
        whole = case.sizes.pages
        beside_cache = max(footprint.decode_window(num_seqs // groups, engine.steps_per_call), prefill)
        room = int((budget - fixed - beside_cache) // page)
        pages = whole
        if not cache_tokens and whole > room:
            pages, cache_tokens = room, max(1, room) * case.sizes.page_size * groups
        fitted = case.with_engine(cache_tokens=cache_tokens)
        one = fitted.seq_pages + longest // fitted.sizes.page_size + 2
        needed = fixed + beside_cache + max(one, pages if wanted.engine.cache_tokens else 0) * page
        least = min(least, max(needed, scorer))
        is_enough = pages >= one and (pages == whole or fitted.held(expected) >= num_seqs or num_seqs == case.step)
        if pages <= room and is_enough and scorer <= budget:
            total = fixed + beside_cache + pages * page
            buckets = wanted.engine.buckets or batch_sizes(num_seqs, groups, machine.platform, weights)
            return dataclasses.replace(fitted.engine, buckets=buckets, reference=wanted.engine.reference), total, scorer
    training = f", training {beside / 1e9:.1f} GB" if beside else ""
    return Shortage(
        f"sampling {workload.max_tokens:,} tokens (weights {weights / 1e9:.1f} GB{training}, the cache of one sample)",
        least,
        f"fewer sampling.max_tokens (now {workload.max_tokens:,}) or, where set by hand, a smaller engine.max_num_seqs "
        "or engine.cache_tokens take less",
    )


def _sequence_counts(wanted: Wanted, machine: Target, groups: int, step: int) -> Sequence[int]:
    """Numbers of sequences to try, falling."""
    if wanted.engine.max_num_seqs:
        return [wanted.engine.max_num_seqs]
    most = _most_seqs(wanted, machine, groups)
    counts = [-(-count * groups // step) * step for count in SEQ_COUNTS]
    enough = min((count for count in counts if count >= most), default=counts[0])
    return [count for count in dict.fromkeys(counts) if count <= enough]


def _most_seqs(wanted: Wanted, machine: Target, groups: int) -> int:
    """Sequences of a replica beyond which there is nothing to gain, or nothing more to draw at once."""
    return min(MOST_SEQS[machine.platform] * groups, wanted.workload.at_once)


def _budget(machine: Target) -> float:
    """Bytes of a device that are filled."""
    return MARGIN[machine.platform] * machine.memory - machine.process
