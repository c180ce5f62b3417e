"""What fits a target: the most slots, the scorer's shape, and what would fit where something does not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlvr_limit.engine.shapes import EngineShapes, own_pages, shapes_of
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.planning import programs
from rlvr_limit.planning.programs import AnyMesh, CompiledProgram, DeviceProgram
from rlvr_limit.planning.workload import Workload
from rlvr_limit.settings import EngineConfig, MeshConfig

TRIES = 4
MOST_DEVICES = 1024
SLOTS_STEP = 8
CLOSE = 0.1
"""The search for slots ends where the next number is larger by no more than this share."""

Compile = Callable[[DeviceProgram], CompiledProgram]


class FitCase(NamedTuple):
    """What is to fit, in `memory` bytes of each device of a mesh. Bytes are of one device."""

    model: ModelConfig
    engine: EngineConfig
    workload: Workload
    mesh: AnyMesh
    memory: int

    def with_engine(self, **fields: int) -> FitCase:
        """The same with other fields of the engine's config."""
        return self._replace(engine=dataclasses.replace(self.engine, **fields))

    def with_slots(self, slots: int) -> FitCase:
        """The same with another number of slots."""
        return self.with_engine(max_num_seqs=slots)

    @property
    def step(self) -> int:
        """Slots come in multiples of this, so that every device has as many rows and as many draws."""
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
    def slot_bytes(self) -> float:
        """The pages of one more slot on the whole mesh, on average; 0 where the config says how large the cache is."""
        some, more = (self.with_slots(slots).sizes for slots in (self.step, 2 * self.step))
        return (more.pages - some.pages) * self.page_bytes / self.step

    @property
    def slot_pages(self) -> int:
        """Pages that a slot's own tokens take at the limit."""
        return own_pages(self.workload.max_tokens, self.engine.steps_per_call, self.sizes.page_size)

    @property
    def weight_bytes(self) -> int:
        """The parameters."""
        return programs.device_bytes(programs.abstract_params(self.model, self.mesh))

    @property
    def fixed_bytes(self) -> float:
        """What is taken before the first slot: parameters, and pages for prompts."""
        smallest = self.with_slots(self.step)
        return self.weight_bytes + smallest.cache_bytes - self.step * self.slot_bytes

    def window(self, slots: int, compiled: Compile) -> CompiledProgram:
        """The decode window of so many slots, all of them alive, compiled."""
        case = self.with_slots(slots)
        return case.windows(compiled, case.sizes.buckets[-1:])[0]

    def windows(self, compiled: Compile, buckets: Sequence[int]) -> list[CompiledProgram]:
        """The decode windows of so many rows each, compiled."""
        return [compiled(programs.decode_window(self.model, self.sizes, self.mesh, rows)) for rows in buckets]

    def helpers(self, compiled: Compile) -> list[CompiledProgram]:
        """What runs beside the decode windows, compiled: prefills of every length come last, the longest at the end."""
        given = self.model, self.sizes, self.mesh
        # Where the config says how large the cache is, samples can be preempted, and their pages moved.
        moved = programs.moved_pages(*given) if self.engine.cache_tokens else ()
        verified = (programs.verify_window(*given, rows) for rows in self.sizes.verify_buckets)
        prefills = (
            programs.prefill(self.model, self.engine, self.sizes, self.mesh, length)
            for length in self.sizes.prefill_lengths
        )
        return [compiled(program) for program in (*moved, *verified, *prefills)]

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


@dataclass(frozen=True)
class SlotFit:
    """The most slots that fit."""

    slots: int  # 0: none do
    verified: bool  # by a compiled program; else by arithmetic without temporaries
    most: CompiledProgram | None  # the decode window of that many slots
    wanted: CompiledProgram | None  # that of the config's number; None: the cache alone is too large for it
    tried: tuple[CompiledProgram, ...]


