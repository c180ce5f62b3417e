"""What fits a target: the most slots, the scorer's shape, and what would fit where something does not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from jax.sharding import AbstractMesh, Mesh

from rlvr_limit.engine import EngineConfig
from rlvr_limit.mesh import MeshConfig
from rlvr_limit.model import ModelConfig
from rlvr_limit.planning import programs
from rlvr_limit.planning.compiling import Compiled
from rlvr_limit.planning.programs import Program
from rlvr_limit.planning.study import Study

TRIES = 4
MOST_DEVICES = 1024
SLOTS_STEP = 8
CLOSE = 0.1
"""The search for slots ends where the next number is larger by no more than this share."""

Compile = Callable[[Program, int], Compiled]
"""(program, bytes of a cache-sized array) -> what became of it."""


class Case(NamedTuple):
    """What is to fit, in `memory` bytes of each device of a mesh."""

    model: ModelConfig
    engine: EngineConfig
    study: Study
    mesh: Mesh | AbstractMesh
    memory: int

    def with_slots(self, slots: int) -> Case:
        """The same with another number of slots."""
        return self._replace(engine=dataclasses.replace(self.engine, slots=slots))

    @property
    def step(self) -> int:
        """Slots come in multiples of this, so that every device has as many rows and as many draws."""
        return math.lcm(self.mesh.size, SLOTS_STEP)

    @property
    def cache_bytes(self) -> int:
        """Bytes of a device that the cache of all slots takes."""
        return programs.device_bytes(programs.cache(self.model, self.engine, self.mesh, self.study.max_tokens))

    @property
    def slot_bytes(self) -> float:
        """Bytes of a device that one more slot on the whole mesh takes, on average."""
        return self.with_slots(self.step).cache_bytes / self.step

    @property
    def weight_bytes(self) -> int:
        """Bytes of a device that the parameters take."""
        return programs.device_bytes(programs.abstract_params(self.model, self.mesh))

    @property
    def prefix_bytes(self) -> int:
        """Bytes of a device that the store of prompts takes."""
        return programs.device_bytes(programs.prefixes(self.model, self.engine, self.mesh))

    def window(self, slots: int, compiled: Compile) -> Compiled:
        """The decode window of so many slots, compiled."""
        case = self.with_slots(slots)
        leaf = programs.cache(case.model, case.engine, case.mesh, case.study.max_tokens)[0][0]
        program = programs.decode_window(case.model, case.engine, case.mesh, case.study.max_tokens)
        return compiled(program, programs.device_bytes(leaf))


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

    Parameters, prompts and cache are known; temporaries are taken to grow with the slots, measured, and tried again.
    """
    fixed, wanted_slots = case.weight_bytes + case.prefix_bytes, case.engine.slots

    def rounded(slots: float) -> int:
        return max(0, int(slots // case.step) * case.step)

    bound = rounded((case.memory - fixed - (prefill.temporaries or 0)) / case.slot_bytes)
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
        following = min(bound, rounded((case.memory - fixed) * slots / grown))
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
    places = case.engine.prompt_places + case.study.max_tokens
    batch = max(1, case.study.score_tokens // places)
    found = [compiled(programs.scorer(case.model, case.mesh, batch, places), 0)]
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
        found.append(compiled(programs.scorer(case.model, case.mesh, batch, places), 0))
    return found


def advice(case: Case, fit: Fit, others: Sequence[Compiled]) -> list[str]:
    """What would fit, where something does not."""
    found, slots = [], case.engine.slots
    fixed = case.weight_bytes + case.prefix_bytes
    alone = fit.most.alone if fit.most else None
    slot_bytes = (alone - fixed) / fit.slots if alone else case.slot_bytes
    if fit.slots < slots:
        if fit.slots:
            found.append(f"{slots} slots do not fit: config.engine.slots = {fit.slots} does")
        else:
            found.append(f"no {case.step} slots fit at {case.study.max_tokens:,} new tokens")
        devices = _devices_for(case, slot_bytes / case.slot_bytes)
        if devices:
            found.append(f"{slots} slots would fit {devices} such devices in their default mesh (arithmetic)")
        places = case.engine.prompt_places + case.study.max_tokens
        shorter = int((case.memory - fixed) / (slots * slot_bytes) * places) - case.engine.prompt_places
        if shorter > 0:
            found.append(f"{slots} slots would fit here at {shorter:,} new tokens (arithmetic)")
    for program in others:
        if program.fits(case.memory) is False:
            needs = f"{program.total / 1e9:.1f} GB" if program.total else "more"
            found.append(f"{program.name} does not fit: it needs {needs}, a device has {case.memory / 1e9:.1f} GB")
    return found


def _devices_for(case: Case, growth: float) -> int | None:
    """The smallest power of two of devices that the config's slots fit; growth is cache with temporaries / cache."""
    devices = 1
    while devices <= MOST_DEVICES:
        shape = programs.mesh_for(case.model, devices, MeshConfig())
        larger = case._replace(mesh=programs.make_mesh(shape, ()))
        fixed = larger.weight_bytes + larger.prefix_bytes
        if fixed + growth * larger.slot_bytes * case.engine.slots <= case.memory:
            return devices
        devices *= 2
    return None
