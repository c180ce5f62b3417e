"""A report of as many arms as a study of algorithms has: its table, its figures, and whose training run is whose."""

from __future__ import annotations

import re
from html import unescape

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from rlvr_limit import passk
from rlvr_limit.report import ArmResults, Results, figures
from rlvr_limit.report.analysis import Findings, analyse
from rlvr_limit.report.page import build
from rlvr_limit.report.results import check, is_of_run
from rlvr_limit.report.style import arm_styles, rc
from rlvr_limit.report.tables import efficiency
from rlvr_limit.report.text import percent, points

M, N, K = 24, 16, 8
RUNS = {
    "dapo": "DAPO",
    "dr_grpo": "Dr.GRPO",
    "grpo": "GRPO",
    "grpo_32": "GRPO, 32 answers",
    "grpo_kl": "GRPO, KL 0.001",
    "pass_at_k": "pass@k training",
    "ppo": "PPO",
    "reinforcepp": "REINFORCE++",
    "remax": "ReMax",
    "rloo": "RLOO",
}


@pytest.fixture(scope="module")
def study() -> Results:
    """The base, ten algorithms, and two earlier steps of one of them."""
    rng = np.random.default_rng(0)
    names = {"base": "base"}
    for run, label in RUNS.items():
        steps = (5, 20, 40) if run == "grpo" else (40,)
        names |= {f"{run}-{s}": f"{label}, step {s}" if len(steps) > 1 else label for s in steps}
    groups = {"base": "base"}
    arms = tuple(
        ArmResults(name, label, groups.get(name, "rl"), np.full(M, N), rng.integers(0, 5, M), *np.zeros((3, M), int))
        for name, label in names.items()
    )
    problems = tuple((f"p{i}", f"question {i}", 0.01) for i in range(M))
    training = {run: [{"step": s, "reward": rng.random(), "entropy": 1.0} for s in range(40)] for run in RUNS}
    found = Results("A title", "A purpose.", "", "python", problems, arms, "base", training=training, delta_se_k=K)
    check(found)
    return found


@pytest.fixture(scope="module")
def found(study: Results) -> Findings:
    return analyse(study)


def test_table_of_algorithms_has_pass_at_1_pass_at_k_and_the_gap_with_their_bands(study: Results, found: Findings):
    table = efficiency(study, found)
    head, rows = table.header, table.rows
    assert (
        head[:3] == ["arm", "pass@1", f"pass@{K}"]
        and "lower is better" in table.caption
        and f"pass@{K} of base" in table.caption
    )
    assert [row[0] for row in rows] == [arm.label for arm in study.arms] and rows[0][3] == "\u2013"
    base_MK = passk.pass_curves(study.arms[0].n_M, study.arms[0].c_M)
    for arm, row in zip(study.arms[1:], rows[1:], strict=True):
        mine_MK = passk.pass_curves(arm.n_M, arm.c_M)
        for cell, k in zip(row[1:3], (1, K), strict=True):
            band = passk.population_band(mine_MK)
            low, high = 100 * band.low_K[k - 1], 100 * band.high_K[k - 1]
            assert cell == f"{percent(mine_MK[:, k - 1].mean())}\n{low:.1f}\u2013{high:.1f}"
        gap_M = base_MK[:, K - 1] - mine_MK[:, 0]
        rng = np.random.default_rng(1)
        drawn = gap_M[rng.integers(0, M, (4000, M))].mean(axis=1)
        value, interval = row[3].split("\n")
        low, high = (float(x.replace("\u2212", "-")) for x in interval.split(" to "))
        assert value == points(gap_M.mean())
        # An independent plain bootstrap; the page's is widened for few problems, by some hundredths of its width.
        assert low == pytest.approx(100 * np.quantile(drawn, 0.025), abs=2.5)
        assert high == pytest.approx(100 * np.quantile(drawn, 0.975), abs=2.5)


def test_a_run_belongs_to_the_arms_of_its_own_name_only(study: Results, found: Findings):
    assert is_of_run("grpo-40", "grpo") and is_of_run("control", "control") and is_of_run("dr_grpo-5", "dr_grpo")
    assert not is_of_run("grpo_kl-40", "grpo") and not is_of_run("grpo-40", "grpo_kl") and not is_of_run("grpo", "gr")
    with matplotlib.rc_context(rc()):
        figure = figures.training(study, found, narrow=False)
    styles = arm_styles(study)
    lines = {line.get_label(): line.get_color() for ax in figure.axes for line in ax.get_lines()}
    assert {run: lines[run] for run in RUNS} == {run: styles[f"{run}-40"].color for run in RUNS}


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("name", ["curves", "training"])
def test_names_of_many_arms_neither_overlap_nor_leave_the_figure(
    study: Results, found: Findings, name: str, narrow: bool
):
    with matplotlib.rc_context(rc()):
        figure = figures.FIGURES[name](study, found, narrow)
        FigureCanvasAgg(figure).draw()
        shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text()]
        names = {arm.label for arm in study.arms} if name == "curves" else set(RUNS)
        boxes = {text.get_text().replace("\n", " "): text.get_window_extent() for text in shown}
        assert names <= boxes.keys()
        for label in names:
            others = [text for text in shown if text.get_text().replace("\n", " ") != label]
            assert not any(boxes[label].overlaps(text.get_window_extent()) for text in others), label
            assert figure.bbox.x0 <= boxes[label].x0 and boxes[label].x1 <= figure.bbox.x1 + 1
            assert figure.bbox.y0 - 1 <= boxes[label].y0 and boxes[label].y1 <= figure.bbox.y1 + 1
        if name == "training":
            assert sum(text.get_text() == "grpo_kl" for text in shown) == 1


def test_page_names_every_arm_and_misses_no_run(study: Results, found: Findings):
    drawn = {(dark, narrow): "data:," for dark in (False, True) for narrow in (False, True)}
    images = dict.fromkeys(figures.names(study, found), drawn)
    markup = build("index.html.j2", study, found, [], images, {})
    section = unescape(re.search(r'id="efficiency".*?</section>', markup, re.DOTALL)[0])
    assert all(f"{arm.label}<" in section for arm in study.arms)
    assert "no training rows under the name of" not in markup
