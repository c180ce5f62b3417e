"""The notebooks run on a run's records, say what the records say, and are kept without outputs."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rlvr_limit import records
from tests.support.smoke import REPOSITORY

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def run(smoke_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict]:
    """Runs a notebook's cells beside a copy of the smoke run's records; its names afterwards."""
    desk = tmp_path_factory.mktemp("desk")
    (desk / "notebooks").mkdir()
    shutil.copytree(smoke_run, desk / "runs" / "smoke" / "run", ignore=shutil.ignore_patterns("weights", "train"))

    def cells_of(name: str) -> dict:
        cells = json.loads((REPOSITORY / "notebooks" / f"{name}.ipynb").read_text())["cells"]
        names: dict = {}
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(desk / "notebooks")
            patch.syspath_prepend(str(REPOSITORY))
            for cell in cells:
                if cell["cell_type"] == "code":
                    exec(compile("".join(cell["source"]), f"{name}.ipynb", "exec"), names)
        return names

    return cells_of


def test_there_are_three_and_none_holds_outputs():
    assert [path.stem for path in NOTEBOOKS] == ["figure_2", "my_metric", "read_a_run"]
    for path in NOTEBOOKS:
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        assert cells and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


def reported(smoke_run: Path) -> dict[tuple[str, int], float]:
    with (smoke_run / "report" / "curves.csv").open() as file:
        return {(row["arm"], int(row["k"])): float(row["pass@k"]) for row in csv.DictReader(file)}


def test_reading_a_run_prints_the_curves_of_the_report(run, smoke_run, capsys):
    names = run("read_a_run")
    assert len(names["right"]) == 6 * 8
    said = capsys.readouterr().out
    for arm in ("base", "grpo-6"):
        first, last = (reported(smoke_run)[arm, k] for k in (1, 32))
        assert f"{arm:10} pass@1 {first:.3f}   pass@32 {last:.3f}" in said


def test_figure_2_by_hand_is_the_reports(run, smoke_run):
    names = run("figure_2")
    expected = reported(smoke_run)
    assert len(names["curves"]) == 6
    for arm, each in names["curves"].items():
        np.testing.assert_allclose(each.mean(axis=0), [expected[arm, k] for k in range(1, 33)], atol=1e-12)
    lines = names["ax"].get_lines()
    assert [line.get_label() for line in lines] == list(names["curves"])


def test_a_metric_of_ones_own_is_what_the_records_give(run, smoke_run, capsys):
    names = run("my_metric")
    assert capsys.readouterr().out.count(" to ") == 6 + 1
    problem = names["problems"][0]
    where = {"arm": "base"}
    drawn = [row for row in records.read(smoke_run, "samples", where=where).to_pylist() if row["problem_id"] == problem]
    right = {row["index"] for row in records.read(smoke_run, "verdicts", where=where).to_pylist()
             if row["problem_id"] == problem and row["correct"]}  # fmt: skip
    lengths = sorted(len(row["tokens"]) for row in drawn)
    middle = (lengths[15] + lengths[16]) / 2
    shares = [(len(row["tokens"]) < middle) + (len(row["tokens"]) == middle) / 2
              for row in drawn if row["index"] in right]  # fmt: skip
    assert names["values"]["base"][0, 0] == pytest.approx(np.mean(shares) if shares else 0.5)
