"""What a GGUF file says of itself: its metadata, and where its tensors lie (ggml's docs/gguf.md, versions 2 and 3).

Read here: the reader of the gguf package takes 15 s for Qwen2.5's vocabulary, this one a second.
"""

from __future__ import annotations

import functools
import mmap
import struct
from pathlib import Path
from typing import Any, NamedTuple

from rlvr_limit.types import UserError, not_allowed

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
"""Kinds of values."""
ALIGNMENT = 32


class GgufTensor(NamedTuple):
    """A tensor of a file: its shape with rows first, the number of its type, and where its bytes begin."""

    shape: tuple[int, ...]
    kind: int
    start: int


class GgufHeader(NamedTuple):
    """The metadata and tensors of a file, by the names there."""

    fields: dict[str, Any]
    tensors: dict[str, GgufTensor]
    size: int  # of the file


def is_gguf(path: Path) -> bool:
    """Whether a path names a GGUF file, not a folder."""
    return path.suffix == ".gguf" and path.is_file()


def read_header(path: Path) -> GgufHeader:
    """The header of a file, read once while the file stays as it is. UserError where it is none, or is cut off."""
    state = path.stat()
    return _read_header(path.absolute(), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=2)
def _read_header(path: Path, size: int, changed: int) -> GgufHeader:
    if not size:
        raise not_allowed(str(path), 0, "a number of bytes that a GGUF file can have")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != b"GGUF":
            raise UserError(f"{path}: not a GGUF file: it begins with {data[:4]!r}")
        try:
            return _parsed(path, _Cursor(data, 4), size)
        except (struct.error, ValueError, KeyError, TypeError, ArithmeticError) as error:
            raise UserError(f"{path}: damaged or cut off, so fetch the file again ({error!r})") from error


class _Cursor:
    """Takes one value after the other; numbers are little-endian."""

    def __init__(self, data: mmap.mmap, at: int):
        self._data, self.at = data, at

    def number(self, code: str) -> Any:
        (value,) = struct.unpack_from(f"<{code}", self._data, self.at)
        self.at += struct.calcsize(f"<{code}")
        return value

    def string(self) -> str:
        size = self.number("Q")
        raw = self._data[self.at : self.at + size]
        if len(raw) < size:
            raise ValueError(f"a text of {size} bytes goes beyond the end")
        self.at += size
        return raw.decode()

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind != ARRAY:
            return self.number(NUMBERS[kind])
        inner, count = self.number("I"), self.number("Q")
        if inner in NUMBERS:
            values = struct.unpack_from(f"<{count}{NUMBERS[inner]}", self._data, self.at)
            self.at += struct.calcsize(f"<{count}{NUMBERS[inner]}")
            return list(values)
        return [self.value(inner) for _ in range(count)]


def _parsed(path: Path, cursor: _Cursor, size: int) -> GgufHeader:
    version = cursor.number("I")
    if version not in (2, 3):
        raise not_allowed(f"{path}: the version of its format", version, "2 or 3, little-endian")
    tensor_count, field_count = cursor.number("Q"), cursor.number("Q")
    fields = {}
    for _ in range(field_count):
        name = cursor.string()
        fields[name] = cursor.value(cursor.number("I"))
    infos = []
    for _ in range(tensor_count):
        name = cursor.string()
        shape = tuple(cursor.number("Q") for _ in range(cursor.number("I")))
        infos.append((name, shape[::-1], cursor.number("I"), cursor.number("Q")))
    alignment = fields.get("general.alignment", ALIGNMENT)
    start = -(-cursor.at // alignment) * alignment
    return GgufHeader(
        fields, {name: GgufTensor(shape, kind, start + offset) for name, shape, kind, offset in infos}, size
    )
