"""The folder of one table, and its files one by one.

    records/samples/
        part-<time>-<random>.arrows.open    an open part: an Arrow IPC stream that grows batch by batch
        part-<time>-<random>.parquet        a closed part: never changes again
        compact-000001.parquet              many closed parts in one, sorted by key
        generation.json                     which compact part is live, and which closed parts it stands for

In an object store there are no open parts, and each generation is an object of its own, generation-000001.json, of
which the newest counts: it is put only where that name is not taken, which keeps two compactions apart.

A closed part is live unless the generation has retired it; a compact part is live only if the generation names it; an
open part is live until the closed part of its name is there. So each step of closing and of compaction is one
rename, or one put.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from rlvr_limit.records.schema import Table
from rlvr_limit.records.storage import ObjectPath, Place, driver_errors, place
from rlvr_limit.records.storage.files import os_errors, publish
from rlvr_limit.types import UserError

OPEN = ".arrows.open"
CLOSED = ".parquet"
ROW_GROUP = 4096  # rows that are read together: small enough for one problem's page, large enough to compress well


@dataclass(frozen=True)
class Generation:
    """The number of compactions so far, the compact part they left and the closed parts (file names) it stands for."""

    number: int = 0
    compact: str = ""
    retired: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """The live files of a table at one moment, oldest first, and those whose rows are all in live ones."""

    generation: Generation
    closed: tuple[Place, ...]
    open: tuple[Place, ...]
    superseded: tuple[Place, ...]


def table_folder(root: str | os.PathLike[str] | ObjectPath, table: Table) -> Place:
    return place(root) / "records" / table.name


def closed_path(stream: Place) -> Place:
    """Where an open part goes when it is closed."""
    return stream.with_name(stream.name.removesuffix(OPEN) + CLOSED)


def list_parts(folder: Place) -> Listing:
    """One consistent set of live files, whatever is being closed or compacted meanwhile.

    Open parts are listed before closed ones, so a part that is closed in between is seen as one or the other; and the
    generation is the same before and after, so no compaction began or ended the set in between.
    """
    while True:
        names = _names(folder)
        streams, generation = [name for name in names if name.endswith(OPEN)], _read_generation(folder, names)
        names = _names(folder)
        if _read_generation(folder, names) == generation:
            break
    closed = [name for name in names if name.endswith(CLOSED)]
    past = set(closed) | set(generation.retired)
    live = [n for n in closed if n == generation.compact or n.startswith("part-") and n not in generation.retired]
    unclosed = [n for n in streams if n.removesuffix(OPEN) + CLOSED not in past]
    superseded = sorted(set(streams) - set(unclosed) | set(closed) & set(generation.retired))
    return Listing(generation, *(tuple(folder / n for n in names) for names in (live, unclosed, superseded)))


def _names(folder: Place) -> list[str]:
    try:
        with _reading(folder):
            return sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:  # a table nothing was written to
        return []


def _read_generation(folder: Place, names: list[str]) -> Generation:
    """The newest one of those named. A folder that was copied to a store or from there may have both kinds."""
    numbered = [name for name in names if re.fullmatch(r"generation-\d+\.json", name)]
    found = [Generation()]
    for path in (folder / name for name in [*numbered[-1:], *(name for name in names if name == "generation.json")]):
        try:
            with _reading(path):
                fields = json.loads(path.read_text())
            found.append(Generation(fields["number"], fields["compact"], tuple(fields["retired"])))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error!r}): restore it from a copy") from error
    return max(found, key=lambda generation: generation.number)


def write_generation(folder: Place, generation: Generation) -> bool:
    """Makes a generation the live one; False where another compaction has made one of that number."""
    content = json.dumps(asdict(generation), indent=1).encode()
    if isinstance(folder, ObjectPath):
        path = folder / f"generation-{generation.number:06d}.json"
        with os_errors("write", path):
            return path.put_new(content)
    publish(folder / "generation.json", lambda file: file.write(content))
    return True


def write_closed(path: Place, schema: pa.Schema, pieces: Iterable[pa.Table]) -> None:
    """Publishes tables of that schema as one Parquet part, each page with a checksum."""

    def write(file: BinaryIO) -> None:
        with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
            for piece in pieces:
                writer.write_table(piece, row_group_size=ROW_GROUP)

    publish(path, write)


def read_closed(path: Place, table: Table, columns: list[str], where: pc.Expression | None) -> pa.Table:
    """The rows of a closed part. FileNotFoundError where it was compacted away; UserError where it is damaged."""
    try:
        with _reading(path), _opened(path) as source:
            rows = pq.read_table(
                source, columns=columns, filters=where, partitioning=None, page_checksum_verification=True
            )
        return rows.cast(pa.schema([table.schema.field(name) for name in columns]))
    except FileNotFoundError:
        raise
    except (ValueError, OSError, pa.ArrowNotImplementedError, pa.ArrowKeyError) as error:
        for name in _lacking(path, columns):
            raise UserError(
                f"{path} has no column {name!r}: an older version wrote it; move {path.parent} away and run again"
            ) from error
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"{path} is damaged ({reason}): move it away and run again; "
            "its rows will be redrawn, the other parts are kept"
        ) from error


def _lacking(path: Place, columns: Iterable[str]) -> list[str]:
    """Columns that a closed part does not have; none where it cannot be read at all."""
    try:
        with _opened(path) as source:
            there = pq.read_schema(source).names
    except (OSError, ValueError):
        return []
    return [name for name in columns if name not in there]


def read_open(path: Place, table: Table) -> tuple[list[pa.RecordBatch], int]:
    """The complete batches of an open part, and the number of bytes of the torn one behind them, if any.

    Raises FileNotFoundError where the part was closed since it was listed.
    """
    with _reading(path):
        data = path.read_bytes()  # not a memory map: the file may be cut while we look
    source = pa.BufferReader(data)
    batches, good = [], 0
    try:
        stream = pa.ipc.open_stream(source)
        if stream.schema.equals(table.schema):
            good = source.tell()
            while True:
                batch = stream.read_next_batch()
                batch.validate(full=True)
                batches.append(batch)
                good = source.tell()
    except (StopIteration, pa.ArrowInvalid, OSError):
        pass  # this is the end of what was written whole
    return batches, len(data) - good


def _opened(path: Place) -> contextlib.AbstractContextManager[Any]:
    """What Arrow reads a closed part from."""
    return path.open("rb") if isinstance(path, ObjectPath) else contextlib.nullcontext(path)


@contextlib.contextmanager
def _reading(path: Place) -> Iterator[None]:
    """Within it the system's refusal to read what is there becomes a UserError: it says nothing of the content."""
    try:
        with driver_errors() if isinstance(path, ObjectPath) else contextlib.nullcontext():
            yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if type(error) is OSError and error.errno is None:  # pyarrow's word for content that it cannot decode
            raise
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error


def remove(path: Place) -> None:
    with os_errors("remove", path):
        path.unlink(missing_ok=True)
