"""The page's words and its main tables as plain Markdown, for mail, issues and version control."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rlvr_limit.report import tables, words
from rlvr_limit.report.analysis import Findings
from rlvr_limit.report.results import Results


def summary(results: Results, found: Findings, files: dict[str, str]) -> str:
    """What is not resolved, what was found, the main tables, figures, conditions, versions, the files beside it."""
    tables_of = {
        "pass@k, percent, with 95 % population bands": tables.headline_rows(results, found),
        "Paired differences of pass@k, points, with 95 % paired bands (?: the band includes 0)":
            tables.difference_rows(results, found),
        "Who solves what": tables.support_rows(results, found),
        "Sampling efficiency": tables.delta_se_rows(results, found),
        "Answers cut short or without a verdict": tables.rate_rows(results),
        "Conditions (\u2260: not the same in every arm)": tables.condition_rows(results)[:2],
    }  # fmt: skip
    figures = [f"![{name[:-4]}]({name})" for name in files if name.endswith(".png")]
    versions = [f"{name}: {version}" for name, version in results.versions.items()]
    seed = [] if results.seed is None else [f"seed: {results.seed}"]
    parts = [
        f"# {_plain(results.title)}",
        _plain(results.purpose),
        "## What is not resolved",
        _items(words.not_resolved(results, found)),
        "## What was found",
        _plain(" ".join([*words.summary(results, found), *words.other_arms(results, found)])),
        *([f"**{_plain(results.caveat)}**"] if results.caveat else []),
        *(part for title, (head, rows) in tables_of.items() for part in (f"## {title}", _table(head, rows))),
        _items(words.cache_errors(results)),
        "## Figures",
        *figures,
        "## How to reproduce this",
        "\n".join(f"    {line}" for line in results.command.splitlines()),
        _items([*seed, *results.notes, *versions]),
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
