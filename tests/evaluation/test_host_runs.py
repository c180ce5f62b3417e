"""Runs shared by several processes of one machine: the same records as one process makes, whoever dies."""

from __future__ import annotations

import random
import shutil
import time

import pytest

from rlvr_limit import records
from tests.support.host_runs import copy_of_trained, ended, killed, log, start_hosts
from tests.support.records_rows import keyed_rows

KILLS = 5


def test_two_hosts_and_the_loss_of_one_leave_the_samples_of_one_process(smoke_run, tmp_path):
    root = copy_of_trained(smoke_run, tmp_path)
    processes = start_hosts(tmp_path, 2, "job=sample")
    killed(processes, tmp_path, 1, 0.0)
    assert ended(processes) == [0, -9], log(tmp_path, 0)
    for table in ("samples", "verdicts"):
        assert keyed_rows(root, table) == keyed_rows(smoke_run, table)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_hosts_leave_the_records_of_one_process(smoke_run, smoke_runs, tmp_path, count):
    root = copy_of_trained(smoke_run, tmp_path)
    assert ended(start_hosts(tmp_path, count)) == [0] * count
    for table in ("samples", "verdicts", "scores"):
        assert keyed_rows(root, table) == keyed_rows(smoke_run, table)
    assert (root / "report" / "curves.csv").read_bytes() == (smoke_run / "report" / "curves.csv").read_bytes()


@pytest.mark.slow
def test_three_hosts_go_on_without_one_that_is_killed_whenever_it_is(smoke_run, smoke_runs, tmp_path):
    rng = random.Random(0)
    wanted = None
    for kill in range(KILLS):
        runs = tmp_path / str(kill)
        runs.mkdir()
        root = copy_of_trained(smoke_run, runs)
        processes = start_hosts(runs, 4, "job=sample", "sampling.n=2048")
        who = rng.randint(1, 3)
        killed(processes, runs, who, rng.uniform(0, 4))
        assert ended(processes) == [-9 if index == who else 0 for index in range(4)]
        found = {table: keyed_rows(root, table) for table in ("samples", "verdicts")}
        assert len(found["samples"]) == 6 * 8 * 2048
        wanted = wanted or found
        assert found == wanted


@pytest.mark.slow
def test_all_hosts_end_with_host_0_within_a_minute_and_the_same_command_goes_on(smoke_run, smoke_runs, tmp_path):
    root = copy_of_trained(smoke_run, tmp_path)
    processes = start_hosts(tmp_path, 3, "job=sample", "sampling.n=2048")
    killed(processes, tmp_path, 0, 1.0)
    began = time.monotonic()
    assert all(code != 0 for code in ended(processes, 60))
    assert time.monotonic() - began < 60
    for index in (1, 2):
        last = log(tmp_path, index).splitlines()[-1]
        assert last.startswith("error: host ") and "host 0 is gone" in last
    there = records.read(root, "samples", columns=["index"]).num_rows
    assert 0 < there < 6 * 8 * 2048
    assert ended(start_hosts(tmp_path, 3, "job=sample", "sampling.n=2048")) == [0, 0, 0]
    assert records.read(root, "samples", columns=["index"]).num_rows == 6 * 8 * 2048


@pytest.mark.slow
def test_a_host_that_is_told_to_go_saves_and_ends_with_0(smoke_run, smoke_runs, tmp_path):
    root = copy_of_trained(smoke_run, tmp_path)
    processes = start_hosts(tmp_path, 2, "job=sample", "sampling.n=2048")
    while "sample base" not in log(tmp_path, 0):
        time.sleep(0.02)
    processes[1].terminate()
    assert ended(processes) == [0, 0]
    assert "stopped by SIGTERM" in log(tmp_path, 1)
    assert records.read(root, "samples", columns=["index"]).num_rows == 6 * 8 * 2048


@pytest.mark.slow
@pytest.mark.parametrize("dies", [False, True])
def test_hosts_take_what_another_run_has_drawn_once_and_draw_the_rest(smoke_run, smoke_runs, tmp_path, dies):
    given = tmp_path / "another" / "run"
    shutil.copytree(smoke_run, given)
    root = copy_of_trained(smoke_run, tmp_path)
    processes = start_hosts(tmp_path, 2, "job=sample", "sampling.n=512", "share_samples=True")
    if dies:
        killed(processes, tmp_path, 1, 0.3)
    assert ended(processes) == [0, -9 if dies else 0], log(tmp_path, 0)
    said = "".join(log(tmp_path, index) for index in (0, 1))
    assert said.count(" missing samples taken from ") == said.count(f"256 of 4,096 missing samples taken from {given}")
    assert said.count(f" missing samples taken from {given}") == 6
    # Rows that were taken have the time at which they were drawn.
    theirs, ours = (records.read(folder, "samples").to_pylist() for folder in (given, root))
    assert len(ours) == 6 * 8 * 512
    assert [row for row in ours if row["index"] < 32] == theirs
    facts, their_facts = (records.read_manifest(folder)["facts"] for folder in (root, given))
    assert their_facts.items() <= facts.items()
    assert dies or sum(".taken " in fact for fact in facts) == 6
