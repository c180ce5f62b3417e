"""Files of cases, one JSON object a line: read with the place of every line, written back with verdicts."""

import collections
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rlvr_limit.types import UserError


def read_json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file:line, fields) of every line that is not empty; .gz is unpacked. Raises UserError naming the line."""
    if not path.exists():
        raise UserError(f"{path}: no such file")
    number = 0
    try:
        # Some editors put a byte-order mark before the first line.
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path}:{number}", parse_object(line, f"{path}:{number}")
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}:{number + 1}: cannot be read ({error})") from error


def parse_object(line: str, place: str) -> dict[str, Any]:
    """The object that a line is. UserError, with its place, where it is none."""
    try:
        fields = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise UserError(f"{place}: no JSON ({' '.join(str(error).split())})") from error
    except ValueError as error:
        raise UserError(f"{place}: a whole number that is too long to be read; write it as a text") from error
    if not isinstance(fields, dict):
        raise UserError(f"{place}: a JSON {type(fields).__name__}, not an object with named fields")
    return fields


def require_fields(fields: dict[str, Any], names: Iterable[str], place: str, kind: type = object) -> None:
    """Raises UserError naming the first of the fields that is missing or not of that kind."""
    for name in names:
        if fields.get(name) is None or not isinstance(fields[name], kind):
            no_kind = " or no text" if kind is str else ""
            raise UserError(f"{place}: field {name!r} is missing{no_kind}; there are {', '.join(fields) or 'none'}")


def write_verdicts(
    path: Path, version: str, rows: Iterable[dict[str, Any]], verdicts: Iterable[dict[str, Any]]
) -> None:
    """Writes each row with the fields of its verdict, then prints how many there are of each status.

    Raises UserError where the file cannot be written.
    """
    by_status: collections.Counter[str] = collections.Counter()
    correct = 0
    try:
        with path.open("w", encoding="utf-8", errors="backslashreplace") as output:
            for row, verdict in zip(rows, verdicts, strict=True):
                output.write(json.dumps(row | verdict, ensure_ascii=False) + "\n")
                by_status[verdict["status"]] += 1
                correct += verdict["correct"]
    except OSError as error:
        raise UserError(f"--output {path}: cannot be written ({error.strerror})") from error
    counts = ", ".join(f"{count} {status}" for status, count in sorted(by_status.items()))
    print(f"{version}: {by_status.total()} verdicts, {correct} correct" + (f" ({counts})" if counts else ""))
