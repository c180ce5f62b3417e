"""One call from a study's results to a folder: the page, figures as PNG and SVG, numbers as CSV and JSON, Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from rlvr_limit.report import figures, html, markdown, tables, viewer, words
from rlvr_limit.report.analysis import Findings, analyse
from rlvr_limit.report.extras import extras
from rlvr_limit.report.page import Images, build
from rlvr_limit.report.results import Results, check
from rlvr_limit.types import UserError


def write(results: Results, folder: Path) -> Path:
    """Write the page and all beside it into folder, which is made if missing; returns the page's path.

    The page is written last, so a page that is there is whole. Raises UserError where the results contradict themselves
    or the folder cannot be written.
    """
    _write(results, Path(folder))
    return Path(folder) / "index.html"


def write_all(title: str, purpose: str, caveat: str, results_by_name: Mapping[str, Results], folder: Path) -> Path:
    """Writes each study into a folder of its name and a page that shows their curves and leads to them; its path."""
    sections, named = [], {}
    for name, results in results_by_name.items():
        found, images = _write(results, Path(folder) / name)
        named[name] = results, found
        head, rows = tables.headline_rows(results, found)
        sections.append(
            html.section(
                name,
                name,
                [
                    html.paragraph(" ".join(words.summary(results, found)), "lead"),
                    html.picture(images["curves"], f"pass@k curves on {name}", (
                        f"pass@k of every arm; {words.size(results)}. Shaded: 95 % population band, pointwise in k. "
                        "Whether two arms differ is told by their paired difference, on the page of its own.")),
                    html.table(head, rows, "Below each number: its 95 % population band, percent."),
                    "<p>" + html.link(f"{name}/index.html", f"All about {name}, and what is not resolved") + "</p>",
                ],
            )
        )  # fmt: skip
    open_lines = [f"{name}: {line}" for name, pair in named.items() for line in words.open_signs(*pair)]
    head, rows = tables.overview_rows(named)
    sections[:0] = [
        html.section("unresolved", "What is not resolved", [html.items(open_lines), html.paragraph(
            "More that is not resolved stands on each page of its own.", "note")], "box"),
        html.section("overview", "Side by side", [
            html.table(head, rows, "Below each number: its 95 % population band, percent.")]),
    ]  # fmt: skip
    intro = [f"<header><h1>{escape(title)}</h1>", html.paragraph(purpose, "purpose"), html.paragraph(caveat, "caveat")]
    page = Path(folder) / "index.html"
    try:
        page.write_text(html.page(title, [*intro, "</header>", *sections]), encoding="utf-8")
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return page


def _write(results: Results, folder: Path) -> tuple[Findings, Images]:
    check(results)
    found = analyse(results)
    drawn = {name: draw for name, draw in figures.FIGURES.items() if figures.has_data(name, results, found)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = tables.write_numbers(results, found, folder) | tables.write_further(extras(results, found), folder)
        images = {}
        for name, draw in drawn.items():
            images[name], svg, image = figures.render(draw, results, found)
            (folder / f"{name}.png").write_bytes(image)
            (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
            files[f"{name}.png"] = f"the figure of {name}, light, 160 dots per inch"
            files[f"{name}.svg"] = "the same as vectors"
        kept = viewer.write_samples(results, folder)
        (folder / "summary.md").write_text(markdown.summary(results, found, files), encoding="utf-8")
        files["summary.md"] = "what stands here, in plain Markdown"
        (folder / "index.html").write_text(build(results, found, images, files, kept), encoding="utf-8")
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return found, images


def _cannot_write(folder: Path, error: OSError) -> UserError:
    return UserError(f"report folder {folder}: cannot be written ({error.strerror}); give one that can")
