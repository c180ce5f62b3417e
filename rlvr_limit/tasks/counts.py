"""Counts on record, a CSV with the columns problem, arm, n and correct: what job=counts reads and job=export writes."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlvr_limit.types import UserError, not_allowed

COLUMNS = ("problem", "arm", "n", "correct")
INTEGER = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True)
class CountsRow:
    """One line of the file, of which `line` is the number."""

    line: int
    problem: str
    arm: str
    n: int
    correct: int


def unsolved(path: Path, arm: str) -> set[str]:
    """The problems that none of the arm's samples in the file is right on. UserError where it has no such line."""
    found = {row.problem for row in read_rows(path) if row.arm == arm and not row.correct}
    if not found:
        raise UserError(f"{path}: no line of arm {arm!r} with correct = 0, so there is no problem that it never solves")
    return found


def read_rows(path: Path) -> Iterator[CountsRow]:
    """The rows of the file, each checked by itself. UserError with one line that names the file and the line in it."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                header = ",".join(reader.fieldnames or ()) or "nothing"
                raise UserError(
                    f"{path}, line 1: found {header}, but column {missing[0]!r} is missing; the columns are "
                    f"{','.join(COLUMNS)}"
                )
            cells = None
            for cells in reader:
                yield _row(cells, f"{path}, line {reader.line_num}", reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({reason}); it must be a CSV in UTF-8") from error
    if cells is None:
        raise UserError(f"{path}: no line below the header; there must be one for each problem and arm")


def _row(cells: dict[str, str | None], where: str, line: int) -> CountsRow:
    texts = {name: (cells[name] or "").strip() for name in COLUMNS}
    for name, text in texts.items():
        if not text:
            raise UserError(f"{where}: {name} is empty; each line needs {','.join(COLUMNS)}")
        if name in ("n", "correct") and not INTEGER.fullmatch(text):
            raise not_allowed(f"{where}: {name}", text, "a whole number")
    n, correct = int(texts["n"]), int(texts["correct"])
    if n < 1:
        raise not_allowed(f"{where}: n", n, "at least 1")
    if not 0 <= correct <= n:
        raise not_allowed(f"{where}: correct", correct, f"in [0, n = {n}]")
    return CountsRow(line, texts["problem"], texts["arm"], n, correct)
