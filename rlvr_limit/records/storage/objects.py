"""Where a run folder lies: on a file system, as a pathlib.Path, or in an object store, as an ObjectPath.

An object store (s3://, gs://, and memory:// for tests) keeps whole objects under names. There are no folders, nothing
can be appended to or renamed, and no lock is dropped when its holder dies. What it does promise: an object is there
whole or not at all once it is put, a name that was listed or read after that put is the new one, and (S3, GCS) a put
can be refused where the name is taken. All that this package does to a store is done here.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import io
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

import fsspec

from rlvr_limit.types import UserError

URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://.")
DRIVERS = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
"""The package that a scheme needs; none of them is among our requirements."""

REFUSING = ("s3", "gs", "gcs", "memory")
"""Schemes whose driver hands the store the wish that a put be refused where the name is taken; others look first and
put then, between which another process may come."""


def is_url(where: str) -> bool:
    """Whether this names a place in an object store."""
    return bool(URL.match(where))


def place(where: str | os.PathLike[str] | ObjectPath) -> Place:
    """A folder or file as a config names it. UserError where a URL's driver is missing or its scheme is not known."""
    if isinstance(where, ObjectPath):
        return where
    where = os.fspath(where)
    url = URL.match(where)
    if url is None:
        return Path(where)
    scheme = url["scheme"]
    try:
        # What another host has put must be seen, so no listing may be remembered.
        store, _ = fsspec.core.url_to_fs(where, use_listings_cache=False)
    except ImportError as error:
        package = DRIVERS.get(scheme, "its driver")
        raise UserError(
            f"{where}: {scheme}:// needs {package}, which is not installed: pip install {package}"
        ) from error
    except ValueError as error:
        raise UserError(f"{where}: cannot be used ({error}): it must be a folder, s3://... or gs://...") from error
    return ObjectPath(where.rstrip("/"), store)


@dataclass(frozen=True, order=True)
class ObjectPath:
    """A name in an object store, asked as a pathlib.Path is. "Folders" are beginnings of names: mkdir does nothing.

    Raises OSError, whatever the driver raises.
    """

    url: str
    store: fsspec.AbstractFileSystem = field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str | PurePosixPath) -> ObjectPath:
        return ObjectPath(f"{self.url}/{name}", self.store)

    @property
    def scheme(self) -> str:
        return self.url.partition("://")[0]

    @property
    def _names(self) -> PurePosixPath:
        return PurePosixPath(self.url.partition("://")[2])

    @property
    def name(self) -> str:
        return self._names.name

    @property
    def stem(self) -> str:
        return self._names.stem

    @property
    def parent(self) -> ObjectPath:
        return ObjectPath(f"{self.scheme}://{self._names.parent}", self.store)

    def with_name(self, name: str) -> ObjectPath:
        return self.parent / name

    def absolute(self) -> ObjectPath:
        return self

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Names need no folder to be in."""

    def exists(self) -> bool:
        """Whether there is an object of this name, or one whose name begins so."""
        return bool(self._kind())

    def is_file(self) -> bool:
        return self._kind() == "file"

    def is_dir(self) -> bool:
        return self._kind() == "directory"

    def _kind(self) -> str:
        """ "file", "directory", or "" where there is neither. A driver's own exists takes every trouble for a no."""
        with driver_errors():
            try:
                return self.store.info(self.url)["type"]
            except FileNotFoundError:
                return ""

    def iterdir(self) -> Iterator[ObjectPath]:
        """What lies directly under this name, in order; nothing where there is nothing."""
        with driver_errors():
            try:
                found = self.store.ls(self.url, detail=False)
            except FileNotFoundError:
                found = []
        names = {name.rstrip("/").rpartition("/")[2] for name in found}
        return iter([self / name for name in sorted(names) if name and name != self.name])

    def glob(self, pattern: str) -> Iterator[ObjectPath]:
        """Those of iterdir whose name fits."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def open(self, mode: str = "r", encoding: str = "utf-8", newline: str | None = None) -> io.IOBase:
        """For reading only. "rb" reads what is asked for and no more, so that columns of a part can be read alone."""
        if mode == "r":
            return io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding, newline=newline)
        assert mode == "rb", mode
        with driver_errors():
            return self.store.open(self.url, "rb", cache_type="none")

    def read_bytes(self) -> bytes:
        with driver_errors():
            return self.store.cat_file(self.url)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.open(encoding=encoding).read()

    def write_bytes(self, data: bytes) -> None:
        with driver_errors():
            self.store.pipe_file(self.url, data)

    def write_text(self, text: str, encoding: str = "utf-8", newline: str | None = None) -> None:
        """Puts the text with its line ends as they are."""
        self.write_bytes(text.encode(encoding))

    def put(self, write: Callable[[BinaryIO], object]) -> None:
        """Puts what `write` writes, as one object, once all of it was written: closing a driver's own file would put
        what there is when `write` fails."""
        with tempfile.NamedTemporaryFile(prefix="rlvr_limit-") as file:
            write(cast(BinaryIO, file))
            file.flush()
            self.put_file(Path(file.name))

    def put_file(self, source: Path) -> None:
        with driver_errors():
            self.store.put_file(str(source), self.url)

    def put_new(self, data: bytes) -> bool:
        """Puts an object where the name is not taken; whether it is this one that lies there now."""
        with driver_errors():
            try:
                self.store.pipe_file(self.url, data, mode="create")
                return True
            except FileExistsError:
                # The answer to a put may be lost: the driver puts again, and is refused on our own account.
                return self.store.cat_file(self.url) == data

    def refuses_a_taken_name(self) -> bool:
        """Whether put_new below this name keeps two processes apart; stores that speak S3 are known to ignore the wish.

        Puts and removes one small object.
        """
        if self.scheme not in REFUSING:
            return False
        probe = self / f"probe-{uuid.uuid4().hex}"
        try:
            return probe.put_new(b"first") and not probe.put_new(b"second")
        finally:
            probe.unlink(missing_ok=True)

    def unlink(self, missing_ok: bool = False) -> None:
        with driver_errors():
            try:
                self.store.rm_file(self.url)
            except FileNotFoundError:
                if not missing_ok:
                    raise


Place = Path | ObjectPath


@contextlib.contextmanager
def driver_errors() -> Iterator[None]:
    """Within it what a driver raises beside OSErrors, of a kind of its own, becomes one; slips of ours do not."""
    try:
        yield
    except (OSError, AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError):
        raise
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise OSError(errno.EIO, said[:300]) from error
