"""Rows of benchmark files: from a local folder or the hub, as JSON lines, JSON or Parquet, each with its place."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow
import pyarrow.parquet
from huggingface_hub.errors import HTTPError

from rlvr_limit.grading.case_files import read_json_lines
from rlvr_limit.types import UserError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")


@dataclass(frozen=True)
class FileRow:
    """One row: its fields, its index in the data set, and where it stands ("file:line" or "file, row i")."""

    index: int
    place: str
    fields: dict[str, Any]
    folder: Path = Path()  # of its file, from which names of other files count

    def first(self, names: tuple[str, ...]) -> str:
        """The first of these fields that is there. Raises UserError where none is."""
        for name in names:
            if self.fields.get(name) is not None:
                return name
        have = ", ".join(self.fields) or "none"
        raise UserError(f"{self.place}: field {' or '.join(map(repr, names))} is missing; there are {have}")

    def text(self, field: str, value: Any = None) -> str:
        """The field, or a value that was found in it, as a text without white space around it."""
        value = self.fields.get(field) if value is None else value
        if not isinstance(value, str) or not value.strip():
            raise self.refuse(field, value, "a text that is not empty")
        return value.strip()

    def share(self, field: str) -> float | None:
        """A number from 0 to 1; None where the field is missing or empty."""
        value = self.fields.get(field)
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            raise self.refuse(field, value, "a number in [0, 1]")
        return value

    def refuse(self, field: str, value: Any, allowed: str) -> UserError:
        """The error of a field whose value is not what is allowed, to be raised."""
        return UserError(f"{self.place}: field {field!r}: {value!r:.60} is not {allowed}")


def local(folder: Path, stems: tuple[str, ...], several: bool = False) -> list[Path]:
    """The files in folder (or in a folder in it) whose names without suffix fit the first pattern that fits any.

    Names in folder come before those of files in a folder in it, math/aime24. Shards (`-00000-of-00002`) come together
    and in order; other files only where a data set may come in several, in which a pattern's `/` must be the name's.
    Raises UserError if there is none, or more than one data set.
    """
    if not folder.is_dir():
        raise UserError(f"data_dir: {folder} is not a folder")
    here = sorted(path for path in [*folder.glob("*"), *folder.glob("*/*")] if path.name.endswith(SUFFIXES))
    # test.jsonl in a folder math500/ is called math500/test, or else test.
    names = {path: (path.parent / stem_of(path)).relative_to(folder).as_posix().lower() for path in here}
    for called in (names, {path: stem_of(path).lower() for path in here}):
        for stem in stems:
            fits = [path for path in here if fnmatch.fnmatchcase(called[path], stem)]
            if several:
                fits = [path for path in fits if called[path].count("/") == stem.count("/")]
            sets = {(path.parent, path.suffix, path.stem.partition("-of-")[0].rpartition("-")[0]) for path in fits}
            if len(fits) > 1 and not several and (len(sets) > 1 or any("-of-" not in path.stem for path in fits)):
                listed = ", ".join(str(path.relative_to(folder)) for path in fits)
                raise UserError(f"data_dir: {folder} has {listed}; exactly one of them must be left for {stem!r}")
            if fits:
                return fits
    raise UserError(f"data_dir: {folder} has no file {' or '.join(stems)} ending in {', '.join(SUFFIXES)}")


def stem_of(path: Path) -> str:
    """The name of a file of rows without its suffix."""
    return path.name.removesuffix(next(suffix for suffix in SUFFIXES if path.name.endswith(suffix)))


def download(dataset: str, patterns: tuple[str, ...]) -> list[Path]:
    """The files of a hub data set that fit the first pattern that fits any; from the hub's cache when it is offline.

    Raises UserError where the hub is out of reach or has no such file, and says how to give a local folder.
    """
    page = f"https://huggingface.co/datasets/{dataset}"
    advice = f"get it from {page} on another machine and give its folder as data_dir (--config.data_dir=FOLDER)"
    try:
        folder = Path(huggingface_hub.snapshot_download(dataset, repo_type="dataset", allow_patterns=list(patterns)))
    except (HTTPError, OSError, ValueError) as error:
        cause = " ".join(str(error.__cause__ or error).split())[:160]
        raise UserError(f"hub data set {dataset} cannot be had ({type(error).__name__}: {cause}); {advice}") from error
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for pattern in patterns:
        if fits := fnmatch.filter(names, pattern):
            return [folder / name for name in fits]
    raise UserError(f"hub data set {dataset} has no file {' or '.join(patterns)}; {advice}")


def read_file(path: str | Path, where: str) -> list[FileRow]:
    """The rows of a file that the user names. Raises UserError, naming where, for one that is missing or empty."""
    path = Path(path)
    if not path.name.endswith(SUFFIXES) or not path.is_file():
        raise UserError(f"{where}: found no {path}; it must be a file ending in {', '.join(SUFFIXES)}")
    rows = list(read([path]))
    if not rows:
        raise UserError(f"{path}: no rows")
    return rows


def read(paths: list[Path]) -> Iterator[FileRow]:
    """All rows of the files in order. Raises UserError naming file and line of what cannot be read."""
    rows = ((path, *row) for path in paths for row in (read_json_lines if ".jsonl" in path.suffixes else _whole)(path))
    for index, (path, place, fields) in enumerate(rows):
        yield FileRow(index, place, fields, path.parent)


def _whole(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a file of JSON or Parquet, which is read at once."""
    try:
        if path.suffix == ".parquet":
            rows = pyarrow.parquet.read_table(path).to_pylist()
        else:
            rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except (pyarrow.ArrowInvalid, ValueError, RecursionError, OSError) as error:
        what = "Parquet file" if path.suffix == ".parquet" else "JSON in UTF-8"
        raise UserError(f"{path}: no readable {what} ({' '.join(str(error).split())})") from error
    if isinstance(rows, dict) and rows and all(isinstance(row, dict) for row in rows.values()):
        rows = list(rows.values())  # by name, as MathVista's
    if not isinstance(rows, list):
        raise UserError(f"{path}: a JSON {type(rows).__name__}, not a list of rows")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise UserError(f"{path}, row {i}: a JSON {type(row).__name__}, not an object with named fields")
        yield f"{path}, row {i}", row
