"""The five tables of a run folder: their columns, and the key that makes two rows the same fact.

Lists and strings carry 64-bit offsets, so that a table of more than 2^31 tokens can be sorted in one piece.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from rlvr_limit.types import UserError

_STR = pa.large_string()


@dataclass(frozen=True)
class Table:
    """One table. `ignored` columns may differ between two rows of the same key without being a contradiction."""

    name: str
    key: tuple[str, ...]
    schema: pa.Schema
    ignored: tuple[str, ...] = ()


def _list(element: pa.DataType) -> pa.DataType:
    return pa.large_list(pa.field("element", element, nullable=False))


def _table(name: str, key: str, ignored: tuple[str, ...] = (), **columns: pa.DataType) -> Table:
    fields = [pa.field(column, kind, nullable=column == "guess_rate") for column, kind in columns.items()]
    return Table(name, tuple(key.split()), pa.schema(fields), ignored)


TABLES = (
    _table(
        "prompts",
        key="variant problem_id answer",
        variant=_STR,
        problem_id=_STR,
        benchmark=_STR,
        question=_STR,
        prompt=_STR,
        prompt_ids=_list(pa.int32()),
        prompt_sha256=_STR,
        answer=_STR,
        guess_rate=pa.float64(),
    ),
    _table(
        "samples",
        key="arm problem_id index",
        ignored=("time",),
        arm=_STR,
        problem_id=_STR,
        index=pa.int32(),
        tokens=_list(pa.int32()),
        logp=_list(pa.float32()),
        logp_model=_list(pa.float32()),
        stop=_STR,
        text=_STR,
        time=pa.float64(),
    ),
    _table(
        "costs",  # of samples that took more tokens than their own
        key="arm problem_id index",
        ignored=("drawn",),
        arm=_STR,
        problem_id=_STR,
        index=pa.int32(),
        drawn=pa.int32(),
    ),
    _table(
        "verdicts",
        key="arm problem_id index grader against",
        arm=_STR,
        problem_id=_STR,
        index=pa.int32(),
        grader=_STR,
        against=_STR,
        correct=pa.bool_(),
        status=_STR,
        extracted=_STR,
        detail=_STR,
    ),
    _table(
        "scores",
        key="arm problem_id index model",
        arm=_STR,
        problem_id=_STR,
        index=pa.int32(),
        model=_STR,
        logp=_list(pa.float32()),
        entropy=_list(pa.float32()),
    ),
)


def table_named(name: str) -> Table:
    """The table of that name; UserError with the names there are otherwise."""
    for table in TABLES:
        if table.name == name:
            return table
    raise UserError(f"no table {name!r} in a run folder: there are {', '.join(t.name for t in TABLES)}")


def check_columns(table: Table, names: Iterable[str], allowed: Iterable[str], use: str) -> None:
    """UserError naming the first column that cannot be used so."""
    allowed = tuple(allowed)
    for name in names:
        if name not in allowed:
            raise UserError(f"{table.name}: cannot {use} {name!r}: it must be one of {', '.join(allowed)}")


def to_batch(table: Table, rows: list[dict[str, Any]]) -> pa.RecordBatch:
    """Rows as one Arrow batch. UserError where a column is missing, unknown or holds a value that does not fit."""
    expected = set(table.schema.names)
    for row in rows:
        if row.keys() != expected:
            wrong = sorted(row.keys() ^ expected)[0]
            raise UserError(
                f"{table.name}: row {_key_of(table, row)} {'has an unknown' if wrong in row else 'lacks the'} column "
                f"{wrong!r}; its columns are {', '.join(table.schema.names)}"
            )
    return pa.RecordBatch.from_arrays([_column(table, field, rows) for field in table.schema], schema=table.schema)


def _column(table: Table, field: pa.Field, rows: list[dict[str, Any]]) -> pa.Array:
    try:
        column = pa.array([row[field.name] for row in rows], field.type)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise _unfit(table, field, rows) from error
    missing = column.null_count + (column.values.null_count if pa.types.is_large_list(field.type) else 0)
    if missing and not field.nullable:
        raise _unfit(table, field, rows)
    return column


def _unfit(table: Table, field: pa.Field, rows: list[dict[str, Any]]) -> UserError:
    """The error for a column that does not convert, naming the first row at fault."""
    for row in rows:
        try:
            value = pa.array([row[field.name]], field.type)
            fits = not value.null_count and not (pa.types.is_large_list(field.type) and value.values.null_count)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            fits = False
        if not fits:
            break
    found = ascii(row[field.name])
    found = found if len(found) <= 80 else found[:77] + "..."
    return UserError(f"{table.name}: row {_key_of(table, row)}: column {field.name!r} is {found}, not {field.type}")


def _key_of(table: Table, row: dict[str, Any]) -> str:
    return "(" + ", ".join(f"{name}={row.get(name)!r}" for name in table.key) + ")"
