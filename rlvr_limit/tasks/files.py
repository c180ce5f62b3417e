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

from rlvr_limit.types import UserError

SUFFIXES = (".jsonl", ".json", ".parquet")


@dataclass(frozen=True)
class Row:
    """One row: its fields, its index in the data set, and where it stands ("file:line" or "file, row i")."""

    index: int
    place: str
    fields: dict[str, Any]


def local(folder: Path, stems: tuple[str, ...]) -> list[Path]:
    """The files in folder (or in a folder in it) whose names without suffix fit the first pattern that fits any.

    Shards (`-00000-of-00002`) come together and in order. Raises UserError if there is none or more than one data set.
    """
    if not folder.is_dir():
        raise UserError(f"data_dir: {folder} is no folder")
    files = sorted(path for path in [*folder.glob("*"), *folder.glob("*/*")] if path.suffix in SUFFIXES)
    for stem in stems:
        found = [path for path in files if fnmatch.fnmatchcase(_name(path, folder).lower(), stem)]
        sets = {(path.parent, path.suffix, path.stem.partition("-of-")[0].rpartition("-")[0]) for path in found}
        if len(found) > 1 and (len(sets) > 1 or any("-of-" not in path.stem for path in found)):
            names = ", ".join(str(path.relative_to(folder)) for path in found)
            raise UserError(f"data_dir: {folder} has {names}; exactly one of them must be left for {stem!r}")
        if found:
            return found
    names = " or ".join(f"{stem}{{{','.join(SUFFIXES)}}}" for stem in stems)
    raise UserError(f"data_dir: {folder} has no file {names}")


def _name(path: Path, folder: Path) -> str:
    """test.jsonl in a folder math500/ is called math500/test."""
    return path.relative_to(folder).with_suffix("").as_posix()


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
        if found := fnmatch.filter(names, pattern):
            return [folder / name for name in found]
    raise UserError(f"hub data set {dataset} has no file {' or '.join(patterns)}; {advice}")


def read(paths: list[Path]) -> Iterator[Row]:
    """All rows of the files in order. Raises UserError naming file and line of what cannot be read."""
    index = 0
    for path in paths:
        for place, fields in _rows(path):
            if not isinstance(fields, dict):
                raise UserError(f"{place}: found {type(fields).__name__}, but a JSON object with named fields is right")
            yield Row(index, place, fields)
            index += 1


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix == ".parquet":
        try:
            table = pyarrow.parquet.read_table(path)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise UserError(f"{path}: no readable Parquet file ({error})") from error
        yield from ((f"{path}, row {i}", row) for i, row in enumerate(table.to_pylist()))
        return
    try:
        text = path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: no readable UTF-8 text ({error})") from error
    if path.suffix == ".json":
        found = _json(text, str(path))
        if not isinstance(found, list):
            raise UserError(f"{path}: found {type(found).__name__}, but a list of rows is right")
        yield from ((f"{path}, row {i}", row) for i, row in enumerate(found))
        return
    # Only a line feed ends a line of JSON: strings may hold other separators that splitlines would cut at.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", _json(line, f"{path}:{number}")


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: no JSON ({error.msg} at column {error.colno} of line {error.lineno})") from error
