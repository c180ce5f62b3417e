"""manifest.json: under which conditions a run folder was made, by which sessions, and what is known since."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any

from rlvr_limit.records.storage import ObjectPath, Place, place
from rlvr_limit.records.storage.files import os_errors, publish
from rlvr_limit.types import UserError

FORMAT = 2  # 1 had other names of settings
SHOWN = 5  # differences told in one line


def open_run(root: str | os.PathLike[str] | ObjectPath, conditions: Mapping[str, Any], info: Mapping[str, Any]) -> None:
    """Starts a run folder, or goes on with one made under equal conditions; notes this session in its manifest.

    conditions: nested, of text, numbers, booleans, lists and mappings: all that decides what a sample is.
    info: library versions, device, host: free to differ, kept per session.
    Raises UserError listing the conditions that differ, and where the folder cannot be written.
    """
    root = place(root)
    conditions, info = _plain(conditions, "conditions"), _plain(info, "info")
    with os_errors("create", root):
        root.mkdir(parents=True, exist_ok=True)
        is_new, has_records = not (root / "manifest.json").exists(), (root / "records").exists()
    if is_new and has_records:
        raise UserError(f"{root} holds records but no manifest.json: restore that file, or choose a new run folder")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with _alone(root):
        if is_new:
            manifest: dict[str, Any] = {"format": FORMAT, "created": now, "conditions": conditions}
            manifest |= {"facts": {}, "sessions": []}
        else:
            manifest = read_manifest(root)
            _refuse_differences(root, manifest["conditions"], conditions)
        manifest["sessions"].append({"started": now, **info})
        _write(root, manifest)


def read_manifest(root: str | os.PathLike[str] | ObjectPath) -> dict[str, Any]:
    """{format, created, conditions, facts, sessions}. UserError where there is none or it cannot be understood."""
    path = place(root) / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        found = manifest["format"]
        manifest["conditions"], manifest["facts"], manifest["sessions"]
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{root} is not a run folder: it has no manifest.json") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}): restore it from a copy, or choose a new run folder") from error
    if found != FORMAT:
        raise UserError(f"{path} has format {found}, this version reads {FORMAT}: use the version that made the folder")
    return manifest


def update_manifest(root: str | os.PathLike[str] | ObjectPath, key: str, value: Any) -> None:
    """Keeps a fact learned later, such as "arms.base.weights_sha256", under manifest["facts"][key].

    A fact is set once: UserError where the folder holds another value for it.
    """
    value = _plain(value, key)
    with _alone(place(root)):
        manifest = read_manifest(root)
        if key in manifest["facts"]:
            _refuse_differences(place(root), {key: manifest["facts"][key]}, {key: value})
            return
        manifest["facts"][key] = value
        _write(place(root), manifest)


@contextlib.contextmanager
def _alone(root: Place) -> Iterator[None]:
    """No other process of this machine changes the manifest meanwhile, such as a report; a store has no such lock."""
    if isinstance(root, ObjectPath) or not root.is_dir():
        yield
        return
    folder = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _write(root: Place, manifest: dict[str, Any]) -> None:
    publish(root / "manifest.json", lambda file: file.write(json.dumps(manifest, indent=1, allow_nan=False).encode()))


def _plain(value: Any, name: str) -> Any:
    """The value as JSON gives it back, so that what is compared later is what was meant now."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise UserError(f"{name}: the key {key!r} cannot be kept in manifest.json: keys must be text")
        return {key: _plain(inner, f"{name}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, f"{name}[{i}]") for i, inner in enumerate(value)]
    is_plain = value is None or isinstance(value, str | int | float)
    if not is_plain or isinstance(value, float) and not math.isfinite(value):
        raise UserError(
            f"{name}: {value!r} cannot be kept in manifest.json: it must be text, a finite number, a boolean, a list "
            "or a mapping"
        )
    return value


def _refuse_differences(root: Place, theirs: Any, ours: Any) -> None:
    """UserError with one line that shows where the folder's values and this run's differ."""
    theirs, ours = dict(_leaves(theirs)), dict(_leaves(ours))
    absent = object()
    lines = []
    for name in [*theirs, *(name for name in ours if name not in theirs)]:
        x, y = theirs.get(name, absent), ours.get(name, absent)
        if x != y:
            x, y = ("nothing" if v is absent else json.dumps(v, ensure_ascii=False) for v in (x, y))
            lines.append(f"{name}: folder has {_excerpt(x, y)}, this run has {_excerpt(y, x)}")
    if lines:
        more = f"; and {len(lines) - SHOWN} more" if len(lines) > SHOWN else ""
        raise UserError(
            f"{root} was made under other conditions: {'; '.join(lines[:SHOWN])}{more}. "
            "Use the folder's values, or choose a new run folder"
        )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """("a.b[0]", value) for every innermost value of a nested one."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and value:
        for i, inner in enumerate(value):
            yield from _leaves(inner, f"{name}[{i}]")
    else:
        yield name, value


def _excerpt(text: str, other: str, width: int = 60) -> str:
    """The text, or where it is long, the part around the first character in which it differs from the other."""
    if len(text) <= width:
        return text
    start = max(0, len(os.path.commonprefix([text, other])) - width // 3)
    cut = text[start : start + width]
    return ("..." if start else "") + cut + ("..." if start + width < len(text) else "")
