"""Reading optimised HLO: what a program sends between devices, and which arrays it writes, a step of its token loop; of
a TPU's program how long its compiler thinks that takes."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from rlvr_limit.planning.programs import DeviceProgram
from rlvr_limit.planning.targets import Target

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
# Opcodes that name memory which is already there, or that update it in place.
NO_NEW_ARRAY = ("parameter", "get-tuple-element", "tuple", "bitcast", "while", "conditional", "call", "constant")
IN_PLACE = ("dynamic-update-slice", "scatter", "opt-barrier", "copy-done", "async-done", "async-update")
BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "f16": 16, "f32": 32, "f64": 64}

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z]+[0-9]*)\w*\[([0-9,]*)\]")
_CALLED = re.compile(r"\b(?:calls|body|to_apply|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_KNOWN_TRIPS = re.compile(r'known_trip_count"?:\{"n":"(\d+)"')
_LISTED = re.compile(r"\b(?:replica_groups|source_target_pairs)=\{((?:\{[\d,]*\},?)+)\}")
_COUNTED = re.compile(r"\breplica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_NAMED = re.compile(
    r"\breplica_groups=mesh\[([^\]]+)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{((?:'\w+',?)+)\}"
)
# What cost_analysis() calls optimal_seconds says nothing of a step: it is of the whole program, with each loop's body
# counted once; a custom call of unknown cost takes a second off; what lies on the chip counts as read from memory.
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
# Arrays moved while other operations run, and which of those that the instruction names is the one that is written.
_MOVES = {"copy-start": 0, "slice-start": -2}


CLOCKS = {"TPU v5e": 1.5e9, "TPU v5p": 1.75e9, "TPU v6e": 1.75e9}
"""Cycles a second of a chip's estimated_cycles: the rate at which all matrix units together make its peak."""


def text_of(program: DeviceProgram, target: Target) -> str:
    """The optimised HLO of a program, by the target's compiler."""
    return program.trace().lower(lowering_platforms=(target.platform,)).compile().as_text()


@dataclass(frozen=True)
class Instruction:
    """One line of a computation: its operation, the bytes of each array it yields, the rest of the line."""

    name: str
    opcode: str
    sizes: tuple[int, ...]
    rest: str
    root: bool


@dataclass(frozen=True)
class Module:
    """A parsed program: instructions by computation, and the name of the entry."""

    computations: dict[str, tuple[Instruction, ...]]
    entry: str


@dataclass(frozen=True)
class Sends:
    """What a program, or one step of a loop, sends between devices.

    collectives: (kind, number); sent: bytes they yield on each device; axes: those of the mesh that they go over.
    """

    collectives: tuple[tuple[str, float], ...]
    sent: float
    axes: tuple[str, ...]


@dataclass(frozen=True)
class LoopReport(Sends):
    """What one step of a token loop does on each device.

    turns: how often the loop runs in a window, None where the compiler does not know, 0 where it left no loop.
    big_writes: new arrays of at least the given size a step, and outside the loop a window. cycles: those that the
    compiler counts for a step, None where it counts none; moved: bytes that move between memories of the device beside
    what they are counted for.
    """

    turns: int | None
    big_writes_step: float
    big_writes_window: int
    cycles: float | None = None
    moved: float = 0.0


