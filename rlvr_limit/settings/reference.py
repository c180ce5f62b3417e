"""docs/configs.md, made from the fields as they are declared: python -m rlvr_limit.settings.reference"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path

from rlvr_limit.settings.schema import describe, hints_of, members, range_of
from rlvr_limit.settings.study import CountsSettings, ImportedSettings, Settings
from rlvr_limit.types import TokenSampling

PAGE = Path(__file__).parents[2] / "docs" / "configs.md"

HEAD = """# Settings

Made by `python -m rlvr_limit.settings.reference` from the dataclasses of `rlvr_limit/settings/`; change them, not this
page. Any field can be set on the command line, `--config.sampling.top_k=12`, also one that the config file does not
mention; a tuple is written `--config.benchmarks="('aime24',)"`, and `None` unsets an optional field. Every value is
checked before any work. `NAME` stands for a name of your own.
"""


def page() -> str:
    """The whole page."""
    seen: dict[type, str] = {}
    tables = list(_tables(Settings, "config", seen))
    for title, cls in (("job=counts", CountsSettings), ("configs/imported.py", ImportedSettings)):
        tables += [f"## Of {title}\n", *_tables(cls, "config", seen)]
    return "\n".join([HEAD, *tables])


def _tables(cls: type, path: str, seen: dict[type, str]) -> Iterator[str]:
    """A table of the fields of a group, then those of the groups in it; `seen` says where a class was shown before."""
    if cls in seen:
        yield f"### {path}\n\nAs {seen[cls]}.\n"
        return
    seen[cls] = path
    rows, below, comments = [], [], _comments(cls)
    for field in dataclasses.fields(cls):
        hint = hints_of(cls)[field.name]
        kind, *others = members(hint)
        if typing.get_origin(kind) is dict and dataclasses.is_dataclass(typing.get_args(kind)[1]):
            below.append((typing.get_args(kind)[1], f"{path}.{field.name}.NAME"))
        elif dataclasses.is_dataclass(kind):
            groups = filter(dataclasses.is_dataclass, (kind, *others))
            below += [(group, f"{path}.{field.name}") for group in groups]
        else:
            allowed = ", ".join(filter(None, (describe(hint), str(range_of(hint) or ""))))
            rows.append(f"| `{field.name}` | {_default(field)} | {allowed} | {comments.get(field.name, '')} |")
    head = ["| field | default | allowed | |", "|---|---|---|---|"] if rows else []
    yield "\n".join([f"### {path}\n\n{inspect.getdoc(cls)}\n", *head, *rows, ""])
    for inner, place in below:
        yield from _tables(inner, place, seen)


def _comments(cls: type) -> dict[str, str]:
    """The comment beside or above each field, also of those that a class inherits."""
    comments: dict[str, str] = {}
    for owner in (TokenSampling, *reversed(cls.__mro__[:-1])):
        if owner.__module__ == "types":
            continue
        lines = inspect.getsource(owner).splitlines()
        for node in ast.parse("\n".join(lines)).body[0].body:
            if isinstance(node, ast.AnnAssign):
                first, above = node.lineno - 1, []
                while lines[first - 1].lstrip().startswith("# "):
                    first -= 1
                    above.insert(0, lines[first].lstrip(" #"))
                beside = lines[node.end_lineno - 1][node.end_col_offset :].lstrip(" #")
                comments[node.target.id] = " ".join(filter(None, (*above, beside)))
    return comments


def _default(field: dataclasses.Field) -> str:
    if field.default is not dataclasses.MISSING:
        return f"`{field.default!r}`"
    return "needed" if field.default_factory is dataclasses.MISSING else f"`{field.default_factory()!r}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
