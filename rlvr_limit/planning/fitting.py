"""What fits a target: the most slots, the scorer's shape, and what would fit where something does not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jax.sharding import AbstractMesh, Mesh

from rlvr_limit.engine.shapes import EngineShapes, own_pages, shapes_of
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.planning import programs
from rlvr_limit.planning.compiling import Compiled
from rlvr_limit.planning.programs import Program
from rlvr_limit.planning.workload import Workload
from rlvr_limit.settings import EngineConfig, MeshConfig

TRIES = 4
MOST_DEVICES = 1024
SLOTS_STEP = 8
CLOSE = 0.1
"""The search for slots ends where the next number is larger by no more than this share."""

Compile = Callable[[Program], Compiled]


class Case(NamedTuple):
    """What is to fit, in `memory` bytes of each device of a mesh."""

    model: ModelConfig
    engine: EngineConfig
    workload: Workload
    mesh: Mesh | AbstractMesh
    memory: int

    def with_slots(self, slots: int) -> Case:
        """The same with another number of slots."""
        return self._replace(engine=dataclasses.replace(self.engine, max_num_seqs=slots))

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
        """Bytes of a device that all pages take."""
        return programs.device_bytes(programs.pool(self.model, self.sizes, self.mesh))

    @property
    def page_bytes(self) -> int:
        """Bytes of a device that one page of each shard takes."""
        return self.cache_bytes // self.sizes.pages

    @property
    def slot_bytes(self) -> float:
        """Bytes of a device that the pages of one more slot on the whole mesh take, on average; 0 where the config says
        how large the cache is."""
        some, more = (self.with_slots(slots).sizes for slots in (self.step, 2 * self.step))
        return (more.pages - some.pages) * self.page_bytes / self.step

    @property
    def slot_pages(self) -> int:
        """Pages that a slot's own tokens take at the limit."""
        return own_pages(self.workload.max_tokens, self.engine.steps_per_call, self.sizes.page_size)

    @property
    def weight_bytes(self) -> int:
        """Bytes of a device that the parameters take."""
        return programs.device_bytes(programs.abstract_params(self.model, self.mesh))

    @property
    def fixed_bytes(self) -> float:
        """Bytes of a device that are taken before the first slot: parameters, and pages for prompts."""
        one = self.with_slots(self.step)
        return self.weight_bytes + one.cache_bytes - self.step * self.slot_bytes

    def window(self, slots: int, compiled: Compile) -> Compiled:
        """The decode window of so many slots, all of them alive, compiled."""
        case = self.with_slots(slots)
        return case.windows(compiled, case.sizes.buckets[-1:])[0]

    def windows(self, compiled: Compile, buckets: Sequence[int]) -> list[Compiled]:
        """The decode windows of so many rows each, compiled."""
        sizes = self.sizes
        return [compiled(programs.decode_window(self.model, sizes, self.mesh, rows)) for rows in buckets]

    def helpers(self, compiled: Compile) -> list[Compiled]:
        """Every length of prefill, longest last; windows of guesses; where samples can be set back, what moves their
        pages."""
        sizes = self.sizes
        found = [programs.verify_window(self.model, sizes, self.mesh, rows) for rows in sizes.verify_buckets]
        found += [programs.prefill(self.model, self.engine, sizes, self.mesh, n) for n in sizes.prefill_lengths]
        if self.engine.cache_tokens:
            found = [*programs.moved_pages(self.model, sizes, self.mesh), *found]
        return [compiled(program) for program in found]

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
class Fit:
    """The most slots that fit, 0 for none; verified by a compiled program, or by arithmetic without temporaries.

    most is the program of that many slots, wanted that of the config's own number (None where the cache alone is too
    large for it); tried are all that were compiled on the way.
    """

    slots: int
    verified: bool
    most: Compiled | None
    wanted: Compiled | None
    tried: tuple[Compiled, ...]


def fit_slots(case: Case, compiled: Compile, prefill: Compiled) -> Fit:
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
        return Fit(bound, False, None, wanted, tuple(tried))
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
    return Fit(best, True, most, wanted, tuple(tried))


