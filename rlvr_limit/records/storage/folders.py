"""Folders that count as a whole, and files that grow: as they are on a file system, and by way of one to a store.

    with brought(folder) as here:   a whole folder to read
    with made(folder) as here:      a folder to fill; in a store it is there, whole, when the block ends without error
    is_whole(folder)

In a store a folder is whole once complete.json is there, which is put last and lists the objects with their sizes.
What passes through this machine lies in TMPDIR meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rlvr_limit.records.storage.files import os_errors
from rlvr_limit.records.storage.objects import ObjectPath, Place, driver_errors
from rlvr_limit.types import UserError

COMPLETE = "complete.json"
SCRATCH = "rlvr_limit-"


def is_whole(folder: Place) -> bool:
    """Whether all of a folder is there."""
    return (folder / COMPLETE).is_file() if isinstance(folder, ObjectPath) else folder.is_dir()


@contextlib.contextmanager
def _beside(folder: ObjectPath) -> Iterator[Path]:
    """Where the folder may be made on this machine, for as long as the block lasts."""
    with tempfile.TemporaryDirectory(prefix=SCRATCH) as scratch:
        yield Path(scratch) / folder.name


@contextlib.contextmanager
def brought(folder: Place) -> Iterator[Path]:
    """The folder as one of this machine, for as long as the block lasts. UserError where objects of it are missing."""
    if not isinstance(folder, ObjectPath):
        yield folder
        return
    with _beside(folder) as here:
        bring(folder, here)
        yield here


def bring(folder: ObjectPath, here: Path) -> None:
    """Copies a whole folder of a store into a new folder of this machine. UserError where it is not whole."""
    with os_errors("read", folder):
        if not is_whole(folder):
            raise UserError(f"{folder} is not there, or not all of it: {folder / COMPLETE} is missing")
        sizes = json.loads((folder / COMPLETE).read_text())
        for name in sizes:
            (here / name).parent.mkdir(parents=True, exist_ok=True)
        with driver_errors():
            folder.store.get([str(folder / name) for name in sizes], [str(here / name) for name in sizes])
    for name, size in sizes.items():
        found = (here / name).stat().st_size
        if found != size:
            raise UserError(f"{folder / name} has {found} bytes, {size} were put: remove {folder} and run again")


@contextlib.contextmanager
def made(folder: Place) -> Iterator[Path]:
    """A folder of this machine to write: on a file system the folder itself, which its writer lets appear whole."""
    if not isinstance(folder, ObjectPath):
        yield folder
        return
    with _beside(folder) as here:
        yield here
        put_whole(here, folder)


@contextlib.contextmanager
def written(folder: Place, last: str) -> Iterator[Path]:
    """A folder of this machine to write, or to write again: the folder itself, or one whose files are put to a store
    when the block ends without error, the one named `last` after all others."""
    if not isinstance(folder, ObjectPath):
        yield folder
        return
    with _beside(folder) as here:
        yield here
        page = (here / last).rename(here.parent / last)
        with os_errors("write", folder):
            put_all(here, folder)
            (folder / last).put_file(page)


def put_whole(here: Path, folder: ObjectPath) -> None:
    """Puts a folder's files, each as one object, and at last the object that says that these are all."""
    with os_errors("write", folder):
        sizes = put_all(here, folder)
        (folder / COMPLETE).write_text(json.dumps(sizes, indent=1))


def put_all(here: Path, folder: ObjectPath) -> dict[str, int]:
    """Puts every file of a folder of this machine; their names below it and sizes. Raises OSError."""
    files = sorted(path for path in here.rglob("*") if path.is_file())
    names = [path.relative_to(here).as_posix() for path in files]
    if files:
        with driver_errors():
            folder.store.put([str(path) for path in files], [str(folder / name) for name in names])
    return {name: path.stat().st_size for name, path in zip(names, files, strict=True)}


def remove_whole(folder: ObjectPath) -> None:
    """Removes a folder's objects; it is not whole from the first of them on."""
    with os_errors("remove", folder):
        (folder / COMPLETE).unlink(missing_ok=True)
        if folder.is_dir():
            with driver_errors():
                folder.store.rm(str(folder), recursive=True)


def append_line(path: Place, line: str) -> None:
    """Adds a line to a file that one process writes; in a store the whole of it is put again."""
    if isinstance(path, ObjectPath):
        with os_errors("write", path):
            path.write_text((path.read_text() if path.is_file() else "") + line + "\n")
        return
    with path.open("a") as file:
        file.write(line + "\n")


class Growing:
    """A folder whose files are appended to: itself, or for a store one of this machine whose files are put again whole.

    here is the folder to write in. put(patterns) puts the files that have changed since; what was written after the
    last put is lost when the process is killed. On a file system put and close have nothing to do.
    """

    def __init__(self, folder: Place):
        self._folder, self._scratch = folder, None
        self._seen: dict[str, tuple[int, int]] = {}
        if isinstance(folder, ObjectPath):
            self._scratch = tempfile.TemporaryDirectory(prefix=SCRATCH)
            self.here = Path(self._scratch.name)
        else:
            self.here = folder

    def put(self, *patterns: str) -> None:
        """Raises UserError where the store cannot be written; the files here stay, for the next put."""
        if not isinstance(self._folder, ObjectPath):
            return
        for path in sorted(path for pattern in patterns for path in self.here.glob(pattern) if path.is_file()):
            name, state = path.relative_to(self.here).as_posix(), path.stat()
            stamp = state.st_size, state.st_mtime_ns
            if self._seen.get(name) != stamp:
                with os_errors("write", self._folder / name):
                    (self._folder / name).put_file(path)
                self._seen[name] = stamp

    def close(self) -> None:
        """Lets go of the folder on this machine, which was put by then."""
        if self._scratch is not None:
            self._scratch.cleanup()
