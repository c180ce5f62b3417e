"""A config file and a command line become settings: --config=FILE, and --config.a.b=value for any field."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib.util
import inspect
import os
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from rlvr_limit.settings.schema import describe, from_config, hints_of, is_group, members, nearest, unknown_field
from rlvr_limit.settings.study import CountsSettings, ImportedSettings, Settings
from rlvr_limit.types import UserError, not_allowed

_OVERRIDE = re.compile(r"--?(no)?(config\.[^=]+)(?:=(.*))?", re.DOTALL)


def parse_command_line(argv: Sequence[str], default: Path) -> Settings | CountsSettings | ImportedSettings:
    """The settings of the file that --config names (else `default`) under the overrides; argv[0] is skipped.

    Raises UserError, one line, for an unknown flag or field, a value of the wrong type or out of its range, or a
    missing file; the last is followed by the list of configs beside `default`. What a config file itself raises is
    passed on as it is.
    """
    config = read_config(argv, default)
    return from_config(_settings_class(config), config)


def read_config(argv: Sequence[str], default: Path) -> ConfigDict:
    """As parse_command_line, but what the file gives, with the overrides in it, not yet checked."""
    finder = flags.FlagValues()
    flags.DEFINE_string("config", str(default), "path to a config file", flag_values=finder)
    try:
        words = finder(argv, known_only=True)
        config = _load(finder["config"].value, default.parent).to_dict()
        words = flags.FLAGS(_apply_overrides(words, config))
    except flags.UnrecognizedFlagError as error:
        near = nearest(error.flagname, ["config", *(path for path, _ in _fields(_settings_class(config), config))])
        hint = f"did you mean --{near}?" if near else "use --config=FILE and --config.a.b=value"
        raise UserError(f"unknown flag --{error.flagname}: {hint}") from None
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from None
    if words[1:]:
        raise UserError(f"unexpected argument {words[1]!r}: overrides are written --config.a.b=value")
    return ConfigDict(config)


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


def _settings_class(config: Mapping[str, Any]) -> type:
    if "imported" in config or config.get("job") == "imported":
        return ImportedSettings
    return CountsSettings if config.get("job") == "counts" else Settings


def _apply_overrides(words: Sequence[str], tree: dict[str, Any]) -> list[str]:
    """Sets every --config.a.b=value in the nested mappings of a config; returns the other words."""
    others, waiting = [], list(words)
    while waiting:
        word = waiting.pop(0)
        match = _OVERRIDE.fullmatch(word)
        if not match:
            others.append(word)
            continue
        negated, path, text = match.groups()
        hint = _hint_at(path, tree)
        kinds = members(hint)
        if negated and (kinds != (bool,) or text is not None):
            raise UserError(f"{word}: only a bool is switched off by no, and without a value; use --{path}=value")
        if any(map(_is_group_hint, kinds)) and text != "None":
            inside = next((name for name, inner in _fields(hint, None, path) if not _is_group_hint(inner)), path)
            raise UserError(f"{path} is a group: override its fields one by one, such as --{inside}=value")
        if text is None and kinds == (bool,):
            text = "false" if negated else "true"
        elif text is None:
            text = waiting.pop(0) if waiting else ""
        _, *groups, last = path.split(".")
        group = tree
        for name in groups:
            group[name] = group.get(name) or {}
            group = group[name]
        group[last] = _value(hint, text, path)
    return others


def _value(hint: Any, text: str, path: str) -> Any:
    """What a word of the command line means for a field of this hint; whether it fits is checked with the rest."""
    kinds = members(hint)
    if text == "None" and types.NoneType in kinds:
        return None
    if str in kinds:
        return text
    try:
        value = ast.literal_eval(text.title() if bool in kinds else text)
    except (ValueError, SyntaxError):
        raise not_allowed(path, text, f"of type {describe(hint)}") from None
    is_item = tuple in map(typing.get_origin, kinds) and not isinstance(value, tuple | list)
    return (value,) if is_item else value


def _hint_at(path: str, config: Mapping[str, Any]) -> Any:
    """The type hint of the field at a dotted path. UserError, with the nearest one, where there is none."""
    known = dict(_fields(_settings_class(config), config))
    parent = known.get(path.rpartition(".")[0])
    # A group of names with plain values, such as sampling.n_of, takes new names.
    if path not in known and typing.get_origin(parent) is dict and not _is_group_hint(typing.get_args(parent)[1]):
        return typing.get_args(parent)[1]
    if path not in known:
        raise unknown_field(path, known)
    return known[path]


def _fields(hint: Any, value: Any, path: str = "config") -> Iterator[tuple[str, Any]]:
    """(dotted path, type hint) of every field below a hint; names of a dict are those of the value."""
    for kind in members(hint):
        inner: dict[str, Any] = {}
        if dataclasses.is_dataclass(kind):
            inner = hints_of(kind)
        elif typing.get_origin(kind) is dict and is_group(value):
            inner = dict.fromkeys(value.keys(), typing.get_args(kind)[1])
        for name, below in inner.items():
            yield f"{path}.{name}", below
            yield from _fields(below, value.get(name) if is_group(value) else None, f"{path}.{name}")


def _is_group_hint(hint: Any) -> bool:
    return any(dataclasses.is_dataclass(kind) or typing.get_origin(kind) is dict for kind in members(hint))


def _load(text: str, folder: Path) -> ConfigDict:
    """The ConfigDict that a file's get_config() returns; `folder` holds the configs, at any depth.

    What stands behind FILE.py: is given to get_config, as ml_collections has it.
    """
    file, colon, argument = text.partition(".py:")
    path = Path(f"{file}.py" if colon else text)
    by_stem = {name.stem: name for name in _config_files(folder)}
    if not path.is_file():
        near = difflib.get_close_matches(path.stem, by_stem, n=1)
        # A config's folder need not be typed.
        if near and near[0] == path.stem:
            path = by_stem[path.stem]
        else:
            meant = f" (did you mean {os.path.relpath(by_stem[near[0]])}?)" if near else ""
            raise UserError(f"no config file at {str(path)!r}{meant}\n\n{describe_configs(folder)}")
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file: a config's name ends in .py")
    # Configs import one another from the folder that holds configs/.
    if str(folder.parent.absolute()) not in sys.path:
        sys.path.append(str(folder.parent.absolute()))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"{path} is not a config: it defines no get_config()")
    if argument and not inspect.signature(module.get_config).parameters:
        raise UserError(f"{path}: it takes nothing behind a colon, but {argument!r} stands there")
    config = module.get_config(argument) if argument else module.get_config()
    if not isinstance(config, ConfigDict):
        raise UserError(f"{path}: get_config() returned {type(config).__name__}, not a ConfigDict")
    return config


def _config_files(folder: Path) -> list[Path]:
    paths = sorted(folder.rglob("*.py"), key=lambda path: (len(path.parts), path))
    return [path for path in paths if "def get_config" in path.read_text(encoding="utf-8")]


def _first_docstring_line(path: Path) -> str:
    try:
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    except SyntaxError as error:
        return f"(not valid Python: line {error.lineno}, {error.msg})"
    return docstring.partition("\n")[0] if docstring else "(no docstring)"
