"""The job's door: a command line becomes one ConfigDict, and a ConfigDict becomes frozen dataclasses, strictly."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import enum
import hashlib
import importlib.util
import json
import math
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags, tuple_parser

from rlvr_limit.types import UserError

T = TypeVar("T")

_OVERRIDE = re.compile(r"--?(no)?(config\.[^=]+)(?:=(.*))?", re.DOTALL)
_TEXT_PARSERS = {
    bool: flags.BooleanParser,
    float: flags.FloatParser,
    int: flags.IntegerParser,
    tuple: tuple_parser.TupleParser,
}


def parse_command_line(argv: Sequence[str], default: Path) -> ConfigDict:
    """Loads the file that --config names (else `default`) and applies --config.a.b=value overrides; argv[0] is skipped.

    Raises UserError, one line, for an unknown flag or field, a value of the wrong type, or a missing file; the last is
    followed by the list of configs beside `default`. What a config file itself raises is passed on as it is.
    """
    finder, overrides = flags.FlagValues(), flags.FlagValues()
    flags.DEFINE_string("config", str(default), "path to a config file", flag_values=finder)
    try:
        words = finder(argv, known_only=True)
        config = _load(Path(finder["config"].value), default.parent)
        _check_overrides(words, config)
        config_flags.DEFINE_config_dict("config", config, flag_values=overrides, sys_argv=words)
        words = flags.FLAGS(overrides(words, known_only=True))
    except flags.UnrecognizedFlagError as error:
        near = _nearest(error.flagname, ["config", *_field_types(config)])
        hint = f"did you mean --{near}?" if near else "--config=FILE and --config.a.b=value are right"
        raise UserError(f"unknown flag --{error.flagname}: {hint}") from None
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from None
    if words[1:]:
        raise UserError(f"unexpected argument {words[1]!r}: overrides are written --config.a.b=value")
    return config


def describe_configs(folder: Path) -> str:
    """One line for each config file in `folder` with the first line of its docstring, and how to override a field."""
    names = [os.path.relpath(path) for path in _config_files(folder)]
    width = max(map(len, names), default=0)
    lines = [f"  {name:{width}}  {_first_docstring_line(Path(name))}" for name in names]
    return "\n".join(
        [
            "configs (--config=FILE):",
            *lines,
            "",
            "Any field of a config can be overridden: --config.a.b=value. A tuple is written --config.a.b='(1, 2)'.",
        ]
    )


def from_config(cls: type[T], config: ConfigDict | Mapping[str, Any], path: str = "config") -> T:
    """Converts a ConfigDict to the frozen dataclass `cls`, by its type hints all the way down.

    Hints: bool, int, float, str, None, dataclasses, tuple[X, ...], tuple[X, Y], dict[str, X] and unions of these. An
    int is taken for a float and a list for a tuple; nothing else is converted. A field the config lacks takes its
    default. A ConfigDict keeps its names in alphabetical order, and so does a dict made from it.
    Raises UserError with the dotted path of an unknown, missing or wrongly typed field, TypeError for another hint.
    """
    hints = typing.get_type_hints(cls)
    known = {field.name: field for field in dataclasses.fields(cls)}
    for name in config.keys():
        if name not in known:
            raise _unknown_field(f"{path}.{name}", [f"{path}.{other}" for other in known])
    values = {}
    for name, field in known.items():
        if name in config:
            values[name] = _convert(hints[name], config[name], f"{path}.{name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UserError(f"{path}.{name} is missing: {_describe(hints[name])} is needed")
    return cls(**values)


def to_jsonable(obj: Any) -> Any:
    """Turns nested dataclasses, mappings with str keys, sequences, enums and scalars into what `json` can write.

    Raises TypeError for anything else.
    """
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        return {field.name: to_jsonable(getattr(obj, field.name)) for field in dataclasses.fields(obj)}
    if _is_group(obj) and all(isinstance(key, str) for key in obj.keys()):
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


def _load(path: Path, folder: Path) -> ConfigDict:
    """The ConfigDict that the file's get_config() returns; `folder` is where to look for what was meant."""
    if not path.is_file():
        by_stem = {name.stem: os.path.relpath(name) for name in _config_files(folder)}
        near = difflib.get_close_matches(path.stem, by_stem, n=1)
        meant = f" (did you mean {by_stem[near[0]]}?)" if near else ""
        raise UserError(f"no config file at {str(path)!r}{meant}\n\n{describe_configs(folder)}")
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file: a config's name ends in .py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"{path} is not a config: it defines no get_config()")
    config = module.get_config()
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() returned {type(config).__name__}, ConfigDict is right")
    return config


