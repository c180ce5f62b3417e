"""Many small parts into one large, sorted part, by a single rename, or put, that swaps what is live."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import uuid
from collections.abc import Iterator

import pyarrow as pa

from rlvr_limit.records.parts import (
    Generation,
    Listing,
    list_parts,
    read_closed,
    remove,
    table_folder,
    write_closed,
    write_generation,
)
from rlvr_limit.records.reader import load
from rlvr_limit.records.schema import Table, table_named
from rlvr_limit.records.storage import ObjectPath, Place
from rlvr_limit.records.storage.files import os_errors
from rlvr_limit.records.writer import recover


def compact(root: str | os.PathLike[str] | ObjectPath, table: str) -> None:
    """Merges a table's closed parts into one, sorted by key, so that one arm or one problem is read quickly.

    Others may read and write meanwhile. Killed at any point it loses and doubles nothing, and the next call finishes
    what was left. Holds one arm's rows in memory. Raises UserError as `read` does, before anything has changed.
    """
    spec = table_named(table)
    folder = table_folder(root, spec)
    if not folder.exists():
        return
    with _only_compaction(folder) as alone:
        if not alone:
            return
        recover(root, table)  # also removes what an earlier compaction had replaced when it was killed
        listing = list_parts(folder)
        if len(listing.closed) < 2:
            return
        number = listing.generation.number + 1
        # In a store two may come so far: each with a part of its own, of which one becomes the live one.
        own = f"-{uuid.uuid4().hex[:8]}" if isinstance(folder, ObjectPath) else ""
        merged = folder / f"compact-{number:06d}{own}.parquet"
        write_closed(merged, spec.schema, _by_arm(spec, listing))
        if not write_generation(folder, Generation(number, merged.name, tuple(path.name for path in listing.closed))):
            logging.info("%s was compacted by another process meanwhile", folder)
            remove(merged)
            return
        for path in listing.closed:
            remove(path)


@contextlib.contextmanager
def _only_compaction(folder: Place) -> Iterator[bool]:
    """Holds the folder's lock; False where another compaction does: two at once could each remove the other's input.

    A store has no locks: False where it would not refuse the second generation of one number either.
    """
    if isinstance(folder, ObjectPath):
        with os_errors("write", folder):
            is_safe = folder.refuses_a_taken_name()
        if not is_safe:
            logging.warning(
                "%s is left in many parts: %s:// here does not refuse to put a name that is taken, without which two "
                "compactions could each remove the other's rows",
                *(folder, folder.scheme),
            )
        yield is_safe
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            logging.info("%s is being compacted by another process and left to it", folder)
            alone = False
        yield alone
    finally:
        os.close(descriptor)


def _by_arm(spec: Table, listing: Listing) -> Iterator[pa.Table]:
    """All rows in order of the key, one arm at a time."""
    if "arm" not in spec.key:
        yield load(spec, listing.closed, (), spec.schema.names, {})
        return
    columns = [read_closed(path, spec, ["arm"], None)["arm"] for path in listing.closed]
    for arm in sorted({arm for column in columns for arm in column.unique().to_pylist()}):
        yield load(spec, listing.closed, (), spec.schema.names, {"arm": arm})
