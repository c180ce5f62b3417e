"""From a study's results to a folder: the page, figures as PNG and SVG, numbers as CSV and JSON, Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from rlvr_limit import passk
from rlvr_limit.report import analysis, figures, numbers, tables, text, viewer, words
from rlvr_limit.report.analysis import Findings, analyse, share_of_samples
from rlvr_limit.report.further import further_tables
from rlvr_limit.report.learned import learned_tables
from rlvr_limit.report.results import Interim, Results, check
from rlvr_limit.types import UserError

PAGE = "index.html"

SECTIONS = {
    "curves": "pass@k of every arm",
    "differences": "Paired differences",
    "histograms": "Accuracy per problem",
    "support": "Who solves what",
    "guessing": "Guessing",
    "chains": "Right answers from wrong reasoning",
    "problems": "Problem by problem",
    "perplexity": "Perplexity",
    "efficiency": "Sampling efficiency",
    "steps": "During training",
    "temperatures": "Temperature and entropy",
    "algorithms": "One run and the algorithm",
    "training": "Training",
    "contamination": "Contamination audit",
    "further": "Further metrics",
    "rates": "Truncated answers and answers without a verdict",
    "conditions": "Conditions of every arm",
    "reproduce": "How to reproduce this",
}
"""In the order of the page; templates/sections.html.j2 says what stands in each."""

FOLDED = ("algorithms", "training", "contamination", "further", "rates", "conditions", "reproduce")
"""Sections that only open when asked: what the finding does not rest on. A link to one opens it."""

ABSENT = {
    "differences": "there is one arm, so there is nothing to compare it with.",
    "guessing": "the task gives no guess rates, its answers are not texts that could be matched with the answers to "
    "other problems, and no arm was asked for the answer alone.",
    "chains": "there is no sample whose chain of thought a person could judge.",
    "perplexity": "no answers were scored in this study, so there is no perplexity to show.",
    "training": "no training rows were given, so there are no curves of training to show.",
    "rates": "truncated answers and answers without a verdict were not counted.",
    "conditions": "the conditions under which the arms were sampled are not recorded.",
}
"""Why a section has nothing to show; others drop out without a word."""

Images = dict[str, dict[tuple[bool, bool], str]]
"""A data URI by figure and (dark, narrow)."""


def write(results: Results | Interim, folder: Path) -> Path:
    """Write the page and all beside it into folder, which is made if missing; returns the page's path.

    The page is written last, so a page that is there is whole. Raises UserError where the results contradict themselves
    or the folder cannot be written.
    """
    page = Path(folder) / PAGE
    if isinstance(results, Interim):
        _put(page, _render("interim.html.j2", {"title": _titled(results.title, results), "interim": results}, results))
    else:
        _write(results, Path(folder))
    return page


def write_all(
    title: str, purpose: str, caveat: str, results_by_name: Mapping[str, Results | Interim], folder: Path
) -> Path:
    """Writes each study into a folder of its name and a page that shows their curves and leads to them; its path."""
    studies, interims = {}, {}
    for name, results in results_by_name.items():
        interim = results if isinstance(results, Interim) else results.interim
        if interim:
            interims[name] = interim
        if isinstance(results, Interim):
            write(results, Path(folder) / name)
        else:
            findings, images = _write(results, Path(folder) / name)
            studies[name] = {"results": results, "findings": findings, "images": images["curves"]}
    any_interim = next(iter(interims.values()), None)
    context = {"title": _titled(title, any_interim), "purpose": purpose, "caveat": caveat}
    page = Path(folder) / PAGE
    _put(page, _render("overview.html.j2", context | {"studies": studies, "interims": interims}, any_interim))
    return page


def _titled(title: str, interim: Interim | None) -> str:
    return f"Interim: {title}" if interim else title


def _put(page: Path, text: str) -> None:
    """A page that is there is whole, also while a browser loads it. UserError where it cannot be written."""
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        hidden = page.with_suffix(".tmp")
        hidden.write_text(text, encoding="utf-8")
        hidden.replace(page)
    except OSError as error:
        raise _cannot_write(page.parent, error) from error


def _write(results: Results, folder: Path) -> tuple[Findings, Images]:
    check(results)
    findings = analyse(results)
    further = [*learned_tables(results, findings), *further_tables(results, findings)]
    said = {
        "summary": [*words.summary(results, findings), *words.other_arms(results, findings)],
        "not_resolved": words.not_resolved(results, findings),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = numbers.write_numbers(results, findings, further, said, folder)
        images = {}
        for name in figures.names(results, findings):
            images[name], svg, png = figures.drawn(name, results, findings)
            (folder / f"{name}.png").write_bytes(png)
            (folder / f"{name}.svg").write_text(svg, encoding="utf-8")
            files[f"{name}.png"] = f"the figure of {name}, light, 160 dots per inch"
            files[f"{name}.svg"] = "the same as vectors"
        stored = viewer.write_samples(results, folder)
        for name, about in (
            ("summary.md", "the words and main tables of this page, in Markdown"),
            (PAGE, "this page"),
        ):
            _put(folder / name, build(f"{name}.j2", results, findings, further, images, files, stored))
            files[name] = about
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return findings, images


def _cannot_write(folder: Path, error: OSError) -> UserError:
    return UserError(f"report folder {folder}: cannot be written ({error.strerror}); give one that can")


def build(
    template: str,
    results: Results,
    findings: Findings,
    further: Sequence[text.ResultTable],
    images: Images,
    files: Mapping[str, str],
    stored: viewer.StoredSamples | None = None,
) -> str:
    """A template filled in. files: what lies beside the page, and what each holds; stored: the samples, if any."""
    absent = _absent(results, findings, images, stored is not None)
    context = {
        "title": _titled(results.title, results.interim),
        "further_tables": further,
        "base": results.label(results.base),
        "size": words.size(results),
        "k": findings.ks()[-1],
        "number": {name: i for i, name in enumerate(images, 1)},
        "shown": {name: heading for name, heading in SECTIONS.items() if name not in absent},
        "folded": FOLDED,
        "reasons": [f"Missing: {ABSENT[name]}" for name in absent if name in ABSENT],
        "solved": [arm.solved_M.astype(int).tolist() for arm in results.arms],
    }
    given = {"results": results, "findings": findings, "images": images, "files": files, "stored": stored}
    return _render(template, context | given, results.interim)


def _absent(results: Results, findings: Findings, images: Images, samples: bool) -> list[str]:
    """Sections without data."""
    arms = results.arms
    counted = (share_of_samples(arm, count_M) for arm in arms for count_M in (arm.truncated_M, arm.ungraded_M))
    present = {
        **dict.fromkeys(("differences", "support", "efficiency"), findings.comparisons),
        "guessing": findings.guesses or findings.guessable,
        "chains": samples or findings.chains,
        "perplexity": results.perplexity,
        "steps": "steps" in images,
        "temperatures": "temperatures" in images,
        "algorithms": findings.algorithms,
        "training": any(results.training.values()),
        "contamination": any(arm.asked_first for arm in arms),
        "rates": any(share is not None for share in counted) or any(arm.mean_tokens is not None for arm in arms),
        "conditions": any(arm.conditions or arm.weights_sha256 for arm in arms),
    }
    return [name for name, there in present.items() if not there]


def _render(template: str, context: Mapping[str, Any], interim: Interim | None) -> str:
    """A template of this folder, filled in. What is put into HTML is escaped; a page that is an interim one reloads."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rlvr_limit.report"),
        autoescape=lambda name: name is None or ".html" in name,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "prose": _prose,
        "md": _markdown,
        "listed": text.join,
        "sentence": text.sentence,
        "shortened": text.shortened,
        "thousands": "{:,}".format,
    }
    environment.globals |= {
        "file": lambda name: Markup(environment.loader.get_source(environment, name)[0]),
        "enumerate": enumerate,
        "analysis": analysis,
        "passk": passk,
        "tables": tables,
        "words": words,
        "refresh": interim.refresh if interim else 0,
        "not_recorded": text.NOT_RECORDED,
    }
    # What a template leaves out leaves its blank lines.
    return re.sub(r"\n{3,}", "\n\n", environment.get_template(template).render(context))


def _prose(line: str) -> Markup:
    """Escaped text in which a number keeps its per cent sign, and k, M and n their values, on one line."""
    unbroken = re.sub(
        r"(?<=\d) (?=%)|(?<=\b[kMn]) (?== )|(?<=\b[kMn] =) (?=\d)", "&nbsp;", " ".join(escape(line).split())
    )
    return Markup(unbroken)


def _markdown(cell: str) -> str:
    """Text without what Markdown or HTML would take for markup; a second line, such as a band, in brackets."""
    first, _, second = cell.partition("\n")
    line = f"{first} ({second})" if second else first
    for mark in "\\`*_[]#|":
        line = line.replace(mark, "\\" + mark)
    return " ".join(line.replace("&", "&amp;").replace("<", "&lt;").split())
