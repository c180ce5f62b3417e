"""An interim page among several: what can be drawn is drawn, what cannot is said, and the browser loads it again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from rlvr_limit.report import ArmProgress, Interim, write, write_all
from rlvr_limit.report.words import interim
from tests.support import browser
from tests.support.counted_arms import BASE, RL, study

BEGUN = ArmProgress("rl arm", wanted=384, drawn=300, graded=290, fewest=0, most=16, without=3)
DONE = ArmProgress("base arm", 384, 384, 384, 16, 16, 0)
NONE = dataclasses.replace(BEGUN, drawn=0, graded=0, without=24)
HALF = dataclasses.replace(BEGUN, fewest=2, without=0)


def lacking(*arms: ArmProgress, refresh: int = 0) -> Interim:
    return Interim("A title", "A purpose.", 24, arms, "2026-11-30 02:50 UTC", refresh)


@pytest.mark.parametrize(
    ("arms", "said", "unsaid"),
    [
        ((DONE, BEGUN), "rl arm (no sample yet of 3 of 24 problems)", "ends at the fewest"),
        ((DONE, HALF), "ends at the fewest", "Not drawn"),
        ((DONE, HALF), "lean to short answers", "without a verdict yet: 0"),
        ((DONE, dataclasses.replace(HALF, fewest=8, most=8)), "ends at the fewest", "Long answers"),
        (
            (DONE, dataclasses.replace(BEGUN, drawn=0, graded=0, without=24)),
            "rl arm (no sample yet)",
            "without a verdict",
        ),
        ((DONE, dataclasses.replace(HALF, drawn=384, graded=383)), "Samples without a verdict yet: 1.", "Long answers"),
    ],
)
def test_it_says_what_is_lacking_and_nothing_else(arms, said, unsaid):
    text = " ".join(interim(lacking(*arms)))
    assert said in text and unsaid not in text


def test_several_pages_of_which_some_are_interim_lead_to_one_that_is(tmp_path: Path):
    half = dataclasses.replace(study([BASE, RL]), interim=lacking(DONE, HALF, refresh=60))
    pages = {"done": study([BASE, RL]), "half": half, "none": lacking(BEGUN, DONE, refresh=60)}
    html = write_all("All", "Purpose.", "", pages, tmp_path).read_text()
    assert '<meta http-equiv="refresh" content="60">' in html and "<title>Interim: All</title>" in html
    assert 'id="interim-half"' in html and 'id="interim-none"' in html and 'id="interim-done"' not in html
    for name, is_interim in (("done", False), ("half", True), ("none", True)):
        text = (tmp_path / name / "index.html").read_text()
        assert (text.count("Interim: A title"), text.count('http-equiv="refresh"')) == (2 * is_interim, is_interim)


def test_of_several_pages_none_may_have_anything_to_draw(tmp_path: Path):
    pages = dict.fromkeys("ab", lacking(BEGUN, DONE))
    html = write_all("All", "Purpose.", "", pages, tmp_path).read_text()
    assert 'id="interim-b"' in html and "Side by side" not in html and 'http-equiv="refresh"' not in html


@pytest.mark.slow
@pytest.mark.skipif(browser.find() is None, reason="no Chromium is installed")
def test_the_browser_loads_it_again_and_stays_where_it_was(tmp_path: Path):
    page = write(dataclasses.replace(study([BASE, RL]), interim=lacking(DONE, HALF, refresh=1)), tmp_path)
    with browser.Browser() as one:
        one.open(page.as_uri())
        one.run("scrollTo(0, 1000)")
        page.write_text(page.read_text().replace("02:50 UTC", "03:00 UTC").replace('content="1"', 'content="1000"'))
        one.wait_for("document.body?.textContent.includes('03:00')")
        one.wait_for("document.readyState === 'complete' && scrollY === 1000")
        assert one.console == []