def parse(text: str) -> Module:
    """A Module from `compiled.as_text()`."""
    computations: dict[str, list[Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        header = _HEADER.match(line)
        if header:
            current = computations.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
            continue
        found = _INSTRUCTION.match(line)
        if found and current is not None:
            kind, opcode, rest = _split(found[3])
            current.append(Instruction(found[2], opcode, _sizes(kind), rest, bool(found[1])))
    return Module({name: tuple(lines) for name, lines in computations.items()}, entry)


def sends(text: str, mesh: Mapping[str, int]) -> Sends:
    """What a whole program sends; loops count as often as they run, where that is known."""
    module = parse(text)
    found = _collectives(module, module.entry)
    return Sends(_scaled(found.counts, 1), found.sent, _axes(found.groups, mesh))


def token_loop(text: str, window: int, big: int, mesh: Mapping[str, int]) -> LoopReport:
    """Reads a decode program of `window` steps; arrays of `big` bytes or more are called big.

    mesh: the size of each axis of the program's mesh, in order.

    The token loop is the outermost loop that contains most instructions; loops inside it count as often as they run.
    Where the compiler left no loop, the whole program is one window. The dearest branch of a conditional counts.
    """
    module = parse(text)
    loops = [line for line in _reached(module, module.entry) if line.opcode == "while"]
    loop = max(loops, key=lambda line: _instructions(module, _body(line)), default=None)
    if loop is None:
        all_of_it, writes = _collectives(module, module.entry), _big_writes(module, module.entry, big)
        axes = _axes(all_of_it.groups, mesh)
        return LoopReport(
            _scaled(all_of_it.counts, window),
            all_of_it.sent / window,
            axes,
            turns=0,
            big_writes_step=writes / window,
            big_writes_window=0,
            **_time(module, module.entry, 1 / window),
        )
    known = _known_trips(module, loop)
    # A loop of unknown length is taken to have a turn a step.
    trips = window if known is None else known
    turns = trips / window
    inside = _collectives(module, _body(loop))
    in_loop = _big_writes(module, _body(loop), big)
    outside = _big_writes(module, module.entry, big) - in_loop * (known or 1)
    axes = _axes(inside.groups, mesh)
    return LoopReport(
        _scaled(inside.counts, 1 / turns),
        inside.sent * turns,
        axes,
        known,
        in_loop * turns,
        outside,
        **_time(module, _body(loop), turns),
    )


def _scaled(counts: Counter, divisor: float) -> tuple[tuple[str, float], ...]:
    return tuple((kind, count / divisor) for kind, count in sorted(counts.items()))


def _split(text: str) -> tuple[str, str, str]:
    """(type, opcode, the rest) of the right-hand side of an instruction."""
    end = text.find(" ")
    if text.startswith("("):
        depths = itertools.accumulate((letter == "(") - (letter == ")") for letter in text)
        end = next(i for i, depth in enumerate(depths) if not depth) + 1
    opcode, _, rest = text[end + 1 :].partition("(")
    return text[:end], opcode, rest


def _sizes(kind: str) -> tuple[int, ...]:
    # Layouts such as {1,0:T(8,128)S(1)} hold no brackets, so only arrays match.
    return tuple(
        math.prod(map(int, filter(None, shape.split(",")))) * BITS.get(name, _bits(name)) // 8
        for name, shape in _ARRAY.findall(kind)
    )


def _bits(name: str) -> int:
    digits = re.sub(r"\D", "", name)
    return int(digits) if digits else 0


def _body(loop: Instruction) -> str:
    return re.search(r"\bbody=%?([\w.\-]+)", loop.rest)[1]


def _called(line: Instruction) -> list[str]:
    """Computations that run when the instruction does; a reduction's or collective's own operator is not one."""
    if line.opcode not in ("fusion", "while", "conditional", "call", "async-start", "custom-call"):
        return []
    branches = _BRANCHES.search(line.rest)
    return _CALLED.findall(line.rest) + (re.findall(r"%?([\w.\-]+)", branches[1]) if branches else [])


def _reached(module: Module, name: str) -> list[Instruction]:
    """Instructions of a computation and of those it calls, but not those inside of loops."""
    found = []
    for line in module.computations.get(name, ()):
        found.append(line)
        if line.opcode != "while":
            found += [inner for called in _called(line) for inner in _reached(module, called)]
    return found


def _instructions(module: Module, name: str) -> int:
    lines = module.computations.get(name, ())
    return len(lines) + sum(_instructions(module, called) for line in lines for called in _called(line))


def _trips(module: Module, loop: Instruction) -> int:
    return _known_trips(module, loop) or 1


def _known_trips(module: Module, loop: Instruction) -> int | None:
    """How often a loop runs: as the compiler says, or the one constant its condition compares with."""
    known = _KNOWN_TRIPS.search(loop.rest)
    if known:
        return int(known[1])
    condition = re.search(r"\bcondition=%?([\w.\-]+)", loop.rest)[1]
    bounds = [line.rest for line in _reached(module, condition) if line.opcode == "constant"]
    return int(bounds[0].partition(")")[0]) if len(bounds) == 1 and bounds[0].partition(")")[0].isdigit() else None


class _Found(NamedTuple):
    """Collectives: how many of each kind, the bytes they yield, and the rest of each one's line."""

    counts: Counter
    sent: float
    groups: frozenset[str]


def _collectives(module: Module, name: str) -> _Found:
    counts, sent, groups = Counter(), 0.0, frozenset()
    for line in module.computations.get(name, ()):
        kind = line.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            counts[kind] += 1
            sent += max(line.sizes, default=0)
            groups |= {line.rest}
            continue
        inner = [_collectives(module, called) for called in _called(line)]
        groups = groups.union(*(found.groups for found in inner))
        if line.opcode == "conditional":
            inner = [max(inner, key=lambda found: (found.counts.total(), found.sent))] if inner else []
        times = _trips(module, line) if line.opcode == "while" else 1
        for found in inner:
            counts += Counter({kind: count * times for kind, count in found.counts.items()})
            sent += found.sent * times
    return _Found(counts, sent, groups)


class _Busy(NamedTuple):
    """Cycles that the compiler counts, and bytes moved beside them."""

    cycles: int = 0
    moved: int = 0


def _busy(module: Module, name: str) -> _Busy:
    total = _Busy()
    for line in module.computations.get(name, ()):
        cycles = _CYCLES.search(line.rest)
        moved = line.sizes[_MOVES[line.opcode]] if line.opcode in _MOVES else 0
        # What a fusion is made of is in the fusion's own cycles.
        inner = [_busy(module, called) for called in _called(line)] if line.opcode != "fusion" else []
        if line.opcode == "conditional":
            inner = [max(inner, default=_Busy())]
        times = _trips(module, line) if line.opcode == "while" else 1
        total = _Busy(
            total.cycles + (int(cycles[1]) if cycles else 0) + times * sum(each.cycles for each in inner),
            total.moved + moved + times * sum(each.moved for each in inner),
        )
    return total


def _time(module: Module, name: str, share: float) -> dict[str, float]:
    """Fields of a LoopReport: that share of a computation's cycles and moves, where the compiler counts any."""
    busy = _busy(module, name)
    return {"cycles": busy.cycles * share, "moved": busy.moved * share} if busy.cycles else {}


def _axes(lines: Iterable[str], mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The axes of a mesh along which members of some collective's group differ.

    Devices are numbered in the mesh's order. Where a line names no groups that are understood, all devices are one.
    """
    places = np.indices(tuple(mesh.values())).reshape(len(mesh), -1)
    found = np.zeros(len(mesh), bool)
    for line in lines:
        for group in _groups(line, places.shape[1]):
            found |= np.ptp(places[:, group], axis=1) > 0
    return tuple(name for name, is_crossed in zip(mesh, found, strict=True) if is_crossed)


def _groups(line: str, devices: int) -> list[list[int]] | np.ndarray:
    listed, counted, named = _LISTED.search(line), _COUNTED.search(line), _NAMED.search(line)
    if counted:
        return _numbered(counted[2], counted[3]).reshape(_numbers(counted[1]))
    if named:
        sizes = {axis: int(size) for axis, size in re.findall(r"'(\w+)'=(\d+)", named[1])}
        ids = _numbered(named[2] or str(devices), named[3]).reshape(list(sizes.values()))
        along = [list(sizes).index(axis) for axis in re.findall(r"\w+", named[4])]
        last = range(-len(along), 0)
        return np.moveaxis(ids, along, last).reshape(-1, math.prod(ids.shape[axis] for axis in along))
    if listed:
        return [_numbers(group) for group in re.findall(r"\{([\d,]+)\}", listed[1])]
    return [list(range(devices))]


def _numbered(dims: str, order: str | None) -> np.ndarray:
    """Devices in the order of an iota of these dimensions that is transposed so."""
    ids = np.arange(math.prod(_numbers(dims))).reshape(_numbers(dims))
    return ids.transpose(_numbers(order)) if order else ids


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def _big_writes(module: Module, name: str, big: int) -> int:
    total = 0
    for line in module.computations.get(name, ()):
        if line.opcode in ("while", "conditional", "call"):
            inner = [_big_writes(module, called, big) for called in _called(line)]
            times = _trips(module, line) if line.opcode == "while" else 1
            total += times * (max(inner, default=0) if line.opcode == "conditional" else sum(inner))
        elif line.opcode == "fusion":
            written = _in_place(module, line)
            total += sum(size >= big and not same for size, same in zip(line.sizes, written, strict=True))
        elif line.opcode == "copy-start":
            total += any(size >= big for size in line.sizes)
        elif line.opcode not in NO_NEW_ARRAY + IN_PLACE:
            total += sum(size >= big for size in line.sizes)
    return total


def _in_place(module: Module, fusion: Instruction) -> list[bool]:
    """For each array that a fusion yields: whether its last operation updates an array in place."""
    lines = {line.name: line for line in module.computations[_called(fusion)[0]]}
    root = next(line for line in lines.values() if line.root)
    ends = [lines[name] for name in _operands(root)] if root.opcode == "tuple" else [root]
    ends += [ends[-1]] * (len(fusion.sizes) - len(ends))

    def updates(line: Instruction) -> bool:
        while line.opcode == "bitcast":
            line = lines[_operands(line)[0]]
        return line.opcode in IN_PLACE or line.opcode == "parameter"

    return [updates(line) for line in ends[: len(fusion.sizes)]]


def _operands(line: Instruction) -> list[str]:
    return re.findall(r"%([\w.\-]+)", line.rest.partition("), ")[0])
