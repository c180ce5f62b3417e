"""The page in a browser: problems sorted and filtered, samples opened and closed by keyboard, nothing asked outside."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlvr_limit.images import read_image
from rlvr_limit.images.preview import preview
from rlvr_limit.report import write
from tests.support import browser
from tests.support.image_files import drawn_file
from tests.support.result_pages import HOSTILE, M, N, example, study

pytestmark = [pytest.mark.slow, pytest.mark.skipif(browser.find() is None, reason="no Chromium is installed")]
SHOWN = "[...document.querySelectorAll('#problem-table tbody tr')].filter(row => !row.hidden).map(row => row.id).join()"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    keys = [(p, arm, i) for p in range(M) for arm in ("base", "rl") for i in range(N)]
    seen = (preview(read_image(drawn_file(30, 40), "x"), 60_000),)
    made = study([example(*key, HOSTILE, correct=key[2] < 2) for key in keys], images={"p1": seen})
    rl = dataclasses.replace(made.arms[1], c_M=made.arms[1].c_M[::-1].copy())
    return write(dataclasses.replace(made, arms=(made.arms[0], rl)), tmp_path_factory.mktemp("page"))


@pytest.fixture
def opened(page: Path) -> Iterator[browser.Browser]:
    with browser.Browser() as one:
        one.open(page.as_uri())
        yield one
        assert one.console == []
        assert all(url.startswith(("file:", "data:")) for url in one.asked)


def choose(one: browser.Browser, name: str, value: str) -> None:
    one.run(f"(e => {{ e.value = {value!r}; e.dispatchEvent(new Event('input')) }})(document.getElementById({name!r}))")


def test_problems_are_filtered_by_words_and_by_who_solves_them(opened):
    assert opened.run(SHOWN) == "problem-0,problem-1,problem-2,problem-3"
    choose(opened, "problem-kind", "l")
    assert opened.run(SHOWN) == "problem-0,problem-2"
    choose(opened, "problem-words", "P2 Question")
    assert opened.run(SHOWN) == "problem-2"
    assert opened.run("document.getElementById('problem-count').textContent") == f"1 of {M} problems"
    choose(opened, "arm-left", "1")
    assert opened.run(SHOWN) == ""


def test_a_column_is_sorted_by_enter_and_again_the_other_way(opened):
    opened.run("document.querySelectorAll('#problem-table th button')[1].focus()")
    opened.press("Enter", 13)
    assert opened.run(SHOWN).startswith("problem-2,problem-0")
    assert opened.run("document.querySelectorAll('#problem-table th')[1].getAttribute('aria-sort')") == "descending"
    opened.press("Enter", 13)
    assert opened.run(SHOWN).endswith("problem-0,problem-2")


def test_samples_open_from_the_keyboard_side_by_side_and_closing_gives_the_focus_back(opened):
    opened.run("document.querySelector('#problem-1 a').focus()")
    opened.press("Enter", 13)
    opened.wait_for(f"document.querySelectorAll('.list details').length === {2 * N}")
    assert opened.run("document.activeElement.id") == "viewer"
    assert opened.run("document.querySelector('.said').textContent") == f"question 1 {HOSTILE}"
    assert opened.run("[...document.querySelectorAll('h4')].map(h => h.textContent).join()") == "base arm,rl arm"
    choose(opened, "sample-kind", "right")
    opened.wait_for("document.querySelectorAll('.list details').length === 4")
    opened.run("document.querySelector('.list summary').click()")
    opened.wait_for("document.querySelector('.list pre')")
    assert opened.run("document.querySelector('.list pre').textContent") == HOSTILE
    opened.run("document.querySelector('#viewer button[data-step=\"1\"]').click()")
    opened.wait_for("document.querySelector('.said').textContent.startsWith('question 2')")
    opened.run("document.querySelector('#viewer button[data-step=\"\"]').click()")
    assert opened.run("document.getElementById('viewer').hidden") is True
    assert opened.run("document.activeElement.textContent") == "p2"


def test_the_image_of_a_question_is_folded_above_its_samples_and_shown_on_request(opened):
    opened.run("location.hash = 'problem-1'")
    opened.wait_for("document.querySelector('.pictures summary')")
    assert opened.run("document.querySelector('.pictures details').open") is False
    opened.run("document.querySelector('.pictures summary').click()")
    opened.wait_for("document.querySelector('.pictures img').complete")
    assert opened.run("document.querySelector('.pictures img').naturalWidth") == 40
    opened.run("location.hash = 'problem-2'")
    opened.wait_for("document.querySelector('.said').textContent.startsWith('question 2')")
    assert opened.run("document.querySelector('.pictures').children.length") == 0


def test_a_page_whose_samples_were_left_behind_says_so(page, tmp_path):
    alone = tmp_path / "index.html"
    alone.write_bytes(page.read_bytes())
    with browser.Browser() as one:
        one.open(alone.as_uri() + "#problem-0")
        one.wait_for("document.querySelector('.said').textContent.includes('samples/0.js is not beside this page')")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_nothing_is_wider_than_the_window(page, width, dark):
    with browser.Browser(width, 900, dark) as one:
        one.open(page.as_uri() + "#problem-0")
        one.wait_for("document.querySelectorAll('.list details').length")
        assert one.run("document.documentElement.scrollWidth") == width
        assert one.run("matchMedia('(prefers-color-scheme:dark)').matches") is dark


def test_an_arm_alone_has_one_column_and_problems_that_it_solves_or_not(tmp_path):
    made = study([example(p, "base", i) for p in range(M) for i in range(N)])
    page = write(dataclasses.replace(made, arms=made.arms[:1]), tmp_path)
    with browser.Browser() as one:
        one.open(page.as_uri() + "#problem-0")
        one.wait_for("document.querySelector('#viewer .columns h4')")
        assert one.run("document.querySelectorAll('#viewer .columns h4').length") == 1
        choose(one, "problem-kind", "l")
        assert one.run(SHOWN) == "problem-0,problem-2"
        choose(one, "problem-kind", "")
        assert one.run(SHOWN) == "problem-1,problem-3"
        assert one.console == []
