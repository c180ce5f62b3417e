"""safetensors files, read and written a few megabytes at a time.

The safetensors library maps a whole file into memory, and pages once touched count as resident until it is closed: a
model would lie on the host twice while it loads. Here a tensor is read from its place in the file in blocks of rows,
each cast and laid into its destination before the next is read; and it is written the same way.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np

from rlvr_limit.types import UserError

from .architecture import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = {"F32": jnp.float32, "F16": jnp.float16, "BF16": jnp.bfloat16}
BLOCK = 8 << 20
"""Bytes read or written at a time."""
SHARD = 4_000_000_000
"""Bytes of tensors in a file at most, unless one tensor alone has more."""


class Stored(NamedTuple):
    """Where a tensor lies: bytes [start, start + size of shape x dtype) of a file."""

    path: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int


class Draft(NamedTuple):
    """A tensor about to be written."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]


def find_tensors(folder: Path) -> dict[str, Stored]:
    """All tensors of a folder with model.safetensors, or with an index and its shards, by name.

    Raises UserError naming the file that is missing, damaged, cut off, or at odds with the index.
    """
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file() and index.is_file():
        raise UserError(f"{folder}: has both {SINGLE} and {INDEX}; only the one that is up to date would be right")
    if single.is_file():
        return read_header(single)
    if not index.is_file():
        raise UserError(f"{folder}: has neither {SINGLE} nor {INDEX}; weights in safetensors format would be right")
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise UserError(f"{index}: weight_map: an object from tensor to file would be right")
    found = {}
    for file in sorted(set(places.values())):
        if not (folder / file).is_file():
            raise UserError(f"{folder / file}: this shard is missing, and {INDEX} names it")
        found |= read_header(folder / file)
    for name in sorted(places.keys() | found.keys()):
        if name not in found or found[name].path != folder / places.get(name, ""):
            where = f"has it in {found[name].path.name}" if name in found else f"{places[name]} lacks it"
            raise UserError(
                f"{index}: tensor {name}: the index says {places.get(name, 'nothing')}, but the folder {where}"
            )
    return found


def read_header(path: Path) -> dict[str, Stored]:
    """The tensors of one safetensors file. UserError naming a file that is damaged or cut off."""
    total = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if total < 8 or length > total - 8:
            raise UserError(f"{path}: cut off or no safetensors file: {total} bytes do not hold its header")
        try:
            header = json.loads(file.read(length))
            entries = [
                (name, entry["dtype"], tuple(entry["shape"]), tuple(entry["data_offsets"]))
                for name, entry in header.items()
                if name != "__metadata__"
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: its safetensors header is damaged ({error!r})") from error
    found = {}
    for name, dtype, shape, (start, stop) in entries:
        if dtype not in DTYPES:
            raise UserError(f"{path}: tensor {name}: found dtype {dtype}, but one of {', '.join(DTYPES)} is right")
        if stop - start != math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize:
            raise UserError(f"{path}: its header is damaged: tensor {name} of shape {shape} has {stop - start} bytes")
        found[name] = Stored(path, np.dtype(DTYPES[dtype]), shape, 8 + length + start)
    wanted = 8 + length + max((stop for *_, (_, stop) in entries), default=0)
    if total != wanted:
        raise UserError(f"{path}: found {total} bytes, but by its header {wanted} would be right; fetch the file again")
    return found


def read_blocks(stored: Stored, first: int, last: int) -> Iterator[tuple[int, np.ndarray]]:
    """(row number, block) of rows [first, last) of a tensor seen as [rows, all else]."""
    width = math.prod(stored.shape[1:])
    row_bytes = width * stored.dtype.itemsize
    step = max(1, BLOCK // max(1, row_bytes))
    with stored.path.open("rb") as file:
        file.seek(stored.start + first * row_bytes)
        for row in range(first, last, step):
            block = np.empty((min(step, last - row), width), stored.dtype)
            if file.readinto(block.reshape(-1).view(np.uint8)) != block.nbytes:
                raise UserError(f"{stored.path}: it ended while it was being read")
            yield row, block


def read_part(stored: Stored, rows: slice, columns: slice, dtype: np.dtype, transposed: bool) -> np.ndarray:
    """Rows and columns of a tensor seen as [rows, all else], cast; transposed: laid out as [columns, rows]."""
    shape = (rows.stop - rows.start, columns.stop - columns.start)
    out = np.empty(shape[::-1] if transposed else shape, dtype)
    view = out.T if transposed else out
    for row, block in read_blocks(stored, rows.start, rows.stop):
        target, source = view[row - rows.start :][: len(block)], block[:, columns]
        if source.dtype == dtype:
            # As plain integers: numpy moves a bfloat16 several times slower than the two bytes it is.
            target, source = (x.view(f"u{dtype.itemsize}") for x in (target, source))
        target[:] = source
    return out


def same_values(a: Stored, b: Stored) -> bool:
    """Whether two tensors hold the same bytes."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    pairs = zip(read_blocks(a, 0, a.shape[0]), read_blocks(b, 0, b.shape[0]), strict=True)
    return all(np.array_equal(x.view(np.uint8), y.view(np.uint8)) for (_, x), (_, y) in pairs)


def plan_files(drafts: list[Draft]) -> list[tuple[str, list[Draft]]]:
    """(file name, its tensors) of a model: tensors in order, at most SHARD bytes a file."""
    files: list[list[Draft]] = []
    room = 0
    for draft in drafts:
        size = _bytes(draft)
        if not files or size > room:
            files.append([])
            room = SHARD
        files[-1].append(draft)
        room -= size
    if len(files) == 1:
        return [(SINGLE, files[0])]
    return [(f"model-{i:05}-of-{len(files):05}.safetensors", part) for i, part in enumerate(files, 1)]


def write_index(folder: Path, files: list[tuple[str, list[Draft]]]) -> None:
    """The index of a model of several files; nothing for one."""
    if len(files) > 1:
        total = sum(_bytes(draft) for _, drafts in files for draft in drafts)
        places = {draft.name: file for file, drafts in files for draft in drafts}
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": places}, indent=2)
        (folder / INDEX).write_text(text + "\n", encoding="utf-8")


def write_file(path: Path, drafts: list[Draft], values: Callable[[Draft], np.ndarray]) -> None:
    """Writes a file of tensors; the values of each are asked for when its turn comes, and let go of after it."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    names = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
    start = 0
    for draft in drafts:
        stop = start + _bytes(draft)
        header[draft.name] = {"dtype": names[draft.dtype], "shape": list(draft.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for draft in drafts:
            _write_rows(file, values(draft).reshape(draft.shape[0], -1))


def _write_rows(file: BinaryIO, rows: np.ndarray) -> None:
    step = max(1, BLOCK // max(1, rows[:1].nbytes))
    for row in range(0, len(rows), step):
        file.write(np.ascontiguousarray(rows[row : row + step]).reshape(-1).view(np.uint8))


def _bytes(draft: Draft) -> int:
    return math.prod(draft.shape) * draft.dtype.itemsize
