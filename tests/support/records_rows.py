"""Rows and parts that the tests of the run folder share."""

from __future__ import annotations

import os
from pathlib import Path

from rlvr_limit.records import TABLES, Writer, read
from rlvr_limit.types import Stop

SCHEMAS = {table.name: table.schema for table in TABLES}
KEYS = {table.name: table.key for table in TABLES}


def sample(problem="p", index=0, arm="base", **changes):
    n_tokens = index % 3 + 1
    row = {
        "arm": arm,
        "problem_id": problem,
        "index": index,
        "tokens": list(range(n_tokens)),
        "logp": [-0.5 * t for t in range(n_tokens)],
        "logp_model": [-0.25 * t for t in range(n_tokens)],
        "stop": Stop.EOS,
        "text": f"{problem} {index}",
        "time": 1.0,
    }
    return row | changes


def verdict(problem="p", index=0, grader="countdown 1", **changes):
    row = {"arm": "base", "problem_id": problem, "index": index, "grader": grader, "against": ""}
    return row | {"correct": True, "status": "graded", "extracted": "4", "detail": ""} | changes


def write(root, *rows, table="samples", each=None):
    """One part from the rows, in batches of `each`."""
    with Writer(root, table) as writer:
        for start in range(0, len(rows), each or len(rows) or 1):
            writer.append(list(rows[start : start + (each or len(rows))]))


def abandon(root, *rows, table="samples", each=1):
    """An open part whose writer died: what a killed process leaves. Returns its path."""
    writer = Writer(root, table)
    for start in range(0, len(rows), each):
        writer.append(list(rows[start : start + each]))
    path = writer._part.path
    os.close(writer._part.descriptor)
    writer._part = None
    return path


def files(root, table="samples"):
    return sorted(path.name for path in (Path(root) / "records" / table).iterdir())


def rows_of(root, table="samples", **kwargs):
    return read(root, table, **kwargs).to_pylist()


def fail_writes(monkeypatch, module_call, error, partly=b""):
    """Makes os.<module_call> fail from now on, after writing part of what it was given."""
    real = getattr(os, module_call)

    def failing(descriptor, *data):
        if data and partly:
            real(descriptor, data[0][: len(partly)])
        raise error

    monkeypatch.setattr(os, module_call, failing)


def keyed_rows(root: Path | str, table: str) -> dict[tuple, dict]:
    """Every row of a table by its key, without the time it was written; fails where a key stands twice."""
    key = ["arm", "problem_id", "index"] + ["model"] * (table == "scores")
    rows = read(root, table).to_pylist()
    for row in rows:
        row.pop("time", None)
    keyed = {tuple(row[k] for k in key): row for row in rows}
    assert len(keyed) == len(rows)
    return keyed
