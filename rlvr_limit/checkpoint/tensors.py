"""safetensors and GGUF files: the tensors of a folder, parts of them, and new files.

The library maps a file into memory, and pages that were read stay resident until it is closed. So each read opens the
file anew: 1 GB of 4 shards then loads within size + largest tensor (tests/benchmarks/loading.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from rlvr_limit.tokenizer.gguf_header import is_gguf
from rlvr_limit.types import UserError, not_allowed

from .fields import read_json
from .gguf import PackedTensor, packed_tensors

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = ("F32", "F16", "BF16")
SHARD = 2_000_000_000
"""Bytes of tensors in a file at most, unless one tensor alone has more: the host holds a file's tensors at once."""
BLOCK = 1 << 22
"""Numbers that are read at a time."""


class StoredTensor(NamedTuple):
    """A tensor of a file; dtype is one of DTYPES, or a type of GGUF."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    packed: PackedTensor | None = None  # of a GGUF file


def find_tensors(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a folder with model.safetensors, or with an index and its shards, or of a GGUF file, by name.

    Raises UserError naming the file that is missing, damaged, cut off, or at odds with the index.
    """
    if is_gguf(folder):
        return {name: StoredTensor(folder, name, x.dtype, x.shape, x) for name, x in packed_tensors(folder).items()}
    single, index = folder / SINGLE, folder / INDEX
    if single.is_file() and index.is_file():
        raise UserError(f"{folder}: has both {SINGLE} and {INDEX}; keep only the one that is up to date")
    if single.is_file():
        return _tensors_of(single)
    if not index.is_file():
        raise UserError(f"{folder}: has neither {SINGLE} nor {INDEX}; weights must be in safetensors format")
    files = read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise UserError(f"{index}: weight_map: must be an object from tensor to file")
    stored = {}
    for file in sorted(set(files.values())):
        if not (folder / file).is_file():
            raise UserError(f"{folder / file}: this shard is missing, and {INDEX} names it")
        stored |= _tensors_of(folder / file)
    for name in sorted(files.keys() | stored.keys()):
        if name not in stored or stored[name].path != folder / files.get(name, ""):
            where = f"has it in {stored[name].path.name}" if name in stored else f"{files[name]} lacks it"
            raise UserError(
                f"{index}: tensor {name}: the index says {files.get(name, 'nothing')}, but the folder {where}"
            )
    return stored


def _tensors_of(path: Path) -> dict[str, StoredTensor]:
    try:
        with safe_open(path, "numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            stored = {name: StoredTensor(path, name, x.get_dtype(), tuple(x.get_shape())) for name, x in slices.items()}
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path}: damaged or cut off, so fetch the file again ({error})") from error
    for name, tensor in stored.items():
        if tensor.dtype not in DTYPES:
            raise not_allowed(f"{path}: tensor {name}: dtype", tensor.dtype, f"one of {', '.join(DTYPES)}")
    return stored


@contextmanager
def _opened(tensor: StoredTensor) -> Iterator[Any]:
    """The tensor as something that gives the numbers of ranges of its axes."""
    if tensor.packed:
        yield tensor.packed
        return
    with safe_open(tensor.path, "numpy") as file:
        yield file.get_slice(tensor.name)


def read_part(tensor: StoredTensor, ranges: tuple[slice, ...], dtype: np.dtype, transposed: bool) -> np.ndarray:
    """The ranges of a tensor's axes, cast; transposed: laid out with its first axis last."""
    first, *rest = (r.stop - r.start for r in ranges)
    out = np.empty((*rest, first) if transposed else (first, *rest), dtype)
    # As plain integers: numpy moves a bfloat16 several times slower than the two bytes it is.
    bits = out.view(f"u{dtype.itemsize}")
    bits = np.moveaxis(bits, -1, 0) if transposed else bits
    with _opened(tensor) as stored:
        for rows in _blocks(tensor.shape, ranges[0]):
            block = stored[(rows, *ranges[1:])].astype(dtype, copy=False)
            bits[rows.start - ranges[0].start :][: len(block)] = block.view(bits.dtype)
    return out


def equal_tensors(a: StoredTensor, b: StoredTensor) -> bool:
    """Whether two tensors hold the same bytes."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    with _opened(a) as x, _opened(b) as y:
        return all(x[rows].tobytes() == y[rows].tobytes() for rows in _blocks(a.shape, slice(0, a.shape[0])))


def _blocks(shape: tuple[int, ...], rows: slice) -> Iterator[slice]:
    step = max(1, BLOCK // math.prod(shape[1:]))
    return (slice(row, min(row + step, rows.stop)) for row in range(rows.start, rows.stop, step))


def write_tensors(folder: Path, sizes: dict[str, int], values: Callable[[str], np.ndarray]) -> None:
    """Writes tensors of so many bytes into one file, or into shards and an index; asks for values a file at a time."""
    shards: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not shards or size > room:
            shards.append([])
            room = SHARD
        shards[-1].append(name)
        room -= size
    count = len(shards)
    files = [SINGLE] if count == 1 else [f"model-{i:05}-of-{count:05}.safetensors" for i in range(1, count + 1)]
    for file, names in zip(files, shards, strict=True):
        save_file({name: values(name) for name in names}, folder / file, metadata={"format": "pt"})
    if count > 1:
        places = {name: file for file, names in zip(files, shards, strict=True) for name in names}
        text = json.dumps({"metadata": {"total_size": sum(sizes.values())}, "weight_map": places}, indent=2)
        (folder / INDEX).write_text(text + "\n", encoding="utf-8")
