"""Reading optimised HLO: what a program sends between devices, and which arrays it writes, a step of its token loop."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

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
    big_writes: new arrays of at least the given size a step, and outside the loop a window.
    """

    turns: int | None
    big_writes_step: float
    big_writes_window: int


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
            _scaled(all_of_it.counts, window), all_of_it.sent / window, axes, 0, writes / window, big_writes_window=0
        )
    known = _known_trips(module, loop)
    # A loop of unknown length is taken to have a turn a step.
    trips = window if known is None else known
    turns = trips / window
    inside = _collectives(module, _body(loop))
    in_loop = _big_writes(module, _body(loop), big)
    outside = _big_writes(module, module.entry, big) - in_loop * (known or 1)
    axes = _axes(inside.groups, mesh)
    return LoopReport(_scaled(inside.counts, 1 / turns), inside.sent * turns, axes, known, in_loop * turns, outside)


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


def _axes(lines: Iterable[str], mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The axes of a mesh along which members of some collective's group differ.

    Devices are numbered in the mesh's order. Where a line names no groups, all devices are one.
    """
    places = np.indices(tuple(mesh.values())).reshape(len(mesh), -1)
    found = np.zeros(len(mesh), bool)
    for line in lines:
        for group in _groups(line, places.shape[1]):
            found |= np.ptp(places[:, group], axis=1) > 0
    return tuple(name for name, is_crossed in zip(mesh, found, strict=True) if is_crossed)


def _groups(line: str, devices: int) -> list[list[int]] | np.ndarray:
    listed, counted = _LISTED.search(line), _COUNTED.search(line)
    if counted:
        shape, dims = _numbers(counted[1]), _numbers(counted[2])
        order = _numbers(counted[3]) if counted[3] else list(range(len(dims)))
        return np.arange(math.prod(dims)).reshape(dims).transpose(order).reshape(shape)
    if listed:
        return [_numbers(group) for group in re.findall(r"\{([\d,]+)\}", listed[1])]
    return [list(range(devices))]


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
