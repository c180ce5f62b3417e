"""Counts alone, through main.py: what is printed, the page, and the one line that a wrong file gets."""

import csv
from fractions import Fraction
from math import comb
from pathlib import Path

import numpy as np
import pytest

import main

ROOT = Path(__file__).resolve().parents[2]
HEAD = "problem,arm,n,correct"
BASE_C = [1] * 9 + [2] * 9 + [0] * 2
RL_C = [0] * 8 + [14, 15] * 5 + [16, 0]
GOOD = [HEAD, *(f"p{i},{arm},16,{c[i]}" for i in range(20) for arm, c in (("start", BASE_C), ("grpo", RL_C)))]


def command(path: Path, *words: str) -> int:
    return main.main(["main.py", f"--config={ROOT / 'configs/counts.py'}", f"--config.counts.path={path}", *words])


def write(folder: Path, lines: list[str]) -> Path:
    path = folder / "counts.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_counts_are_enough_for_curves_bands_categories_crossover_and_the_page(tmp_path, capsys):
    path, folder = write(tmp_path, GOOD), tmp_path / "work"
    assert command(path, f"--config.workdir={folder}") == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["20", *(2 * ["1", "2", "4", "8", "16"])]
    at_two = [float(sum(1 - Fraction(comb(16 - c, 2), comb(16, 2)) for c in counts) / 20) for counts in (BASE_C, RL_C)]
    assert [rows[2][1], rows[2][5]] == [f"{100 * value:.2f}" for value in at_two]
    assert "solved by both 10, only start 8, only grpo 1, neither 1; SRR 0.5556, NDR 0.0909" in out
    assert "crossover: grpo leads at small k; start catches up at k = " in out
    assert out.splitlines()[-1] == f"report: {folder / 'index.html'}"
    page = (folder / "index.html").read_text()
    assert "<title>counts</title>" in page and "How the arms were trained is not recorded here" in page
    assert f"--config.counts.path={path}" in page and "not recorded" in page
    curves = list(csv.DictReader((folder / "curves.csv").read_text().splitlines()))
    assert len(curves) == 32 and curves[0]["arm"] == "start"
    for row in curves:
        counts = BASE_C if row["arm"] == "start" else RL_C
        k = int(row["k"])
        exact = sum(1 - Fraction(comb(16 - c, k), comb(16, k)) for c in counts) / 20
        assert float(row["pass@k"]) == pytest.approx(float(exact), abs=1e-12)
        assert all(len(row[name].partition(".")[2]) >= 4 for name in ("pass@k", "low", "high"))


def test_ragged_n_and_a_named_base_are_printed_as_far_as_they_are_defined(tmp_path, capsys, monkeypatch):
    written = []
    monkeypatch.setattr(
        "rlvr_limit.evaluation.counts.report.write", lambda study, folder: written.append(study) or folder
    )
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    lines = [HEAD + ",note"]
    for i in range(20):
        lines += [f"p{i},{arm},{n},{rng.integers(0, 3)},x" for arm, n in (("rl", 16), ("x", 20), ("base", 16 + i % 3))]
    assert (
        command(
            write(tmp_path, lines), "--config.counts.base=base", "--config.counts.rl=x", "--config.counts.guess=0.01"
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "20 problems; base: base" in out and "base beside rl" in out and "base beside x" in out
    assert "n differs: expected when every problem is cut to n = 16 at random" in out
    assert "crossover: " in out and "to resolve it: base minus rl at k = 16 is" in out
    (study,) = written
    assert [(arm.name, arm.group) for arm in study.arms] == [("base", "base"), ("rl", "other"), ("x", "rl")]
    assert study.problems[0] == ("p0", "", 0.01) and out.splitlines()[-1].endswith("runs/counts/counts")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([*GOOD, "p0,grpo,16,3"], "line 42: problem 'p0' of arm 'grpo' stands in line 3 already"),
        ([*GOOD, "p20,grpo,16,17"], "line 42: correct: 17 is not in [0, n = 16]"),
        ([*GOOD, "p20,grpo,16,-1"], "line 42: correct: -1 is not in"),
        ([*GOOD, "p20,grpo,-4,0"], "line 42: n: -4 is not at least 1"),
        ([*GOOD, "p20,grpo,0,0"], "line 42: n: 0 is not"),
        ([*GOOD, "p20,grpo,16,2.0"], "line 42: correct: '2.0' is not a whole number"),
        ([*GOOD, "p20,grpo,many,2"], "line 42: n: 'many' is not a whole number"),
        ([*GOOD, "p20,grpo,16"], "line 42: correct is empty"),
        ([*GOOD, "p20,,16,1"], "line 42: arm is empty"),
        ([*GOOD, "p20,grpo,16,3"], "line 42: problem 'p20' has arm 'grpo' but no line for arm 'start'"),
        (
            [HEAD.replace("correct", "right"), *GOOD[1:]],
            "line 1: found problem,arm,n,right, but column 'correct' is missing",
        ),
        ([""], "line 1: found nothing, but column 'problem' is missing"),
        ([HEAD], "no line below the header"),
        ([HEAD, "p0,start,16,1", "p1,start,16,1"], "found the one arm 'start'"),
        (GOOD[:3], "found the one problem 'p0'"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_file_and_the_line(tmp_path, capsys, lines, words):
    path = write(tmp_path, lines)
    assert command(path, f"--config.workdir={tmp_path / 'work'}") == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"error: {path}") and words in err
    assert not (tmp_path / "work").exists()


def test_files_that_are_none_and_arms_that_are_not_there_are_refused(tmp_path, capsys):
    path = write(tmp_path, GOOD)
    (tmp_path / "latin.csv").write_bytes((HEAD + "\np\xe9,a,1,1\n").encode("latin-1"))
    for argv, words in (
        ((tmp_path / "none.csv",), "none.csv: cannot be read (No such file or directory)"),
        ((tmp_path / "latin.csv",), "latin.csv: cannot be read"),
        ((path, "--config.counts.base=grp"), "config.counts.base: 'grp' is not an arm of"),
        ((path, "--config.counts.rl=start"), "config.counts.rl: 'start' is the base"),
        (("",), "config.counts.path is empty"),
        ((path, "--config.counts.guess=2.0"), "config.counts.guess: 2.0 is not in [0, 1]"),
    ):
        assert command(*argv) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and words in err, (words, err)
