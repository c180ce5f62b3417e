"""Figures of sweeps, further metrics, the summary in Markdown, and sections that drop out where there is no data."""

from __future__ import annotations

import dataclasses
import re
from fractions import Fraction
from html import unescape
from math import comb

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from rlvr_limit import passk
from rlvr_limit.report import ArmResults, Results, figures, write_all
from rlvr_limit.report.analysis import Findings, analyse, same_weights, saved_steps
from rlvr_limit.report.further import further_tables
from rlvr_limit.report.numbers import write_numbers
from rlvr_limit.report.page import SECTIONS, build
from rlvr_limit.report.style import rc
from rlvr_limit.report.text import ResultTable, percent
from rlvr_limit.report.words import not_resolved, open_signs

M, N = 12, 16
COUNTS = {
    "base": [1] * 9 + [0] * 3,
    "grpo-5": [2, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1],
    "grpo-40": [16] * 5 + [0] * 7,
    "matched": [9] * 4 + [7] + [1] * 2 + [0] * 5,
    "direct": [1, 0, 0, 1] + [0] * 8,
}


def arm(name: str, **fields) -> ArmResults:
    group = "base" if name == "base" else "other" if name == "direct" else "rl"
    return ArmResults(name, f"{name} arm", group, np.full(M, N), np.array(COUNTS[name]), **fields)


def study(*arms: ArmResults, **fields) -> Results:
    problems = tuple((f"p{i}", "", None) for i in range(M))
    return Results("A *title* | more", "", "", "python main.py", problems, arms, "base", **fields)


@pytest.fixture(scope="module")
def full() -> Results:
    """Two saved steps of a run, the later of them at two temperatures, and an arm asked for the answer alone."""
    asked = {"prompts": "a", "temperature": "0.6"}
    matched = "1.3000, of the entropy of base"
    return study(
        arm("base", conditions=asked, weights_sha256="b", entropy=0.8, tokens_M=np.full(M, 10.0)),
        arm("grpo-5", conditions=asked, weights_sha256="c", entropy=0.5, tokens_M=np.full(M, 20.0)),
        arm("grpo-40", conditions=asked, weights_sha256="d", entropy=0.3),
        arm("matched", conditions=asked | {"temperature": matched}, weights_sha256="d", entropy=0.8),
        arm("direct", conditions={"prompts": "b", "temperature": "1.0"}, weights_sha256="b", entropy=0.9,
            votes_M=tuple(passk.Votes(c, (N - c - 1,), 1) for c in COUNTS["direct"])),
        answer_only="direct",
    )  # fmt: skip


@pytest.fixture(scope="module")
def found(full: Results) -> Findings:
    return analyse(full)


def page(shown: Results, found: Findings) -> str:
    drawn = {(dark, narrow): "data:," for dark in (False, True) for narrow in (False, True)}
    images = dict.fromkeys(figures.names(shown, found), drawn)
    return unescape(build("index.html.j2", shown, found, [], images, {})).replace("\u00a0", " ")


def test_steps_are_of_one_run_and_views_are_of_the_same_weights_asked_alike(full):
    assert {run: [(step, a.name) for step, a in saved] for run, saved in saved_steps(full).items()} == {
        "grpo": [(5, "grpo-5"), (40, "grpo-40")]
    }
    assert [[a.name for a in group] for group in same_weights(full)] == [["grpo-40", "matched"]]


def test_figures_of_sweeps_show_the_values_of_the_curves_with_their_bands(full, found):
    with matplotlib.rc_context(rc()):
        for name, x, names in (
            ("steps", [0, 5, 40], ("base", "grpo-5", "grpo-40")),
            ("temperatures", [0.3, 0.8], ("grpo-40", "matched")),
        ):
            figure = figures.FIGURES[name](full, found, False)
            for ax, k in zip(figure.axes, (1, N), strict=True):
                line, _, (bars,) = ax.containers[0].lines
                curves = [found.curves[arm] for arm in names]
                assert line.get_xdata().tolist() == x
                assert line.get_ydata().tolist() == [curve.mean_K[k - 1] for curve in curves]
                ends = [[low[1], high[1]] for low, high in bars.get_segments()]
                np.testing.assert_allclose(ends, [[c.low_K[k - 1], c.high_K[k - 1]] for c in curves], atol=1e-12)
        (ax,) = figures.FIGURES["efficiency"](full, found, False).axes
        gaps = [float(text.get_text().replace("\u2212", "-")) for text in ax.texts]
        assert gaps == [round(100 * (9 / 12 - sum(COUNTS[a.name]) / N / M), 1) for a in full.arms[1:]]


