"""Whatever is wrong is said in one clear line, the exit code is 2, and nothing already written is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rlvr_limit import records
from tests.support import smoke


def refusal(runs: Path, *overrides: str, largest_file: int | None = None) -> str:
    """The one line that a refused run prints."""
    if largest_file is None:
        done = smoke.run_smoke_here(runs, *overrides)
    else:
        done = smoke.run(runs, *overrides, largest_file=largest_file)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.fixture
def copy(smoke_run: Path, tmp_path: Path) -> Path:
    """A run folder that a test may damage."""
    return Path(shutil.copytree(smoke_run, tmp_path / "run"))


def test_unknown_field_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    line = refusal(tmp_path, "sampling.temprature=1.0")
    assert "config.sampling.temprature" in line and "config.sampling.temperature" in line


def test_k_above_n_is_refused(smoke_runs: Path) -> None:
    line = refusal(smoke_runs, "report.k=64", "job=report")
    assert "report.k" in line and "64" in line and "32" in line


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert str(blocked / "run") in refusal(tmp_path, f"run_dir={blocked / 'run'}")


def test_other_conditions_are_shown_and_refused(copy: Path, smoke_runs: Path) -> None:
    line = refusal(smoke_runs, f"run_dir={copy}", "sampling.temperature=0.5")
    assert "sampling.temperature" in line and "1.0" in line and "0.5" in line


def test_corrupt_part_is_named_and_the_rest_is_kept(copy: Path, smoke_runs: Path) -> None:
    with records.Writer(copy, "verdicts"):
        pass
    part = sorted((copy / "records" / "samples").glob("*.parquet"))[0]
    others = {p: p.read_bytes() for p in (copy / "records").rglob("*.parquet") if p != part}
    part.write_bytes(part.read_bytes()[:1000])
    assert part.name in refusal(smoke_runs, f"run_dir={copy}", "job=report")
    assert {p: p.read_bytes() for p in others} == others


def test_full_disk_is_said_and_what_was_drawn_is_kept(copy: Path, smoke_runs: Path) -> None:
    before = records.read(copy, "samples").num_rows
    line = refusal(smoke_runs, f"run_dir={copy}", "job=sample", "sampling.n=512", largest_file=120)
    assert "part-" in line
    kept = records.read(copy, "samples").num_rows
    assert kept >= before
    done = smoke.run_smoke_here(smoke_runs, f"run_dir={copy}", "job=sample")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("sampling.top_p=1.5", "error: config.sampling.top_p: 1.5 is not in (0, 1]"),
        ("task.eval_problems=1", "error: config.task.eval_problems: 1 problem, but a page needs at least 2"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(tmp_path: Path, override: str, line: str) -> None:
    assert refusal(tmp_path, override).startswith(line)
    assert not list(tmp_path.glob("countdown_smoke*"))


def test_a_folder_of_an_older_format_is_refused_in_one_line_and_kept(copy: Path, smoke_runs: Path) -> None:
    manifest = copy / "manifest.json"
    older = manifest.read_text().replace('"format": 2', '"format": 1')
    manifest.write_text(older)
    line = refusal(smoke_runs, f"run_dir={copy}", "job=report")
    assert line.endswith("has format 1, this version reads 2: use the version that made the folder")
    assert manifest.read_text() == older
