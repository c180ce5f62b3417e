"""What fits a target: the most sequences, the scorer's shape, and what would fit where something does not."""

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
"""The search for sequences ends where the next number is larger by no more than this share."""

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
    def sequence_bytes(self) -> float:
        """Pages of one more sequence on the whole mesh, on average; 0 where the config says how large the cache is."""
        some, more = (self.with_num_seqs(num_seqs).sizes for num_seqs in (self.step, 2 * self.step))
        return (more.pages - some.pages) * self.page_bytes / self.step

    @property
    def seq_pages(self) -> int:
        """Pages that a sequence's own tokens take at the limit."""
        return own_pages(self.workload.max_tokens, self.engine.steps_per_call, self.sizes.page_size)

    @property
    def weight_bytes(self) -> int:
        """The parameters."""
        return programs.device_bytes(programs.abstract_params(self.model, self.mesh))

    @property
    def fixed_bytes(self) -> float:
        """What is taken before the first sequence: parameters, and pages for prompts."""
        smallest = self.with_num_seqs(self.step)
        return self.weight_bytes + smallest.cache_bytes - self.step * self.sequence_bytes

    def window(self, num_seqs: int, compiled: Compile) -> CompiledProgram:
        """The decode window of so many sequences, all of them alive, compiled."""
        case = self.with_num_seqs(num_seqs)
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
class SequenceFit:
    """The most sequences that fit."""

    num_seqs: int  # 0: none do
    verified: bool  # by a compiled program; else by arithmetic without temporaries
    most: CompiledProgram | None  # the decode window of that many sequences
    wanted: CompiledProgram | None  # that of the config's number; None: the cache alone is too large for it
    tried: tuple[CompiledProgram, ...]


def fit_sequences(case: FitCase, compiled: Compile, prefill: CompiledProgram) -> SequenceFit:
    """The most sequences whose decode window compiles into the memory, found in a few compilations.

    Parameters and pages are known; temporaries are taken to grow with the sequences, measured, and tried again. Where
    the config says how large the cache is, more sequences than it asks for are not looked for.
    """
    fixed, wanted_num_seqs = case.fixed_bytes, case.engine.max_num_seqs

    def rounded(num_seqs: float) -> int:
        return max(0, int(num_seqs // case.step) * case.step)

    room = case.memory - fixed - (prefill.temporaries or 0)
    sequence_bytes = case.sequence_bytes
    bound = rounded(room / sequence_bytes) if sequence_bytes else wanted_num_seqs * (room > 0)
    wanted = case.window(wanted_num_seqs, compiled) if wanted_num_seqs <= bound or not prefill.real else None
    tried = [wanted] if wanted else []
    if not prefill.real:
        return SequenceFit(bound, False, None, wanted, tuple(tried))
    fits = wanted is not None and bool(wanted.fits(case.memory))
    best, most = (wanted_num_seqs, wanted) if fits else (0, None)
    num_seqs, last = (wanted_num_seqs, wanted) if wanted else (rounded(0.85 * bound), None)
    for _ in range(TRIES):
        if last is None:
            if not num_seqs:
                break
            last = case.window(num_seqs, compiled)
            tried.append(last)
            if last.fits(case.memory) and num_seqs > best:
                best, most = num_seqs, last
        # A refusal may come without a number; then 15 % less is tried.
        grown = last.alone - fixed if last.alone else (case.memory - fixed) / 0.85
        following = min(bound, rounded((case.memory - fixed) * num_seqs / max(1, grown)))
        if last.refused:
            following = min(following, rounded(num_seqs - 1))
        if following <= best * (1 + CLOSE):
            break
        num_seqs, last = following, None
    return SequenceFit(best, True, most, wanted, tuple(tried))


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


def advice(case: FitCase, fit: SequenceFit, others: Sequence[CompiledProgram]) -> list[str]:
    """What would fit, where something does not."""
    lines = _more_sequences(case, fit) if fit.num_seqs < case.engine.max_num_seqs else []
    longest = case.workload.max_tokens
    if case.engine.cache_tokens and not case.held(longest):
        sizes = case.sizes
        pages = case.seq_pages - (-(case.workload.prompt_tokens - 1) // sizes.page_size) + 1
        lines.append(
            f"config.engine.cache_tokens = {case.engine.cache_tokens:,} holds no sample of {longest:,} tokens: "
            f"{pages * sizes.page_size * sizes.shards:,} would"
        )
    for program in others:
        if program.fits(case.memory) is False:
            needs = f"{program.total / 1e9:.1f} GB" if program.total else "more"
            lines.append(f"{program.name} does not fit: it needs {needs}, a device has {case.memory / 1e9:.1f} GB")
    return lines


def _more_sequences(case: FitCase, fit: SequenceFit) -> list[str]:
    lines, num_seqs, sizes, fixed = [], case.engine.max_num_seqs, case.sizes, case.fixed_bytes
    if fit.num_seqs:
        lines.append(f"{num_seqs} sequences do not fit: config.engine.max_num_seqs = {fit.num_seqs} does")
    elif case.engine.cache_tokens:
        lines.append(f"no {case.step} sequences fit with config.engine.cache_tokens = {case.engine.cache_tokens:,}")
    else:
        lines.append(f"no {case.step} sequences fit at {case.workload.max_tokens:,} new tokens")
    beside = fit.most.temporaries * num_seqs / fit.num_seqs if fit.most and fit.most.temporaries else 0
    pages = int((case.memory - case.weight_bytes - beside) // case.page_bytes)
    smaller = case.with_engine(cache_tokens=pages * sizes.page_size * sizes.shards)
    if pages > 1 and smaller.held(case.workload.max_tokens):
        lines.append(
            f"{num_seqs} sequences would fit with config.engine.cache_tokens = {smaller.engine.cache_tokens:,}, which "
            f"holds {smaller.held(case.workload.mean_tokens)} samples of {case.workload.mean_tokens:,} tokens "
            "(arithmetic)"
        )
    if not case.sequence_bytes:
        return lines
    alone = fit.most.alone if fit.most else None
    sequence_bytes = (alone - fixed) / fit.num_seqs if alone else case.sequence_bytes
    devices = _devices_for(case, sequence_bytes / case.sequence_bytes)
    if devices:
        lines.append(f"{num_seqs} sequences would fit {devices} such devices in their default mesh (arithmetic)")
    # Of a sequence's pages one is for the window that it is at.
    own = int((case.memory - fixed) / (num_seqs * sequence_bytes) * (case.seq_pages + 1)) - 1
    if own >= 0:
        lines.append(
            f"{num_seqs} sequences would fit here at {own * sizes.page_size + sizes.steps_per_call:,} new tokens "
            "(arithmetic)"
        )
    return lines


def _devices_for(case: FitCase, growth: float) -> int | None:
    """The smallest power of two of devices that its sequences fit; growth is cache with temporaries / cache."""
    devices = 1
    while devices <= MOST_DEVICES:
        shape = programs.mesh_for(case.model, devices, MeshConfig())
        larger = case._replace(mesh=programs.make_mesh(shape, ()))
        if larger.fixed_bytes + growth * larger.sequence_bytes * case.engine.max_num_seqs <= case.memory:
            return devices
        devices *= 2
    return None