def fit_slots(case: FitCase, compiled: Compile, prefill: CompiledProgram) -> SlotFit:
    """The most slots whose decode window compiles into the memory, found in a few compilations.

    Parameters and pages are known; temporaries are taken to grow with the slots, measured, and tried again. Where the
    config says how large the cache is, more slots than it asks for are not looked for.
    """
    fixed, wanted_slots = case.fixed_bytes, case.engine.max_num_seqs

    def rounded(slots: float) -> int:
        return max(0, int(slots // case.step) * case.step)

    room = case.memory - fixed - (prefill.temporaries or 0)
    slot_bytes = case.slot_bytes
    bound = rounded(room / slot_bytes) if slot_bytes else wanted_slots * (room > 0)
    wanted = case.window(wanted_slots, compiled) if wanted_slots <= bound or not prefill.real else None
    tried = [wanted] if wanted else []
    if not prefill.real:
        return SlotFit(bound, False, None, wanted, tuple(tried))
    fits = wanted is not None and bool(wanted.fits(case.memory))
    best, most = (wanted_slots, wanted) if fits else (0, None)
    slots, last = (wanted_slots, wanted) if wanted else (rounded(0.85 * bound), None)
    for _ in range(TRIES):
        if last is None:
            if not slots:
                break
            last = case.window(slots, compiled)
            tried.append(last)
            if last.fits(case.memory) and slots > best:
                best, most = slots, last
        # A refusal may come without a number; then 15 % less is tried.
        grown = last.alone - fixed if last.alone else (case.memory - fixed) / 0.85
        following = min(bound, rounded((case.memory - fixed) * slots / max(1, grown)))
        if last.refused:
            following = min(following, rounded(slots - 1))
        if following <= best * (1 + CLOSE):
            break
        slots, last = following, None
    return SlotFit(best, True, most, wanted, tuple(tried))


def fit_scorer(case: FitCase, compiled: Compile) -> list[CompiledProgram]:
    """The scorer at its longest rows; where it does not fit, then those tried for one that does.

    First fewer rows, then shorter ones; temporaries are taken to grow with rows x length^2, the scores of every
    position with every other.
    """
    length = case.workload.max_tokens
    batch = max(1, case.workload.score_tokens // length)
    weights = case.weight_bytes
    tried: list[CompiledProgram] = []
    while True:
        last = compiled(programs.scorer(case.model, case.mesh, batch, case.engine.max_prompt_len, length))
        tried.append(last)
        smallest = (batch, length) == (1, 1) or len(tried) > TRIES
        if last.fits(case.memory) is not False or smallest or weights >= case.memory:
            return tried
        shrink = 0.95 * (case.memory - weights) / max(1, last.alone - weights) if last.alone else 0.5
        if batch > 1:
            batch = max(1, min(batch - 1, int(batch * shrink)))
        else:
            length = 2 ** int(math.log2(min(length * math.sqrt(min(shrink, 1.0)), length - 1)))


def advice(case: FitCase, fit: SlotFit, others: Sequence[CompiledProgram]) -> list[str]:
    """What would fit, where something does not."""
    lines = _more_slots(case, fit) if fit.slots < case.engine.max_num_seqs else []
    longest = case.workload.max_tokens
    if case.engine.cache_tokens and not case.held(longest):
        sizes = case.sizes
        pages = case.slot_pages - (-(case.workload.prompt_tokens - 1) // sizes.page_size) + 1
        lines.append(
            f"config.engine.cache_tokens = {case.engine.cache_tokens:,} holds no sample of {longest:,} tokens: "
            f"{pages * sizes.page_size * sizes.shards:,} would"
        )
    for program in others:
        if program.fits(case.memory) is False:
            needs = f"{program.total / 1e9:.1f} GB" if program.total else "more"
            lines.append(f"{program.name} does not fit: it needs {needs}, a device has {case.memory / 1e9:.1f} GB")
    return lines


def _more_slots(case: FitCase, fit: SlotFit) -> list[str]:
    lines, slots, sizes, fixed = [], case.engine.max_num_seqs, case.sizes, case.fixed_bytes
    if fit.slots:
        lines.append(f"{slots} slots do not fit: config.engine.max_num_seqs = {fit.slots} does")
    elif case.engine.cache_tokens:
        lines.append(f"no {case.step} slots fit with config.engine.cache_tokens = {case.engine.cache_tokens:,}")
    else:
        lines.append(f"no {case.step} slots fit at {case.workload.max_tokens:,} new tokens")
    beside = fit.most.temporaries * slots / fit.slots if fit.most and fit.most.temporaries else 0
    pages = int((case.memory - case.weight_bytes - beside) // case.page_bytes)
    smaller = case.with_engine(cache_tokens=pages * sizes.page_size * sizes.shards)
    if pages > 1 and smaller.held(case.workload.max_tokens):
        lines.append(
            f"{slots} slots would fit with config.engine.cache_tokens = {smaller.engine.cache_tokens:,}, which holds "
            f"{smaller.held(case.workload.mean_tokens)} samples of {case.workload.mean_tokens:,} tokens (arithmetic)"
        )
    if not case.slot_bytes:
        return lines
    alone = fit.most.alone if fit.most else None
    slot_bytes = (alone - fixed) / fit.slots if alone else case.slot_bytes
    devices = _devices_for(case, slot_bytes / case.slot_bytes)
    if devices:
        lines.append(f"{slots} slots would fit {devices} such devices in their default mesh (arithmetic)")
    # Of a slot's pages one is for the window that it is at.
    own = int((case.memory - fixed) / (slots * slot_bytes) * (case.slot_pages + 1)) - 1
    if own >= 0:
        lines.append(
            f"{slots} slots would fit here at {own * sizes.page_size + sizes.steps_per_call:,} new tokens (arithmetic)"
        )
    return lines


def _devices_for(case: FitCase, growth: float) -> int | None:
    """The smallest power of two of devices that the config's slots fit; growth is cache with temporaries / cache."""
    devices = 1
    while devices <= MOST_DEVICES:
        shape = programs.mesh_for(case.model, devices, MeshConfig())
        larger = case._replace(mesh=programs.make_mesh(shape, ()))
        if larger.fixed_bytes + growth * larger.slot_bytes * case.engine.max_num_seqs <= case.memory:
            return devices
        devices *= 2
    return None
