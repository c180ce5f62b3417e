"""The files of an arm of others' samples, as rows with their places, whatever they are called.

JSON lines (also .gz), JSON, Parquet, and the logs of inspect_ai, which are JSON or a zip of one JSON a sample.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rlvr_limit.grading.case_files import parse_object
from rlvr_limit.types import UserError, not_allowed

IN_FOLDERS = (
    "output-rs*.jsonl*", "samples_*.jsonl*", "details_*.parquet", "*.eval", "*.parquet", "*.jsonl*", "*.json",
)  # fmt: skip
"""What is taken of a folder: the files that fit the first of these which fits any."""

ZSTANDARD, LOCAL_HEADER = 93, 30
BATCH = 256

Rows = Iterator[tuple[str, dict[str, Any] | UserError]]
"""Each row with its place; in place of one that cannot be read the error that says so."""


@dataclass(frozen=True)
class ArmFiles:
    """An arm as the command line names it: its files in order, and what they are."""

    name: str
    paths: tuple[Path, ...]

    @functools.cached_property
    def digests(self) -> tuple[tuple[str, str], ...]:
        """(name, SHA-256) of each file."""
        return tuple((path.name, _sha256(path)) for path in self.paths)


def arms_of(entries: tuple[str, ...]) -> tuple[ArmFiles, ...]:
    """The arms that config.imported names. UserError for one that names no file, and for two of one name."""
    where, arms = "config.imported", []
    if not entries:
        raise UserError(f"{where}: empty; give an arm for each file, as in --{where}=\"('base=FILE','rl=FILE')\"")
    for entry in entries:
        name, equals, text = entry.partition("=")
        if not (equals and text and re.fullmatch(r"[A-Za-z0-9_.-]+", name)):
            raise not_allowed(where, entry, "NAME=FILE, a name of letters, digits, . _ - and a file, pattern or folder")
        if name in (arm.name for arm in arms):
            raise UserError(f"{where}: two arms are called {name!r}; a pattern or a folder makes one arm of many files")
        arms.append(ArmFiles(name, tuple(_paths(text, f"{where}: arm {name}"))))
    return tuple(arms)


def _paths(text: str, where: str) -> list[Path]:
    path = Path(text).expanduser()
    if path.is_dir():
        sets = ([found for found in path.rglob(pattern) if found.is_file()] for pattern in IN_FOLDERS)
        paths = next(filter(None, sets), [])
    elif any(sign in text for sign in "*?[") and not path.exists():
        fixed = Path(*path.parts[: next(i for i, part in enumerate(path.parts) if re.search(r"[*?[]", part))])
        paths = [found for found in fixed.glob(str(path.relative_to(fixed))) if found.is_file()]
    else:
        paths = [path] if path.is_file() else []
    if not paths:
        raise UserError(
            f"{where}: found no {path}; it must be a file, a pattern, or a folder of {', '.join(IN_FOLDERS)}"
        )
    return sorted(paths, key=natural)


def natural(path: Path | str) -> list[Any]:
    """A key that sorts rs10 after rs9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def read_rows(path: Path) -> Rows:
    """The rows of a file, recognised by what it begins with. UserError where the file as a whole cannot be read."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
        if start == b"PAR1":
            yield from _parquet(path)
        elif start.startswith(b"PK"):
            yield from _inspect_zip(path)
        else:
            yield from _text(path, gzip.open if start.startswith(b"\x1f\x8b") else open)
    except (UnicodeDecodeError, EOFError, OSError, zlib.error, zipfile.BadZipFile, pa.ArrowInvalid) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from error


def _parquet(path: Path) -> Rows:
    number = 0
    for batch in pq.ParquetFile(path).iter_batches(batch_size=BATCH):
        for fields in batch.to_pylist():
            yield f"{path}, row {number}", fields
            number += 1


def _inspect_zip(path: Path) -> Rows:
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        members = {info.filename: info for info in archive.infolist()}
        heads = [name for name in ("header.json", "_journal/start.json") if name in members]
        if not heads:
            raise UserError(f"{path}: a zip without header.json, which a log of inspect_ai has")
        head = json.loads(_member(archive, file, members[heads[0]]))
        for name in sorted((name for name in members if name.startswith("samples/")), key=natural):
            place = f"{path}: {name}"
            try:
                yield place, {"log": head, "sample": json.loads(_member(archive, file, members[name]))}
            except (ValueError, OSError, zlib.error) as error:
                yield place, UserError(f"{place}: no JSON ({error})")


def _member(archive: zipfile.ZipFile, file: Any, info: zipfile.ZipInfo) -> bytes:
    """A member's content; inspect_ai packs with Zstandard, which Python's zipfile cannot unpack before 3.14."""
    if info.compress_type != ZSTANDARD:
        return archive.read(info)
    file.seek(info.header_offset)
    header = file.read(LOCAL_HEADER)
    file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
    with pa.CompressedInputStream(pa.BufferReader(file.read(info.compress_size)), "zstd") as stream:
        return stream.read()


def _text(path: Path, opened: Any) -> Rows:
    """JSON lines where the first line is an object by itself, or the whole is no JSON; else JSON as a whole."""
    with opened(path, "rb") as lines:
        first = next((line for line in lines if line.strip()), b"")
    if not first:
        raise UserError(f"{path}: empty")
    if not _is_object(first) and (whole := _whole(path, opened)) is not None:
        for i, fields in enumerate(whole if isinstance(whole, list) else [whole]):
            place = f"{path}, row {i}" if isinstance(whole, list) else str(path)
            wrong = UserError(f"{place}: a JSON {type(fields).__name__}, not an object with named fields")
            yield from _samples(place, fields) if isinstance(fields, dict) else [(place, wrong)]
        return
    with opened(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                place = f"{path}:{number}"
                try:
                    fields = parse_object(line.decode("utf-8-sig"), place)
                except UnicodeDecodeError as error:
                    yield place, UserError(f"{place}: no UTF-8 ({error.reason} at byte {error.start})")
                except UserError as error:
                    yield place, error
                else:
                    yield from _samples(place, fields)


def _samples(place: str, fields: dict[str, Any]) -> Rows:
    """A log of inspect_ai as one row a sample; anything else as it is."""
    if isinstance(fields.get("eval"), dict) and isinstance(fields.get("samples"), list):
        for i, sample in enumerate(fields["samples"]):
            yield f"{place}, sample {i}", {"log": fields, "sample": sample}
    else:
        yield place, fields


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8-sig")), dict)
    except (ValueError, RecursionError):
        return False


def _whole(path: Path, opened: Any) -> Any:
    """The JSON that a file is as a whole; None where it is none, so that its lines are looked at one by one."""
    with opened(path, "rb") as file:
        try:
            return json.loads(file.read().decode("utf-8-sig"))
        except (ValueError, RecursionError):
            return None


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
