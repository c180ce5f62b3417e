"""Writing a table: each row is with the operating system when `append` returns, and in a Parquet part soon after.

In an object store a row waits in memory for its part (WriteBuffer): `kill -9` loses those of the last part_seconds.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from rlvr_limit.records.parts import (
    CLOSED,
    OPEN,
    closed_path,
    list_parts,
    read_open,
    remove,
    table_folder,
    write_closed,
)
from rlvr_limit.records.schema import Table, table_named, to_batch
from rlvr_limit.records.storage import ObjectPath, Place
from rlvr_limit.records.storage.files import os_errors
from rlvr_limit.types import UserError


@dataclass
class _OpenPart:
    """A stream being written. Its lock tells others that its process lives; the kernel drops it at any death."""

    path: Path
    descriptor: int
    size: int
    opened: float
    batches: list[pa.RecordBatch] = field(default_factory=list)


class WriteBuffer:
    """Rows that wait in memory for their part in an object store, where nothing can be appended to.

    Puts them as closed parts, part_seconds after a part's first row at the latest, or at part_bytes.

    Appends go on while a part is put. Rows of a put that failed stay for the next one: that of the next append, of
    close, or in part_seconds. They are lost where the process ends before.
    """

    def __init__(self, folder: ObjectPath, table: Table, part_seconds: float, part_bytes: int):
        self._folder, self._table = folder, table
        self._part_seconds, self._part_bytes = part_seconds, part_bytes
        self._batches: list[pa.RecordBatch] = []
        self._bytes, self._has_failed = 0, False
        self._lock = threading.Lock()  # of the three above
        self._putting = threading.Lock()  # taken before the other one: a second put waits for the first

    def append(self, batch: pa.RecordBatch) -> None:
        """Takes the rows. Raises UserError where a put is due, or was, and fails."""
        with self._lock:
            is_first = not self._batches
            self._batches.append(batch)
            self._bytes += batch.nbytes
            is_due = self._has_failed or self._bytes >= self._part_bytes
        if is_due:
            self.put()
        elif is_first:
            self._put_in_time()

    def put(self) -> None:
        """Puts all rows taken so far as one part. Raises UserError where that fails; none of them is lost by that."""
        with self._putting:
            with self._lock:
                batches, size = self._batches, self._bytes
                self._batches, self._bytes = [], 0
            if not batches:
                return
            try:
                rows = pa.Table.from_batches(batches, self._table.schema).combine_chunks()
                path = _new_part(self._folder, CLOSED)
                write_closed(path, self._table.schema, [rows])
            except BaseException:
                with self._lock:
                    self._batches[:0] = batches
                    self._bytes += size
                    self._has_failed = True
                raise
            with self._lock:
                self._has_failed = False

    def _put_in_time(self) -> None:
        def put() -> None:
            try:
                self.put()
            except UserError as error:
                logging.warning("%s (it is tried again with the next rows)", error)
                self._put_in_time()

        timer = threading.Timer(self._part_seconds, put)
        timer.daemon = True
        timer.start()


class Writer:
    """Appends rows to one table of a run folder; the only process to do so. Threads may share it.

    A row is in the operating system's hands when `append` returns: `kill -9` loses no such row. A power cut can lose
    those of the open part, which is closed into a synced Parquet part by the first append after part_seconds or
    part_bytes, and by `close`. Parts left open by dead processes are recovered first. In an object store there are only
    closed parts, part_seconds after their first row at the latest, and rows wait for them in memory.
    Raises UserError on a row that does not fit the table, and where the disk is full or the folder cannot be written:
    all rows appended before are then kept, and none of that append's. Start worker processes by spawn, not fork: a
    forked child that outlives this process holds the open part's lock, and the part waits, readable, until it ends.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] | ObjectPath,
        table: str,
        part_seconds: float = 10.0,
        part_bytes: int = 32 << 20,
    ) -> None:
        self._table = table_named(table)
        self._folder = table_folder(root, self._table)
        self._part_seconds = part_seconds
        self._part_bytes = part_bytes
        self._part: _OpenPart | None = None
        self._lock = threading.Lock()
        self._buffer: WriteBuffer | None = None
        if isinstance(self._folder, ObjectPath):
            self._buffer = WriteBuffer(self._folder, self._table, part_seconds, part_bytes)
        with os_errors("create", self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        recover(root, table)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Records the rows, all or none of them."""
        if not rows:
            return
        self.append_batch(to_batch(self._table, rows))

    def append_batch(self, batch: pa.RecordBatch) -> None:
        """Records rows that were read from a table of this name, all or none of them."""
        if self._buffer:
            self._buffer.append(batch)
            return
        with self._lock:
            if self._part is None:
                self._part = _open_part(self._folder, self._table)
            part = self._part
            with self._let_go_on_error(), os_errors("write", part.path):
                _extend(part, batch.serialize())
            part.batches.append(batch)
            if time.monotonic() - part.opened >= self._part_seconds or part.size >= self._part_bytes:
                self._close_part(part)

    def flush(self) -> None:
        """Lets readers see all rows appended so far; on a file system they do without."""
        if self._buffer:
            self._buffer.put()

    def close(self) -> None:
        """Closes the open part, if there is one."""
        self.flush()
        with self._lock:
            if self._part is not None:
                self._close_part(self._part)

    def _close_part(self, part: _OpenPart) -> None:
        with self._let_go_on_error():
            rows = pa.Table.from_batches(part.batches, self._table.schema).combine_chunks()
            if rows.num_rows:
                write_closed(closed_path(part.path), self._table.schema, [rows])
            remove(part.path)
        self._let_go()

    @contextlib.contextmanager
    def _let_go_on_error(self) -> Iterator[None]:
        """A part that cannot be written further stays as it lies on disk, to be recovered when there is room again."""
        try:
            yield
        except Exception:
            self._let_go()
            raise

    def _let_go(self) -> None:
        part, self._part = self._part, None
        if part is not None:
            os.close(part.descriptor)


def recover(root: str | os.PathLike[str] | ObjectPath, table: str) -> int:
    """Closes the open parts of dead processes into Parquet parts; returns the number of rows so recovered.

    A torn batch at a part's end was never acknowledged and is dropped. Parts of living processes are left alone.
    """
    spec = table_named(table)
    folder = table_folder(root, spec)
    listing = list_parts(folder)
    for stream in listing.superseded:
        remove(stream)
    n_rows = n_torn = 0
    for stream in listing.open:
        with os_errors("recover", stream), _lock_of_the_dead(stream) as dead:
            if not dead:
                continue
            batches, torn = read_open(stream, spec)
            if batches:
                rows = pa.Table.from_batches(batches, spec.schema).combine_chunks()
                write_closed(closed_path(stream), spec.schema, [rows])
                n_rows += rows.num_rows
            n_torn += torn
            remove(stream)
    if n_rows or n_torn:
        logging.info("%s: recovered %d rows of an interrupted run, dropped %d torn bytes", folder, n_rows, n_torn)
    return n_rows


def _new_part(folder: Place, ending: str) -> Place:
    """A name that no other part has; parts sort by the time they were begun."""
    return folder / f"part-{time.time_ns()}-{uuid.uuid4().hex[:8]}{ending}"


def _open_part(folder: Place, table: Table) -> _OpenPart:
    """A new stream, locked and with its schema in it before it has the name that others look for."""
    path = Path(str(_new_part(folder, OPEN)))
    with os_errors("write", path):
        hidden = path.with_suffix(".tmp")
        part = _OpenPart(path, os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666), 0, 0.0)
        try:
            fcntl.flock(part.descriptor, fcntl.LOCK_EX)
            _extend(part, table.schema.serialize())
            os.rename(hidden, path)
        except BaseException:
            os.close(part.descriptor)
            hidden.unlink(missing_ok=True)
            raise
    part.opened = time.monotonic()
    return part


def _extend(part: _OpenPart, message: pa.Buffer) -> None:
    """Writes one Arrow message whole, or leaves the stream as it was."""
    view = memoryview(message)
    try:
        while view:
            view = view[os.write(part.descriptor, view) :]
    except BaseException:
        os.ftruncate(part.descriptor, part.size)
        raise
    part.size += message.size


@contextlib.contextmanager
def _lock_of_the_dead(stream: Place) -> Iterator[bool]:
    """Holds the lock of an open part; False where its writer, or another recovery, holds it or was first.

    One that lies in a store was copied there from a disk, and nobody writes it.
    """
    if isinstance(stream, ObjectPath):
        yield True
        return
    try:
        descriptor = os.open(stream, os.O_RDWR)
    except FileNotFoundError:
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            dead = stream.exists()
        except BlockingIOError:
            dead = False
        yield dead
    finally:
        os.close(descriptor)
