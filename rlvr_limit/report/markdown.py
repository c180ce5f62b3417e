"""The page's words and its main tables as plain Markdown, for mail, issues and version control."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rlvr_limit.report import tables, words
from rlvr_limit.report.analysis import Findings
from rlvr_limit.report.study import Study


def summary(study: Study, found: Findings, files: dict[str, str]) -> str:
    """What is not resolved, what was found, the main tables, figures, conditions, versions, the files beside it."""
    tables_of = {
        "pass@k, percent, with 95 % population bands": tables.headline_rows(study, found),
        "Paired differences of pass@k, points, with 95 % paired bands (?: the band includes 0)":
            tables.difference_rows(study, found),
        "Who solves what": tables.support_rows(study, found),
        "Sampling efficiency": tables.delta_se_rows(study, found),
        "Answers cut short or without a verdict": tables.rate_rows(study),
        "Conditions (\u2260: not the same in every arm)": tables.condition_rows(study)[:2],
    }  # fmt: skip
    figures = [f"![{name[:-4]}]({name})" for name in files if name.endswith(".png")]
    versions = [f"{name}: {version}" for name, version in study.versions.items()]
    seed = [] if study.seed is None else [f"seed: {study.seed}"]
    parts = [
        f"# {_plain(study.title)}",
        _plain(study.purpose),
        "## What is not resolved",
        _items(words.not_resolved(study, found)),
        "## What was found",
        _plain(" ".join([*words.summary(study, found), *words.other_arms(study, found)])),
        *([f"**{_plain(study.caveat)}**"] if study.caveat else []),
        *(part for title, (head, rows) in tables_of.items() for part in (f"## {title}", _table(head, rows))),
        _items(words.drifts(study)),
        "## Figures",
        *figures,
        "## How to reproduce this",
        "\n".join(f"    {line}" for line in study.command.splitlines()),
        _items([*seed, *study.notes, *versions]),
        "## Files",
        "\n".join(f"- [{name}]({name}): {what}" for name, what in files.items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _plain(text: str) -> str:
    """Text without what Markdown or HTML would take for markup."""
    for mark in "\\`*_[]#|":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.replace("&", "&amp;").replace("<", "&lt;").split())


def _items(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_plain(line)}" for line in lines)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---", *("---:" for _ in head[1:])]]
    body = [[_cell(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [[_plain(x) for x in lines[0]], lines[1], *body])


def _cell(cell: str) -> str:
    """A table's cell; its second line, a band, in brackets."""
    first, *rest = cell.split("\n", 1)
    return _plain(first + (f" ({rest[0]})" if rest else ""))
