"""A run that is killed again and again ends where an uninterrupted one does; a larger n draws only what is new."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from rlvr_limit import records
from tests.support import smoke
from tests.support.records_rows import keyed_rows

KILLED_IN_BATCH = """
import os, signal
import main
from rlvr_limit.evaluation import shared_samples
from rlvr_limit.records import Writer
shared_samples.BATCH = shared_samples.ROWS = 32  # a problem's
left, append = [None] * ({batches} + 1), Writer.append_batch  # the first one holds the prompts
def until_killed(writer, batch):
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    left.pop()
    append(writer, batch)
Writer.append_batch = until_killed
main.main(["main.py", *{words}])
"""


@dataclass(frozen=True)
class Battered:
    """A finished run folder and what was seen on the way."""

    root: Path
    resumed_at: list[tuple[int, int]]
    half: dict[tuple, dict]
    after_half: float


def stored(root: Path, table: str) -> int:
    """Rows on record now."""
    return records.read(root, table, columns=["index"]).num_rows if (root / "manifest.json").exists() else 0


def trained(root: Path) -> int:
    """Training steps on record now, in all runs."""
    return sum(len(path.read_text().splitlines()) for path in root.glob("train/*/metrics.jsonl"))


def finish(runs: Path, *overrides: str) -> str:
    """Runs to the end and returns what it printed."""
    done = smoke.run_smoke_here(runs, *overrides)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module", params=[1, pytest.param(5, marks=pytest.mark.slow)], ids="{}-kills".format)
def battered(request: pytest.FixtureRequest, smoke_run: Path, smoke_runs: Path) -> Battered:
    """The smoke config killed in training (once more often), in sampling at half of n and in grading (once less)."""
    rng, kills = random.Random(0), request.param
    root = smoke_runs / f"battered-{kills}"
    where = f"run_dir={root}"
    resumed_at = []
    for _ in range(kills + 1):
        goal = trained(root) + rng.randint(1, 25)
        ready = lambda _, goal=goal: trained(root) >= goal  # noqa: E731
        smoke.kill_when(smoke_runs, ready, rng.uniform(0, 0.2), where, "job=train")
        steps = [int(path.name) for path in root.glob("train/*/states/*") if path.name.isdigit()]
        resumed_at.append((trained(root), max(steps, default=0)))
    for _ in range(kills):
        goal = stored(root, "samples") + rng.randint(1, 250)
        ready = lambda _, goal=goal: stored(root, "samples") >= goal  # noqa: E731
        smoke.kill_when(smoke_runs, ready, rng.uniform(0, 0.05), where, "job=sample", "sampling.n=16")
    finish(smoke_runs, where, "job=sample", "sampling.n=16")
    half = keyed_rows(root, "samples")
    shutil.rmtree(root / "records" / "verdicts")
    for _ in range(kills - 1):
        goal = stored(root, "verdicts") + rng.randint(1, 250)
        ready = lambda _, goal=goal: stored(root, "verdicts") >= goal  # noqa: E731
        smoke.kill_when(smoke_runs, ready, rng.uniform(0, 0.02), where, "job=grade", "sampling.n=16")
    after_half = max(records.read(root, "samples", columns=["time"])["time"].to_pylist())
    finish(smoke_runs, where)
    return Battered(root, resumed_at, half, after_half)


@pytest.mark.parametrize("table", ["samples", "verdicts", "scores"])
def test_killed_run_ends_with_the_same_rows_as_an_uninterrupted_one(
    battered: Battered, smoke_run: Path, table: str
) -> None:
    assert keyed_rows(battered.root, table) == keyed_rows(smoke_run, table)


def test_killed_training_ends_with_bitwise_the_same_weights(battered: Battered, smoke_run: Path) -> None:
    facts = records.read_manifest(battered.root)["facts"]
    assert len(facts) == 3 * 6
    assert facts == records.read_manifest(smoke_run)["facts"]


def test_killed_training_went_on_from_kept_states(battered: Battered) -> None:
    assert max(step for _, step in battered.resumed_at) > 0
    done = [steps for steps, _ in battered.resumed_at]
    assert done == sorted(done) and done[-1] > done[0]


def test_training_metrics_of_a_killed_run_have_each_step_once(battered: Battered, smoke_run: Path) -> None:
    for path in smoke_run.glob("train/*/metrics.jsonl"):
        other = battered.root / path.relative_to(smoke_run)
        mine, theirs = ([json.loads(line) for line in p.read_text().splitlines()] for p in (other, path))
        assert mine == theirs


def test_larger_n_keeps_every_old_sample_and_draws_only_new_ones(battered: Battered) -> None:
    final = records.read(battered.root, "samples", columns=["problem_id", "index", "time"]).to_pylist()
    assert all(row["time"] > battered.after_half for row in final if row["index"] >= 16)
    assert all(row["time"] <= battered.after_half for row in final if row["index"] < 16)
    whole = keyed_rows(battered.root, "samples")
    assert battered.half and all(whole[key] == row for key, row in battered.half.items())


@pytest.mark.slow  # tests/evaluation/test_released_weights.py holds it by default
def test_finished_run_draws_nothing_again(battered: Battered, smoke_runs: Path) -> None:
    before = sorted(path.name for path in (battered.root / "records").rglob("*.parquet"))
    output = finish(smoke_runs, f"run_dir={battered.root}")
    assert sorted(path.name for path in (battered.root / "records").rglob("*.parquet")) == before
    assert "sample " not in output and "train " not in output


@pytest.mark.slow
@pytest.mark.parametrize("batches", [0, 1, 7])
def test_killed_while_it_takes_what_another_run_has_drawn_it_ends_with_those_rows(
    smoke_run: Path, smoke_runs: Path, batches: int
) -> None:
    root = smoke_runs / f"taken-{batches}"
    for part in ("weights", "train"):
        shutil.copytree(smoke_run / part, root / part)
    words = smoke.command(smoke_runs, f"run_dir={root}", "job=sample", "share_samples=True")[2:]
    done = subprocess.run(
        [sys.executable, "-c", KILLED_IN_BATCH.format(batches=batches, words=words)],
        cwd=smoke.REPOSITORY,
        env=smoke.environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == -9, done.stderr
    assert stored(root, "samples") + stored(root, "verdicts") == 32 * batches
    output = finish(smoke_runs, *(word.removeprefix("--config.") for word in words[3:]))
    assert "sample base: " not in output
    assert keyed_rows(root, "samples") == keyed_rows(smoke_run, "samples")
    wanted = keyed_rows(smoke_run, "verdicts")
    assert all(wanted[key] == row for key, row in keyed_rows(root, "verdicts").items())
