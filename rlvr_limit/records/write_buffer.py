"""Rows that wait in memory for their part in an object store, where nothing can be appended to."""

from __future__ import annotations

import logging
import threading
import time
import uuid

import pyarrow as pa

from rlvr_limit.records.parts import CLOSED, write_closed
from rlvr_limit.records.schema import Table
from rlvr_limit.records.storage import ObjectPath
from rlvr_limit.types import UserError


class HeldRows:
    """Puts what is appended as closed parts, part_seconds after a part's first row at the latest, or at part_bytes.

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
                path = self._folder / f"part-{time.time_ns()}-{uuid.uuid4().hex[:8]}{CLOSED}"
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
