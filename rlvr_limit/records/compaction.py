"""Many small parts into one large, sorted part, by a single rename that swaps what is live."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
from collections.abc import Iterator
from pathlib import Path

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
from rlvr_limit.records.writer import recover


def compact(root: str | os.PathLike[str], table: str) -> None:
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
            logging.info("%s is being compacted by another process and left to it", folder)
            return
        recover(root, table)  # also removes what an earlier compaction had replaced when it was killed
        listing = list_parts(folder)
        if len(listing.closed) < 2:
            return
        number = listing.generation.number + 1
        merged = folder / f"compact-{number:06d}.parquet"
        write_closed(merged, spec.schema, _by_arm(spec, listing))
        write_generation(folder, Generation(number, merged.name, tuple(path.name for path in listing.closed)))
        for path in listing.closed:
            remove(path)


@contextlib.contextmanager
def _only_compaction(folder: Path) -> Iterator[bool]:
    """Holds the folder's lock; False where another compaction does: two at once could each remove the other's input."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
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
