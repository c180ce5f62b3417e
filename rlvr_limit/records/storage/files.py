"""Files that are either whole or absent, and the operating system's refusals as one clear line."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from rlvr_limit.records.storage.objects import ObjectPath, Place
from rlvr_limit.types import UserError


@contextlib.contextmanager
def os_errors(doing: str, path: Place) -> Iterator[None]:
    """Within it an OSError becomes a UserError that names the path and the system's reason."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot {doing} {path}: {error.strerror or error}; what was recorded before is kept: "
            "put this right and run the same command again"
        ) from error


def publish(path: Place, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file under another name, syncs it to disk and renames it: no reader ever sees half of it.

    In an object store it is one put. Raises UserError where the disk is full or the folder cannot be written; an older
    file of that name is then kept.
    """
    if isinstance(path, ObjectPath):
        with os_errors("write", path):
            path.put(write)
        return
    temporary = path.with_name(path.name + ".tmp")
    with os_errors("write", path):
        try:
            with open(temporary, "wb") as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):  # the first error is the one to tell
                temporary.unlink()
            raise
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no such call
            raise
    finally:
        os.close(descriptor)
