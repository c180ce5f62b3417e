"""Training by several processes: one that is killed ends the others, and the same command ends in the same bits."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from rlvr_limit import records
from tests.support.host_runs import ended, log, start_hosts

SHORTER = ("job=train", "hosts.patience=15", "arms.distilled.sft.steps=5", "arms.control.sft.steps=5")
SECONDS = 60
"""How long the others may take to end."""

pytestmark = pytest.mark.slow


def root_of(runs: Path) -> Path:
    (found,) = runs.glob("countdown_smoke/*")
    return found


def rows(runs: Path, arm: str) -> list[dict]:
    """The metrics of an arm's steps so far."""
    return [json.loads(line) for path in runs.glob(f"*/*/train/{arm}/metrics.jsonl") for line in path.open()]


def begun(runs: Path, arm: str, step: int, count: int = 2) -> list[subprocess.Popen]:
    """Hosts that have done so many steps of an arm."""
    processes = start_hosts(runs, count, *SHORTER)
    while processes[0].poll() is None and len(rows(runs, arm)) < step:
        time.sleep(0.02)
    return processes


@pytest.fixture(scope="module")
def whole(smoke_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two hosts that nothing disturbs."""
    runs = tmp_path_factory.mktemp("whole")
    assert ended(start_hosts(runs, 2, *SHORTER), 600) == [0, 0], log(runs, 0)
    return runs


def begun_like(whole: Path, runs: Path) -> None:
    """What was compiled is compiled."""
    shutil.copytree(whole / ".compiled", runs / ".compiled")


def facts(runs: Path) -> dict:
    return records.read_manifest(root_of(runs))["facts"]


@pytest.mark.parametrize(("arm", "step", "who"), [("base", 20, 1), ("grpo", 2, 1), ("grpo", 3, 0)])
def test_a_killed_host_ends_the_others_by_a_line_that_names_it_and_the_same_command_ends_in_the_same_bits(
    whole: Path, tmp_path: Path, arm: str, step: int, who: int
) -> None:
    begun_like(whole, tmp_path)
    processes = begun(tmp_path, arm, step)
    processes[who].send_signal(signal.SIGKILL)
    began = time.monotonic()
    codes = ended(processes, SECONDS)
    last = log(tmp_path, 1 - who).splitlines()[-1]
    print(f"{arm}, step {step}, host {who}: codes {codes} in {time.monotonic() - began:.1f} s: {last}")
    assert codes[who] == -9 and codes[1 - who] not in (0, -9)
    assert last.startswith("error: host ") and ("host 0 is gone" if who == 0 else "host 1 has not been heard") in last
    assert ended(start_hosts(tmp_path, 2, *SHORTER), 600) == [0, 0], log(tmp_path, 0)
    assert facts(tmp_path) == facts(whole)
    for name in ("base", "grpo", "distilled"):
        assert rows(tmp_path, name) == rows(whole, name)


@pytest.mark.parametrize("count", [1, 4])
def test_another_number_of_hosts_goes_on_to_the_same_but_for_rounding(whole: Path, tmp_path: Path, count: int) -> None:
    begun_like(whole, tmp_path)
    processes = begun(tmp_path, "base", 30)
    processes[0].terminate()
    assert ended(processes, SECONDS) == [0, 0], log(tmp_path, 0)
    assert all("stopped by SIGTERM" in log(tmp_path, host) for host in range(2))
    at = max(int(path.name) for path in root_of(tmp_path).glob("train/base/states/*") if path.name.isdigit())
    assert at == len(rows(tmp_path, "base")) < 60
    assert ended(start_hosts(tmp_path, count, *SHORTER), 600) == [0] * count, log(tmp_path, 0)
    found, expected = ([row["loss"] for row in rows(runs, "base")] for runs in (tmp_path, whole))
    assert found[:at] == expected[:at] and found == pytest.approx(expected, rel=1e-4)
    assert len(rows(tmp_path, "grpo")) == 6
