"""Runs of one algorithm on the page: what is said of one run and of the algorithm, and nothing where there are none."""

import csv
import dataclasses
from html import unescape
from pathlib import Path

import numpy as np
import pytest

from rlvr_limit import passk
from rlvr_limit.report import Results, figures, write
from rlvr_limit.report.analysis import Findings, analyse
from rlvr_limit.report.page import build
from rlvr_limit.report.results import check
from rlvr_limit.report.tables import algorithm
from rlvr_limit.report.words import not_resolved
from rlvr_limit.types import UserError
from tests.support.counted_arms import N, arm, study

RUNS = ("grpo-40", "grpo_seed1-40", "grpo_seed2-40")
COUNTS = np.random.default_rng(0).binomial(N, np.linspace(0, 0.6, 12), (4, 12))


def three_runs(**fields) -> Results:
    arms = [arm(name, c_M, "rl" if name != "base" else name) for name, c_M in zip(("base", *RUNS), COUNTS, strict=True)]
    return study([*arms, arm("dapo", COUNTS[1], "control")], **{"algorithms": {"GRPO": RUNS}, "seed": 0, **fields})


@pytest.fixture(scope="module")
def several() -> tuple[Results, Findings]:
    shown = three_runs()
    return shown, analyse(shown)


@pytest.fixture(scope="module")
def single() -> tuple[Results, Findings]:
    """The same arms, of which none is another run of an algorithm."""
    shown = three_runs(algorithms={})
    return shown, analyse(shown)


def page_of(shown: Results, found: Findings) -> str:
    drawn = {(dark, narrow): "data:," for dark in (False, True) for narrow in (False, True)}
    images = dict.fromkeys(figures.names(shown, found), drawn)
    return unescape(build("index.html.j2", shown, found, [], images, {})).replace("\u00a0", " ")


def test_the_section_says_both_claims_and_has_each_run_beside_the_algorithm(several: tuple[Results, Findings]) -> None:
    shown, analysed = several
    found, page = analysed.algorithms["GRPO"], page_of(shown, analysed)
    assert found.this_run in page and found.sentence in page and '<section id="algorithms"' in page
    base_MK, *run_SMK = (one.pass_MK for one in shown.arms[:4])
    exact = passk.algorithm_paired_band(base_MK, np.stack(run_SMK))
    assert np.array_equal(found.difference.low_K, exact.low_K) and len(found.differences) == 3
    rows = {row[0]: row[1:] for row in algorithm(shown, analysed, "GRPO").rows}
    assert list(rows)[:4] == ["grpo-40 arm", "grpo_seed1-40 arm", "grpo_seed2-40 arm", "GRPO, 3 runs"]
    assert rows["GRPO, 3 runs"][0].startswith(f"{100 * COUNTS[1:].mean() / N:.1f} %")
    assert found.sentence in not_resolved(shown, analysed)
    assert not any("single training run" in line for line in not_resolved(shown, analysed))


def test_the_first_run_stands_for_the_others_in_the_summary(
    several: tuple[Results, Findings], single: tuple[Results, Findings]
) -> None:
    assert several[1].headline == RUNS[0] and single[1].headline == RUNS[-1]


def test_without_several_runs_nothing_is_said_of_algorithms(single: tuple[Results, Findings]) -> None:
    page = page_of(*single)
    assert 'id="algorithms"' not in page and "single training run" in page


def test_runs_that_are_no_arms_are_refused() -> None:
    with pytest.raises(UserError, match="names the arm 'grpo-41'"):
        check(three_runs(algorithms={"GRPO": ("grpo-40", "grpo-41")}))


@pytest.mark.slow
def test_the_file_has_the_bands_of_the_page(tmp_path: Path) -> None:
    shown = dataclasses.replace(three_runs(), arms=three_runs().arms[:4])
    write(shown, tmp_path)
    rows = list(csv.DictReader((tmp_path / "algorithms.csv").read_text().splitlines()))
    found = analyse(shown).algorithms["GRPO"]
    assert [int(row["k"]) for row in rows] == list(range(1, N + 1)) and {row["runs"] for row in rows} == {"3"}
    for name, value_K in (
        ("pass@k", found.curve.mean_K),
        ("low", found.curve.low_K),
        ("difference_high", found.difference.high_K),
        ("deviation_between_runs", found.deviation_K),
    ):
        assert [float(row[name]) for row in rows] == value_K.tolist()
    assert (tmp_path / "algorithms.png").exists()
