"""Whole runs in an object store: stopped, killed and resumed, they leave what a run on a disk does."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.compute as pc
import pytest

from rlvr_limit import records
from rlvr_limit.records.storage import place
from rlvr_limit.records.storage.folders import put_all, put_whole
from tests.support import smoke
from tests.support.host_runs import ended, killed, log, start_hosts
from tests.support.records_rows import rows_of

N = 32
"""Samples of the smoke config."""

TABLES = ("prompts", "samples", "verdicts", "scores")

RUNS = """
import os, signal, sys
import fsspec
import main
from rlvr_limit.records import Writer

runs, target = sys.argv[1:]

def run(*overrides):
    words = ["--config=configs/countdown_smoke.py", f"--config.runs={runs}", "--config.run_dir=memory://bucket/run"]
    code = main.main(["main.py", *words, *(f"--config.{o}" for o in overrides)])
    print("exit code", code, flush=True)

append, left = Writer.append, [3]

def notice(writer, rows):
    append(writer, rows)
    if writer._table.name == "samples" and rows:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)

Writer.append = notice
run("job=sample", "sampling.n=16")
Writer.append = append
store = fsspec.filesystem("memory")
store.get("/bucket/run/", f"{target}/stopped", recursive=True)
run()
run("job=grade")
store.get("/bucket/run/", f"{target}/run", recursive=True)
"""


def assert_same(mine: str | Path, theirs: Path) -> None:
    """The same rows in all tables, whenever they were drawn, and the same weights; n may be larger in the first."""
    for name in TABLES:
        one, other = (records.read(folder, name) for folder in (mine, theirs))
        if name in ("samples", "verdicts"):
            one = one.filter(pc.field("index") < N)
        if name == "samples":
            one, other = one.drop_columns("time"), other.drop_columns("time")
        assert one.num_rows and one.equals(other), name
    assert records.read_manifest(mine)["facts"] == records.read_manifest(theirs)["facts"]


def drawn(root: str | Path) -> dict[tuple, float]:
    """When each sample on record was written."""
    rows = rows_of(root, columns=["arm", "problem_id", "index", "time"])
    return {(row["arm"], row["problem_id"], row["index"]): row["time"] for row in rows}


@pytest.mark.slow
def test_a_run_in_a_store_is_stopped_resumed_and_reported_with_the_samples_of_a_local_one(
    smoke_run: Path, smoke_runs: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", RUNS, str(smoke_runs), str(tmp_path)]
    done = subprocess.run(command, cwd=smoke.REPOSITORY, env=smoke.environment(), capture_output=True, text=True)
    assert done.stdout.count("exit code 0") == 3, done.stdout + done.stderr
    assert "stopped by SIGTERM" in done.stderr
    stopped, run = tmp_path / "stopped", tmp_path / "run"
    early, now = drawn(stopped), drawn(run)
    assert 0 < len(early) < 6 * 8 * 16
    assert all(now[key] == at for key, at in early.items())  # none was drawn again
    assert_same(run, smoke_run)
    assert "report: memory://bucket/run/report/index.html" in done.stdout
    assert json.loads((run / "report/summary.json").read_text())["arms"]
    # 16 samples show no problem that is solved in less than 5 % of them.
    assert (run / "review/rare_wins.csv").read_text().split("\n")[0].strip() == "nothing to look at"
    beside, theirs = (
        {path.relative_to(folder) for path in (folder / "report").rglob("*")} for folder in (run, smoke_run)
    )
    assert beside == theirs


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of a server on this machine that speaks S3."""
    s3fs = pytest.importorskip("s3fs")
    pytest.importorskip("moto.server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    s3fs.S3FileSystem.clear_instance_cache()  # one that was made before knows the server of another test
    names = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
    names |= {"AWS_ACCESS_KEY_ID": "name", "AWS_SECRET_ACCESS_KEY": "word"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    with (tmp_path / "server.log").open("w") as log:
        words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 120
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < end:
            time.sleep(0.2)
        place(f"s3://runs-{port}").store.mkdir(f"runs-{port}")
        yield f"s3://runs-{port}"
    finally:
        server.kill()
        server.wait()


def trained(root: str) -> int:
    """Training steps on record, and with them states or weights: both are put at every state."""
    folders = (place(root) / "train").iterdir()
    files = [folder / "metrics.jsonl" for folder in folders]
    return sum(len(path.read_text().splitlines()) for path in files if path.is_file())


@pytest.mark.slow
def test_a_run_in_a_bucket_survives_kill_9_in_training_and_sampling(
    bucket: str, smoke_run: Path, smoke_runs: Path
) -> None:
    rng, root = random.Random(0), f"{bucket}/run"
    where, many = f"run_dir={root}", "sampling.n=1024"
    resumed_from = []
    for goal in (10, 70):
        smoke.kill_when(smoke_runs, lambda _, goal=goal: trained(root) >= goal, rng.uniform(0, 0.5), where, "job=train")
        resumed_from.append(trained(root))
    assert resumed_from[0] >= 10 and resumed_from == sorted(resumed_from)
    smoke.run(smoke_runs, where, "job=train")
    seen: dict[tuple, float] = {}
    for _ in range(3):
        goal = len(seen) + rng.randint(1, 8000)
        ready = lambda _, goal=goal: len(drawn(root)) >= goal  # noqa: E731
        smoke.kill_when(smoke_runs, ready, rng.uniform(0, 0.2), where, many, "job=sample")
        now = drawn(root)
        assert all(now[key] == at for key, at in seen.items())
        seen = now
    assert N < len(seen) < 6 * 8 * 1024  # there was something left to draw
    done = smoke.run(smoke_runs, where, many)
    assert done.returncode == 0, done.stderr
    assert f"report: {root}/report/index.html" in done.stdout
    now = drawn(root)
    assert all(now[key] == at for key, at in seen.items())
    assert_same(root, smoke_run)
    again = smoke.run(smoke_runs, where, many)
    assert again.returncode == 0 and "sample " not in again.stdout and "train " not in again.stdout
    assert (place(root) / "report" / "index.html").read_bytes()[:15].lower() == b"<!doctype html>"


@pytest.mark.slow
def test_two_hosts_share_a_bucket_and_one_goes_on_when_the_other_is_killed(
    bucket: str, smoke_run: Path, smoke_runs: Path, tmp_path: Path
) -> None:
    root = place(bucket) / "run"
    for weights in (smoke_run / "weights").iterdir():
        put_whole(weights, root / "weights" / weights.name)
    put_all(smoke_run / "train", root / "train")
    smoke.share_compiled(tmp_path)
    processes = start_hosts(tmp_path, 2, f"run_dir={root}", "sampling.n=256")
    killed(processes, tmp_path, 1, 0.0)
    assert ended(processes, 600) == [0, -9], log(tmp_path, 0)
    assert_same(str(root), smoke_run)
