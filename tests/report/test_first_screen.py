"""The first screen: the finding, the figure, three lines of what is not resolved. The rest is there and folds."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from rlvr_limit.report import ArmProgress, Interim, Results, figures, write, write_all
from rlvr_limit.report.analysis import analyse
from rlvr_limit.report.page import FOLDED, SECTIONS, build
from rlvr_limit.report.words import first_of_each, interim, not_resolved, open_signs
from tests.support import browser
from tests.support.counted_arms import BASE, RL, SHARP, WIDE, M, N, arm, study

CUT, ALIKE = np.full(M, 2), {"temperature": "1.0"}
PROGRESS = (ArmProgress("base arm", M * N, M * N, M * N, N, N, 0), ArmProgress("rl arm", M * N, 300, 290, 2, N, 0))
UNDER_WAY = Interim("A title", "A purpose.", M, PROGRESS, "2026-11-30 02:50 UTC")
needs_browser = pytest.mark.skipif(browser.find() is None, reason="no Chromium is installed")


def unlike(*names: str) -> Results:
    """Arms of which each was cut and the last was sampled at another temperature."""
    arms = [arm(name, SHARP, truncated_M=CUT, conditions=ALIKE) for name in names]
    last = dataclasses.replace(arms[-1], conditions={"temperature": "0.6"})
    return study([arm("base", WIDE, "base", truncated_M=CUT, conditions=ALIKE), *arms[:-1], last])


STUDIES = {
    "two arms": study([BASE, RL]),
    "one arm": study([BASE]),
    "six arms": unlike(*(f"rl-{i}" for i in range(5))),
    "interim": dataclasses.replace(unlike("rl"), interim=UNDER_WAY),
}


def markup_of(shown: Results) -> str:
    found = analyse(shown)
    drawn = {(dark, narrow): "data:," for dark in (False, True) for narrow in (False, True)}
    return build("index.html.j2", shown, found, [], dict.fromkeys(figures.names(shown, found), drawn), {})


def lines_of(markup: str) -> list[str]:
    return [unescape(line).replace("\u00a0", " ") for line in re.findall(r"<li>(.*?)</li>", markup)]


def first_screen(markup: str) -> tuple[str, str, str]:
    """(what stands before the fold, the fold's summary, what folds) of a page's lines of what is not resolved."""
    top, summary, rest = re.match(
        r'(.*?)<details class="more"><summary>(.*?)</summary>(.*?)</details>', markup, re.DOTALL
    ).groups()
    return top, summary, rest


@pytest.mark.parametrize("name", STUDIES)
def test_finding_and_figure_come_first_with_three_lines_and_every_other_line_folds_and_is_counted(name):
    shown = STUDIES[name]
    top, summary, rest = first_screen(markup_of(shown))
    at = [top.index(part) for part in ('class="lead"', "Figure 1. ", 'id="unresolved"')]
    assert at == sorted(at) and lines_of(top[: at[-1]]) == []
    open_lines, folded = lines_of(top), lines_of(rest)
    assert len(open_lines) == 3 and summary.startswith(f"{len(folded)} more line")
    said = not_resolved(shown, analyse(shown)) + (interim(shown.interim) if shown.interim else [])
    assert sorted(open_lines + folded) == sorted(said)


def test_unlike_conditions_come_first_then_missing_samples_then_what_bands_do_not_resolve():
    for name, missing in (("six arms", "12.5 % of base arm's answers, 12.5 %"), ("interim", "Written 2026-11-30")):
        top, _, _ = first_screen(markup_of(STUDIES[name]))
        conditions, samples, bands = lines_of(top)
        assert conditions.startswith("The arms differ in these recorded conditions: temperature (1.0 for base")
        assert (
            samples.startswith(missing.split(",")[0]) and bands == open_signs(STUDIES[name], analyse(STUDIES[name]))[0]
        )


def test_all_arms_that_were_cut_share_a_line():
    arms = [arm("base", WIDE, "base", truncated_M=CUT), arm("rl", SHARP, ungraded_M=CUT), arm("rl-2", SHARP)]
    arms.append(dataclasses.replace(arms[0], name="more", label="more", group="rl"))
    lines = not_resolved(study(arms), analyse(study(arms)))
    assert any(line.startswith("12.5 % of base arm's answers and 12.5 % of more's answers were cut") for line in lines)
    assert sum("were cut" in line for line in lines) == sum("have no verdict" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("kinds", "shown", "rest"),
    [
        ([], "", ""),
        (["", "a"], "a", ""),
        (["abcd"], "abc", "d"),
        (["ab", "", "c", "d", "e"], "acd", "be"),
        (["ab", "cd"], "abc", "d"),
        (["a", "", "bc"], "abc", ""),
    ],
)
def test_the_first_line_of_each_kind_goes_before_any_second_line(kinds, shown, rest):
    assert first_of_each(kinds) == (list(shown), list(rest))


def test_nothing_folds_where_all_lines_stand_open_and_several_studies_share_three(tmp_path, monkeypatch):
    drawn = {(dark, narrow): "data:," for dark in (False, True) for narrow in (False, True)}
    monkeypatch.setattr(figures, "render", lambda *_: (drawn, "<svg/>", b""))
    few = {"a": study([BASE]), "b": study([BASE])}
    markup = write_all("All", "", "", few, tmp_path / "few").read_text()
    assert lines_of(markup)[:2] == [f"{name}: {open_signs(few[name], analyse(few[name]))[0]}" for name in few]
    assert "<details" not in markup
    many = {name: STUDIES["two arms"] for name in "abcde"}
    top, summary, rest = first_screen(write_all("All", "", "", many, tmp_path / "many").read_text())
    assert [line[:3] for line in lines_of(top)] == ["a: ", "b: ", "c: "]
    assert summary == f"{len(lines_of(rest))} more lines on what is not resolved"


def test_sections_that_the_finding_does_not_rest_on_fold_and_the_others_do_not():
    folded = re.findall(
        r'<details class="card"><summary><h2>(.*?)</h2></summary>\s*<section id="(\w+)"', markup_of(STUDIES["six arms"])
    )
    absent = ("training", "algorithms", "contamination")
    assert folded == [(SECTIONS[name], name) for name in FOLDED if name not in absent]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(STUDIES["six arms"], tmp_path_factory.mktemp("page"))


@pytest.fixture(params=[(1280, False), (390, True)])
def opened(page: Path, request: pytest.FixtureRequest) -> Iterator[browser.Browser]:
    with browser.Browser(request.param[0], 900, request.param[1]) as one:
        one.open(page.as_uri())
        yield one
        assert one.run("document.documentElement.scrollWidth") == request.param[0] and one.console == []


@pytest.mark.slow
@needs_browser
def test_first_screen_ends_behind_the_three_lines_and_a_phones_holds_the_figures_top(opened):
    end = "document.querySelector({!r}).getBoundingClientRect().{}"
    if opened.run("innerWidth") == 1280:
        for part in (".lead", "figure img", "#unresolved"):
            assert opened.run(end.format(part, "bottom")) < 900
    else:
        assert opened.run(end.format("figure img", "top")) < 700


@pytest.mark.slow
@needs_browser
def test_folds_are_closed_on_a_screen_open_on_paper_and_a_link_opens_its_own(opened):
    seen = "[...document.querySelectorAll('.more li, .card > section')].map(node => node.checkVisibility())"
    assert not any(opened.run(seen))
    opened.call("Emulation.setEmulatedMedia", media="print")
    assert all(opened.run(seen))
    opened.call("Emulation.setEmulatedMedia", media="screen")
    opened.run("document.querySelector('nav a[href=\"#conditions\"]').click()")
    opened.wait_for("document.querySelector('#conditions').checkVisibility()")
    assert sum(opened.run(seen)) == 1
