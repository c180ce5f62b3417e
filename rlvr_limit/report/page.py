"""The page: which sections there are and in which order; what has no data drops out and is named at the end."""

from __future__ import annotations

from html import escape

from rlvr_limit.report import html, sections, viewer, words
from rlvr_limit.report.analysis import Findings
from rlvr_limit.report.results import Results
from rlvr_limit.report.sections import Images

SECTIONS = {
    "curves": "pass@k of every arm",
    "differences": "Paired differences",
    "histograms": "Accuracy per problem",
    "support": "Who solves what",
    "guessing": "Guessing",
    "chains": "Right answers by a wrong chain",
    "problems": "Problem by problem",
    "perplexity": "Perplexity",
    "efficiency": "Sampling efficiency",
    "steps": "Along the training",
    "temperatures": "Temperature and entropy",
    "training": "Training",
    "extras": "Further metrics",
    "rates": "Truncated answers and answers without a result",
    "conditions": "Conditions of every arm",
    "reproduce": "How to reproduce this",
}


def build(
    results: Results, found: Findings, images: Images, files: dict[str, str], kept: viewer.Kept | None = None
) -> str:
    """The whole page. images: a data URI per figure and (dark, narrow); files: what lies beside the page.

    kept: what viewer.write_samples has kept beside the page, None where there are no samples.
    """
    absent = sections.absent(results, found, images, kept is not None)
    parts = {name: make(results, found, images) for name, make in sections.MAKE.items() if name not in absent}
    parts["problems"] = viewer.section(results, found, kept)
    parts["reproduce"] = sections.reproduce(results, files, [reason for reason in absent.values() if reason])
    shown = {name: title for name, title in SECTIONS.items() if name in parts}
    body = [
        f"<header><h1>{escape(results.title)}</h1>",
        html.paragraph(results.purpose, "purpose"),
        "</header>",
        html.section("unresolved", "What is not resolved", [html.items(words.not_resolved(results, found))], "box"),
        html.section(
            "found",
            "What was found",
            [
                html.paragraph(" ".join(words.summary(results, found)), "lead"),
                html.paragraph(" ".join(words.other_arms(results, found))),
                html.paragraph(results.caveat, "caveat"),
            ],
        ),
        "<nav>" + "".join(html.link(f"#{anchor}", title) for anchor, title in shown.items()) + "</nav>",
        *(html.section(name, title, parts[name]) for name, title in shown.items()),
    ]
    return html.page(results.title, body)