def fit_scorer(case: Case, compiled: Compile) -> list[Compiled]:
    """The scorer at its longest rows; where it does not fit, then those tried for one that does.

    First fewer rows, then shorter ones; temporaries are taken to grow with rows x places^2, the scores of every place
    with every other.
    """
    prompt = case.engine.max_prompt_len
    places = case.workload.max_tokens
    batch = max(1, case.workload.score_tokens // places)

    def scorer() -> Compiled:
        return compiled(programs.scorer(case.model, case.mesh, batch, prompt, places))

    found = [scorer()]
    weights = case.weight_bytes
    for _ in range(TRIES):
        last = found[-1]
        if last.fits(case.memory) is not False or (batch, places) == (1, 1) or weights >= case.memory:
            break
        shrink = 0.95 * (case.memory - weights) / max(1, last.alone - weights) if last.alone else 0.5
        if batch > 1:
            batch = max(1, min(batch - 1, int(batch * shrink)))
        else:
            places = 2 ** int(math.log2(min(places * math.sqrt(min(shrink, 1.0)), places - 1)))
        found.append(scorer())
    return found


def advice(case: Case, fit: Fit, others: Sequence[Compiled]) -> list[str]:
    """What would fit, where something does not."""
    found = _more_slots(case, fit) if fit.slots < case.engine.max_num_seqs else []
    longest = case.workload.max_tokens
    if case.engine.cache_tokens and not case.held(longest):
        found.append(
            f"config.engine.cache_tokens = {case.engine.cache_tokens:,} holds no sample of {longest:,} tokens: "
            f"{_tokens_for(case, longest):,} would"
        )
    for program in others:
        if program.fits(case.memory) is False:
            needs = f"{program.total / 1e9:.1f} GB" if program.total else "more"
            found.append(f"{program.name} does not fit: it needs {needs}, a device has {case.memory / 1e9:.1f} GB")
    return found


def _more_slots(case: Case, fit: Fit) -> list[str]:
    found, slots, sizes, fixed = [], case.engine.max_num_seqs, case.sizes, case.fixed_bytes
    if fit.slots:
        found.append(f"{slots} slots do not fit: config.engine.max_num_seqs = {fit.slots} does")
    elif case.engine.cache_tokens:
        found.append(f"no {case.step} slots fit with config.engine.cache_tokens = {case.engine.cache_tokens:,}")
    else:
        found.append(f"no {case.step} slots fit at {case.workload.max_tokens:,} new tokens")
    beside = fit.most.temporaries * slots / fit.slots if fit.most and fit.most.temporaries else 0
    pages = int((case.memory - case.weight_bytes - beside) // case.page_bytes)
    cache_tokens = pages * sizes.page_size * sizes.shards
    smaller = case._replace(engine=dataclasses.replace(case.engine, cache_tokens=cache_tokens))
    if pages > 1 and smaller.held(case.workload.max_tokens):
        found.append(
            f"{slots} slots would fit with config.engine.cache_tokens = {smaller.engine.cache_tokens:,}, which holds "
            f"{smaller.held(case.workload.mean_tokens)} samples of {case.workload.mean_tokens:,} tokens (arithmetic)"
        )
    alone = fit.most.alone if fit.most else None
    slot_bytes = (alone - fixed) / fit.slots if alone else case.slot_bytes
    if not case.slot_bytes:
        return found
    devices = _devices_for(case, slot_bytes / case.slot_bytes)
    if devices:
        found.append(f"{slots} slots would fit {devices} such devices in their default mesh (arithmetic)")
    # Of a slot's pages one is for the window that it is at.
    own = int((case.memory - fixed) / (slots * slot_bytes) * (case.slot_pages + 1)) - 1
    shorter = own * sizes.page_size + sizes.steps_per_call
    if own >= 0:
        found.append(f"{slots} slots would fit here at {shorter:,} new tokens (arithmetic)")
    return found


def _tokens_for(case: Case, tokens: int) -> int:
    """The smallest engine.cache_tokens that holds a sample of so many tokens and its prompt on every shard."""
    sizes = case.sizes
    page = sizes.page_size
    pages = own_pages(tokens, sizes.steps_per_call, page) - (-(case.workload.prompt_tokens - 1) // page)
    return (pages + 1) * page * sizes.shards


def _devices_for(case: Case, growth: float) -> int | None:
    """The smallest power of two of devices that the config's slots fit; growth is cache with temporaries / cache."""
    devices = 1
    while devices <= MOST_DEVICES:
        shape = programs.mesh_for(case.model, devices, MeshConfig())
        larger = case._replace(mesh=programs.make_mesh(shape, ()))
        if larger.fixed_bytes + growth * larger.slot_bytes * case.engine.max_num_seqs <= case.memory:
            return devices
        devices *= 2
    return None