@pytest.mark.parametrize("narrow", [False, True])
def test_text_of_new_figures_is_large_enough_and_stays_inside(full, found, narrow):
    for name in ("steps", "temperatures", "efficiency", "guessable"):
        with matplotlib.rc_context(rc()):
            figure = figures.FIGURES[name](full, found, narrow)
            FigureCanvasAgg(figure).draw()
            assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 9
            box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
            assert -0.02 <= min(box.x0, box.y0) and box.x1 <= width + 0.02 and box.y1 <= height + 0.02, name


def test_guess_filtered_curves_are_those_of_the_problems_left(full, found):
    """1 of 16 is above 5 %, so nothing is guessable here; at 1 of 40 it is."""
    assert found.guessable.problems == () and set(found.guessable.bands) == {a.name for a in full.arms}
    direct = dataclasses.replace(full.arms[-1], n_M=np.full(M, 40), votes_M=None)
    rare = analyse(dataclasses.replace(full, arms=(*full.arms[:-1], direct)))
    assert rare.guessable.problems == ("p0", "p3")
    left = [c for i, c in enumerate(COUNTS["grpo-40"]) if i not in (0, 3)]
    exact = float(sum(1 - Fraction(comb(N - c, 4), comb(N, 4)) for c in left) / len(left))
    assert rare.guessable.bands["grpo-40"].mean_K[3] == pytest.approx(exact, abs=1e-12)


def test_further_metrics_are_those_of_exact_arithmetic(full, found):
    tables = {table.title: table for table in further_tables(full, found)}
    assert set(tables) == {
        "One number an arm", "pass^k", "G-Pass@16", "Cover@\u03c4", "Posterior pass@k", "Bands for these very problems",
        "Beyond n, by a model", "maj@k", "Problems solved for equal numbers of tokens",
    }  # fmt: skip
    for a in full.arms:
        rows = {title: next((row for row in t.rows if row[0] == a.label), None) for title, t in tables.items()}
        c_M = [int(c) for c in a.c_M]
        assert rows["One number an arm"][1] == percent(sum(c_M) / M / N)
        assert rows["pass^k"][2] == percent(float(sum(Fraction(comb(c, 4), comb(N, 4)) for c in c_M) / M))
        enough = [[c >= right for c in c_M] for right in (4, 8, 12, 16)]
        assert rows["G-Pass@16"][1:5] == [percent(np.mean(right)) for right in enough]
        assert [cell.split("\n")[0] for cell in rows["Cover@\u03c4"][1:]] == [
            percent(np.mean([c / N >= tau for c in c_M])) for tau in (0.1, 0.25, 0.5, 0.75, 0.9)
        ]
    assert [row[0] for row in tables["maj@k"].rows] == ["direct arm"]
    assert tables["maj@k"].rows[0][1] == percent(2 / N / M)
    budget = tables["Problems solved for equal numbers of tokens"]
    assert budget.header[2:] == [f"{10 * M * k} tokens" if k < 9 else f"{10 * M * k:,} tokens" for k in (1, 4, 16)]
    assert budget.rows[1][2:4] == ["\u2013", f"{M * passk.pass_at_k(full.arms[1].n_M, full.arms[1].c_M, 2):.1f}"]


def test_what_is_not_resolved_stands_with_the_finding_and_says_what_would_resolve_it(full, found):
    markup = page(full, found)
    box = markup[markup.index('id="unresolved"') : markup.index("<nav>")]
    unresolved = [name for name, beside in found.against_base.items() if beside.crossover.verdict == "not resolved"]
    assert unresolved and all(f"What it would take: {power.sentence}" in box for power in found.powers.values())
    base, other = full.arms[0], full.arm(unresolved[0])
    power = passk.power_of_crossover(base.n_M, base.c_M, other.n_M, other.c_M, names=(base.label, other.label))
    assert found.powers["base", unresolved[0]] == power
    none, all_right = (dataclasses.replace(arm(name), c_M=np.full(M, c)) for name, c in (("base", 0), ("grpo-5", N)))
    settled = analyse(study(none, all_right))
    assert settled.powers == {}


