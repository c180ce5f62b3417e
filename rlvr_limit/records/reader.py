"""Reading a table back: every row once, in the order of its key, however often the run was killed or compacted.

R rows as they lie in the files; order_R lists them by key, equal keys in order of writing.
"""

from __future__ import annotations

import functools
import operator
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlvr_limit.records.parts import list_parts, read_closed, read_open, table_folder
from rlvr_limit.records.schema import Table, check_columns, table_named
from rlvr_limit.records.storage import ObjectPath, Place, place
from rlvr_limit.types import UserError


def read(
    root: str | os.PathLike[str] | ObjectPath,
    table: str,
    columns: Iterable[str] | None = None,
    where: dict[str, Any] | None = None,
) -> pa.Table:
    """The rows of a table, closed parts and complete batches of open ones, sorted by key, each key once.

    columns: all by default. where: values that key columns must have, as {"arm": "base"}; of a list any one.
    Two rows of one key must agree in all but `time`; then the older is taken. Raises UserError naming the key and both
    files where they do not agree, and naming the file where one is damaged. No records yet: an empty table.
    """
    spec = table_named(table)
    if not place(root).is_dir():
        raise UserError(f"there is no run folder {root}")
    wanted = spec.schema.names if columns is None else list(columns)
    check_columns(spec, wanted, spec.schema.names, "read")
    check_columns(spec, where or (), spec.key, "select rows by")
    while True:
        listing = list_parts(table_folder(root, spec))
        try:
            return load(spec, listing.closed, listing.open, wanted, where or {})
        except FileNotFoundError:
            continue  # a part was closed or compacted since it was listed: the new listing has its rows


def existing(root: str | os.PathLike[str] | ObjectPath, table: str, **where: str) -> dict[str, set[int]]:
    """The sample indices on record per problem: what a resumed run need not draw, grade or score again.

    where must fix the rest of the key: arm for samples; arm, grader, against for verdicts; arm, model for scores.
    """
    spec = table_named(table)
    rest = set(spec.key) - {"problem_id", "index"}
    if "index" not in spec.key or where.keys() != rest:
        raise UserError(f"existing({table!r}) needs a value for each of {sorted(rest)}, got {sorted(where)}")
    rows = read(root, table, ["problem_id", "index"], where)
    codes_R, problems = _codes(rows["problem_id"])
    starts = np.searchsorted(codes_R, np.arange(len(problems) + 1))  # rows come sorted by problem
    index_R = rows["index"].to_numpy()
    return {
        problem: set(index_R[start:stop].tolist())
        for problem, start, stop in zip(problems, starts[:-1], starts[1:], strict=True)
    }


def load(
    spec: Table, closed: Iterable[Place], streams: Iterable[Place], columns: list[str], where: dict[str, Any]
) -> pa.Table:
    """What `read` promises, of the given files. FileNotFoundError where one of them is gone."""
    chosen = _chosen(spec, where)
    needed = [name for name in spec.schema.names if name in columns or name in spec.key]
    sources, pieces = [*closed, *streams], []
    for path in closed:
        pieces.append(read_closed(path, spec, needed, chosen))
    for path in streams:
        rows = pa.Table.from_batches(read_open(path, spec)[0], spec.schema)
        pieces.append((rows if chosen is None else rows.filter(chosen)).select(needed))
    if not pieces:
        return spec.schema.empty_table().select(columns)
    rows = pa.concat_tables(pieces)
    order_R, repeats_R = _sorted_by_key(spec, rows)
    if repeats_R.any():
        if rows.schema.names != spec.schema.names:  # to compare two rows takes all of their columns
            return load(spec, closed, streams, spec.schema.names, where).select(columns)
        ends = np.cumsum([piece.num_rows for piece in pieces])
        _check_agreement(spec, rows, order_R[np.flatnonzero(repeats_R) - 1], order_R[repeats_R], sources, ends)
        order_R = order_R[~repeats_R]
    if len(order_R) < rows.num_rows or (np.diff(order_R) < 0).any():
        rows = rows.take(pa.array(order_R))
    return rows.select(columns)


def _chosen(spec: Table, where: dict[str, Any]) -> pc.Expression | None:
    """The filter that keeps the rows whose columns have these values."""
    tests = []
    for name, value in where.items():
        kind = spec.schema.field(name).type
        try:
            tests.append(pc.field(name).isin(pa.array(value if isinstance(value, list) else [value], kind)))
        except (pa.ArrowInvalid, TypeError) as error:
            raise UserError(f"{spec.name}: {name!r} cannot be {value!r}: it is of type {kind}") from error
    return functools.reduce(operator.and_, tests) if tests else None


def _sorted_by_key(spec: Table, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers in order of the key, and for each whether its key is also that of the row before it."""
    codes = [
        rows[name].to_numpy() if pa.types.is_integer(rows.schema.field(name).type) else _codes(rows[name])[0]
        for name in spec.key
    ]
    order_R = np.lexsort(codes[::-1])
    repeats_R = np.ones(len(order_R), bool)
    repeats_R[:1] = False
    for code_R in codes:
        repeats_R[1:] &= code_R[order_R][1:] == code_R[order_R][:-1]
    return order_R, repeats_R


def _codes(strings: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Each string's rank among the distinct ones, and these in order."""
    encoded = strings.combine_chunks().dictionary_encode()
    by_rank = pc.sort_indices(encoded.dictionary).to_numpy()
    rank = np.empty(len(by_rank), np.int64)
    rank[by_rank] = np.arange(len(by_rank))
    return rank[encoded.indices.to_numpy()], encoded.dictionary.take(pa.array(by_rank)).to_pylist()


def _check_agreement(
    spec: Table, rows: pa.Table, first: np.ndarray, second: np.ndarray, sources: list[Place], ends: np.ndarray
) -> None:
    """UserError on the first pair of rows that has one key and two contents."""
    compared = rows.select([name for name in rows.schema.names if name not in spec.ignored])
    if compared.take(pa.array(first)).equals(compared.take(pa.array(second))):
        return
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        one, other = compared.slice(i, 1).to_pylist()[0], compared.slice(j, 1).to_pylist()[0]
        for name in one:
            if repr(one[name]) != repr(other[name]):  # repr, because a NaN agrees with itself here
                key = ", ".join(f"{k}={one[k]!r}" for k in spec.key)
                parts = " and ".join(str(sources[np.searchsorted(ends, row, side="right")]) for row in (i, j))
                raise UserError(
                    f"{spec.name}: two rows of ({key}) differ in {name!r}, in {parts}: "
                    "they were not made under equal conditions; move the wrong file away and run again"
                )
