"""Nested mappings become frozen dataclasses, strictly; and these become JSON and a digest."""

from __future__ import annotations

import dataclasses
import difflib
import enum
import functools
import hashlib
import json
import math
import os
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from rlvr_limit.types import RANGES, UserError, not_allowed

T = TypeVar("T")


def from_config(cls: type[T], config: Mapping[str, Any], path: str = "config") -> T:
    """Converts a mapping to the frozen dataclass `cls`, by its type hints all the way down.

    Hints: bool, int, float, str, None, dataclasses, tuple[X, ...], dict[str, X], unions of these, and
    Annotated[X, range]. An int is taken for a float and a list for a tuple; nothing else is converted. A field that
    the mapping lacks takes its default.
    Raises UserError with the dotted path of an unknown, missing or wrongly typed field or of a value out of its range,
    TypeError for another hint.
    """
    hints = hints_of(cls)
    for name in config.keys():
        if name not in hints:
            raise unknown_field(f"{path}.{name}", [f"{path}.{other}" for other in hints])
    values = {name: _convert(hints[name], config[name], f"{path}.{name}") for name in hints if name in config}
    for field in dataclasses.fields(cls):
        if field.name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise UserError(f"{path}.{field.name} is missing, of type {describe(hints[field.name])}")
    return cls(**values)


def check_ranges(settings: Any, path: str) -> None:
    """Raises UserError for the first field of a dataclass with a value out of its range; `path` is what holds it."""
    for name, hint in hints_of(type(settings)).items():
        if typing.get_origin(hint) is typing.Annotated:
            _check_range(hint, getattr(settings, name), f"{path}{name}")


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """Type hints of a dataclass's fields, with their ranges."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def members(hint: Any) -> tuple[Any, ...]:
    """The types that a hint allows, without ranges."""
    hint = _plain(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(member for part in typing.get_args(hint) for member in members(part))
    return (hint,)


def range_of(hint: Any) -> Any:
    """The range that a hint, or a part of it such as a tuple's items, was declared with; None without."""
    if typing.get_origin(hint) is typing.Annotated:
        return next((extra for extra in hint.__metadata__ if isinstance(extra, RANGES)), None)
    return next(filter(None, map(range_of, typing.get_args(hint))), None)


def to_jsonable(obj: Any) -> Any:
    """Turns nested dataclasses, mappings with str keys, sequences, enums and scalars into what `json` can write.

    Raises TypeError for anything else.
    """
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {field.name: to_jsonable(getattr(obj, field.name)) for field in dataclasses.fields(obj)}
    if is_group(obj) and all(isinstance(key, str) for key in obj.keys()):
        return {key: to_jsonable(obj[key]) for key in obj.keys()}
    if isinstance(obj, list | tuple):
        return [to_jsonable(item) for item in obj]
    if isinstance(obj, enum.Enum):
        return to_jsonable(obj.value)
    if obj is None or type(obj) in (bool, int, float, str):
        return obj
    raise TypeError(f"cannot write {obj!r} of type {type(obj).__name__} as JSON")


def digest(obj: Any) -> str:
    """First 12 hex characters of the SHA-256 of `obj` as canonical JSON (sorted keys, no spaces, ASCII).

    Raises ValueError for a nan or an infinity, TypeError for what `to_jsonable` refuses.
    """
    text = json.dumps(to_jsonable(obj), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:12]


def describe(hint: Any) -> str:
    """A type hint in words: "int", "str or None", "tuple of int"."""
    kinds = members(hint)
    if len(kinds) > 1:
        return " or ".join(map(describe, kinds))
    kind, args = kinds[0], typing.get_args(kinds[0])
    if dataclasses.is_dataclass(kind):
        return f"group of {', '.join(hints_of(kind))}"
    if typing.get_origin(kind) is dict:
        return f"group of names, each {describe(args[1])}"
    if typing.get_origin(kind) is tuple:
        return f"tuple of {describe(args[0])}"
    return {float: "finite float", types.NoneType: "None"}.get(kind, kind.__name__)


def unknown_field(path: str, candidates: Iterable[str]) -> UserError:
    """The error of a field that there is not, with the nearest one that there is."""
    candidates = list(candidates)
    near = nearest(path, candidates)
    if near:
        return UserError(f"unknown field {path}: did you mean {near}?")
    parent = path.rpartition(".")[0]
    siblings = [other for other in candidates if other.rpartition(".")[0] == parent] or candidates
    return UserError(f"unknown field {path}: the fields here are {', '.join(siblings)}")


def nearest(path: str, candidates: Iterable[str]) -> str | None:
    """The candidate most like `path`, or None if none is. A wrong group with the right last name is still like it."""

    def likeness(other: str) -> tuple[float, float]:
        mine, its = path.split("."), other.split(".")
        shared = len(os.path.commonprefix([mine, its]))
        rest, last = (
            difflib.SequenceMatcher(None, ".".join(mine[start:]), ".".join(its[stop:])).ratio()
            for start, stop in ((shared, shared), (-1, -1))
        )
        return max(rest, last), rest

    best = max(candidates, key=likeness, default=None)
    return best if best is not None and likeness(best)[0] >= 0.6 else None


def is_group(value: Any) -> bool:
    """Whether a value has fields of its own; a ConfigDict is no Mapping."""
    return hasattr(value, "keys")


def _plain(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _convert(hint: Any, value: Any, path: str) -> Any:
    # Of several groups the one that has most of the names.
    fitting = [member for member in members(hint) if _fits(member, value)]
    kind = max(fitting, key=lambda member: _names_known(member, value), default=None)
    if kind is None:
        raise not_allowed(path, to_jsonable(value) if is_group(value) else value, f"of type {describe(hint)}")
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return from_config(kind, value, path)
    if origin is dict:
        return {name: _convert(args[1], value[name], f"{path}.{name}") for name in value.keys()}
    if origin is tuple:
        return tuple(_convert(args[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    value = float(value) if kind is float else value
    _check_range(hint, value, path)
    return value


def _names_known(kind: Any, value: Any) -> int:
    return sum(name in hints_of(kind) for name in value.keys()) if dataclasses.is_dataclass(kind) else 0


def _check_range(hint: Any, value: Any, path: str) -> None:
    allowed = range_of(hint)
    if allowed is not None and value is not None and value not in allowed:
        raise not_allowed(path, value, str(allowed))


def _fits(kind: Any, value: Any) -> bool:
    """Whether the value has the type's outer shape; what is inside is checked when it is converted."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) or (origin is dict and args[0] is str):
        return is_group(value)
    if origin is tuple:
        return isinstance(value, tuple | list)
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if kind in (bool, int, str, types.NoneType):
        return type(value) is kind
    raise TypeError(f"settings cannot hold {kind}")