def test_pairs_that_are_open_at_the_same_k_share_a_line():
    twins = [dataclasses.replace(arm("base"), name=name, label=name, group="rl") for name in ("one", "two")]
    shown = study(arm("base"), *twins)
    lines = not_resolved(shown, analyse(shown))
    assert lines[0].startswith("Base arm minus one and base arm minus two: not resolved at any k looked at")


def test_sections_without_data_drop_out_and_are_named_at_the_end():
    shown = study(arm("base"), arm("grpo-40"))
    markup = page(shown, analyse(shown))
    there = re.findall(r'<section id="(\w+)"', markup)
    gone = {"guessing", "chains", "perplexity", "steps", "temperatures", "training", "rates", "conditions"}
    gone |= {"algorithms", "contamination"}
    assert there == ["found", "unresolved", *(name for name in SECTIONS if name not in gone)]
    assert re.findall(r'href="#(\w+)"', markup[markup.index("<nav>") : markup.index("</nav>")]) == there[2:]
    assert markup[markup.index("Not on this page") :].count("<li>Missing: ") == 6


def test_markdown_has_the_same_words_and_tables_and_no_markup_of_others(full, found):
    text = build("summary.md.j2", full, found, [], {"curves": {}}, {"curves.csv": "numbers", "curves.png": "a figure"})
    assert text.startswith("# A \\*title\\* \\| more\n\n## What is not resolved\n\n- ")
    assert text.index("## What is not resolved") < text.index("## What was found")
    assert all(line.replace("*", "\\*")[:60] in text for line in not_resolved(full, found))
    assert "![curves](curves.png)" in text and "- [curves.csv](curves.csv): numbers" in text
    rows = [line for line in text.splitlines() if line.startswith("| grpo-40 arm |")]
    assert f"| {percent(5 / 12)} ({100 * found.curves['grpo-40'].low_K[0]:.1f}\u2013" in rows[0]
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1


def test_several_studies_get_a_page_that_holds_them_side_by_side_and_says_first_what_is_open(tmp_path, monkeypatch):
    drawn = {(dark, narrow): "data:," for dark in (False, True) for narrow in (False, True)}
    monkeypatch.setattr(figures, "render", lambda *_: (drawn, "<svg/>", b""))
    studies = {"T=0.6": study(arm("base"), arm("grpo-40")), "T=1.0": study(arm("base"), arm("grpo-5"))}
    write_all("A title", "", "", studies, tmp_path)
    markup = unescape((tmp_path / "index.html").read_text("utf-8")).replace("\u00a0", " ")
    assert re.findall(r'<section id="([^"]+)"', markup) == ["unresolved", "overview", *studies]
    for name, shown in studies.items():
        found = analyse(shown)
        assert all(f"<li>{name}: {line}</li>" in markup for line in open_signs(shown, found))
        other = shown.arms[1]
        row = re.search(rf"<tr><th scope=row>{name}<br><small>{other.label}</small></th>(.*)</tr>", markup)[1]
        values = [percent(found.curves[other.name].mean_K[k - 1]) for k in (1, N)]
        assert re.findall(r"<td[^>]*>([^<]*)", row)[:3] == [values[0], str(N), values[1]]
        assert (tmp_path / name / "index.html").is_file() and f'href="{name}/index.html"' in markup


def test_further_metrics_are_in_a_csv_cell_by_cell_as_the_page_shows_them(full, found, tmp_path):
    rows = [["base", "1 %\n2 %", "3 %"], ["rl", "4 %", "5 %"]]
    assert "further.csv" in write_numbers(
        full, found, [ResultTable("Cover", "", ["arm", "low", "high"], rows)], {}, tmp_path
    )
    assert (tmp_path / "further.csv").read_text().splitlines() == [
        "table,arm,column,value",
        "Cover,base,low,1 %",
        "Cover,base,low,2 %",
        "Cover,base,high,3 %",
        "Cover,rl,low,4 %",
        "Cover,rl,high,5 %",
    ]