def _check_overrides(words: Sequence[str], config: ConfigDict) -> None:
    """Says in one line what ml_collections would say in a traceback: unknown fields and values of the wrong type."""
    kinds = _field_types(config)
    for word, following in zip(words, [*words[1:], ""], strict=True):
        match = _OVERRIDE.fullmatch(word)
        if not match:
            continue
        negated, path, text = match.groups()
        if path not in kinds:
            raise _unknown_field(path, kinds)
        kind = kinds[path]
        if negated and (kind is not bool or text is not None):
            raise UserError(f"{word}: only a bool is switched off by no, and without a value; --{path}=value is right")
        if kind is ConfigDict:
            inside = [name for name in kinds if name.startswith(f"{path}.") and kinds[name] is not ConfigDict]
            example = f", such as --{inside[0]}=value" if inside else ""
            raise UserError(f"{path} is a group: override its fields one by one{example}")
        if kind not in (*_TEXT_PARSERS, str):
            raise UserError(
                f"{path} takes no override: in the config file write config_dict.placeholder(type) instead of None, "
                "and a tuple instead of a list"
            )
        if kind in _TEXT_PARSERS and not (kind is bool and text is None):
            found = following if text is None else text
            try:
                _TEXT_PARSERS[kind]().parse(found)
            except ValueError:
                raise _wrong(path, found, kind) from None


def _field_types(config: ConfigDict, path: str = "config") -> dict[str, type]:
    """Dotted path of every field, groups included, to the type its override must have."""
    kinds = {}
    for name in config.keys():
        if not name.isidentifier():
            raise UserError(f"{path}: found the name {name!r}, but letters, digits and underscores are right")
        value = config[name]
        if isinstance(value, ConfigDict):
            kinds[f"{path}.{name}"] = ConfigDict
            kinds |= _field_types(value, f"{path}.{name}")
        else:
            kinds[f"{path}.{name}"] = config.get_type(name)
    return kinds


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for member in args:
            if _fits(member, value):
                return _convert(member, value, path)
        raise _wrong(path, value, hint)
    if not _fits(hint, value):
        raise _wrong(path, value, hint)
    if dataclasses.is_dataclass(hint):
        return from_config(hint, value, path)
    if origin is dict:
        return {name: _convert(args[1], value[name], f"{path}.{name}") for name in value.keys()}
    if origin is tuple:
        items = args[:1] * len(value) if args[-1] is Ellipsis else args
        pairs = enumerate(zip(items, value, strict=True))
        return tuple(_convert(item, part, f"{path}[{i}]") for i, (item, part) in pairs)
    return float(value) if hint is float else value


def _fits(hint: Any, value: Any) -> bool:
    """Whether the value has the hint's outer shape; what is inside is checked when it is converted."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) or (origin is dict and args[0] is str):
        return _is_group(value)
    if origin is tuple:
        return isinstance(value, tuple | list) and (args[-1] is Ellipsis or len(args) == len(value))
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if hint in (bool, int, str, types.NoneType):
        return type(value) is hint
    raise TypeError(f"settings cannot hold {hint}")


def _describe(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_describe, args))
    if hint is types.NoneType:
        return "None"
    if hint is float:
        return "a finite float"
    if dataclasses.is_dataclass(hint):
        return f"a group of fields ({', '.join(field.name for field in dataclasses.fields(hint))})"
    if origin is dict:
        return f"a group of names, each with {_describe(args[1])}"
    if origin is tuple and args[-1] is Ellipsis:
        return f"a tuple of any length, each item {_describe(args[0])}"
    if origin is tuple:
        return f"a tuple ({', '.join(map(_describe, args))})"
    return f"{'an' if hint.__name__[0] in 'aeiou' else 'a'} {hint.__name__}"


def _wrong(path: str, value: Any, hint: Any) -> UserError:
    found = f"a group of fields ({', '.join(value.keys())})" if _is_group(value) else repr(value)
    return UserError(f"{path}: found {found}, but {_describe(hint)} is right")


def _unknown_field(path: str, candidates: Iterable[str]) -> UserError:
    candidates = list(candidates)
    near = _nearest(path, candidates)
    if near:
        return UserError(f"unknown field {path}: did you mean {near}?")
    parent = path.rpartition(".")[0]
    siblings = [other for other in candidates if other.rpartition(".")[0] == parent] or candidates
    return UserError(f"unknown field {path}: the fields here are {', '.join(siblings)}")


def _nearest(path: str, candidates: Iterable[str]) -> str | None:
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


def _is_group(value: Any) -> bool:
    return isinstance(value, ConfigDict | Mapping)


def _config_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.py")) if "def get_config" in path.read_text(encoding="utf-8")]


def _first_docstring_line(path: Path) -> str:
    try:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except SyntaxError as error:
        return f"(not valid Python: line {error.lineno}, {error.msg})"
    return docstring.partition("\n")[0] if docstring else "(no docstring)"
