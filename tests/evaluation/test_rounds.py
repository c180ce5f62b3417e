"""Samples drawn in rounds are those that are drawn arm by arm, bit for bit; only their order differs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from rlvr_limit.distributed import work_queue
from rlvr_limit.evaluation import sample
from tests.support import smoke
from tests.support.records_rows import keyed_rows


@pytest.fixture(scope="module")
def in_rounds(smoke_run: Path, smoke_runs: Path) -> tuple[Path, str]:
    """The smoke run's folder and weights, sampled again in two rounds, and what that printed."""
    root = smoke_runs / "rounds"
    shutil.copytree(smoke_run, root)
    shutil.rmtree(root / "records")
    shutil.copytree(smoke_run / "records" / "prompts", root / "records" / "prompts")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(work_queue, "LONG", 0)
        patched.setattr(work_queue, "SHARE", 4)
        assert len(work_queue.rounds(6, 256, 64, 12)) == 2
        patched.setattr(sample, "rounds", work_queue.rounds)
        done = smoke.run_smoke_here(smoke_runs, f"run_dir={root}", "job=sample", "flush_seconds=0")
    assert done.returncode == 0, done.stderr
    return root, done.stdout


def test_samples_and_verdicts_do_not_depend_on_rounds(in_rounds: tuple[Path, str], smoke_run: Path) -> None:
    for table in ("samples", "verdicts"):
        assert keyed_rows(in_rounds[0], table) == keyed_rows(smoke_run, table)


def test_every_arm_has_its_share_before_any_has_the_rest_and_the_last_goes_on(in_rounds: tuple[Path, str]) -> None:
    turns = re.findall(r"^sample (\S+), round (\d) of 2: (\d+)/(\d+) samples", in_rounds[1], re.MULTILINE)
    ends = [(arm, number, done) for arm, number, done, total in turns if done == total]
    arms = ["base", "grpo-2", "grpo-4", "grpo-6", "distilled", "control"]
    assert ends == [(arm, "1", "64") for arm in arms] + [(arm, "2", "256") for arm in reversed(arms)]


def test_the_first_token_is_told_once(in_rounds: tuple[Path, str]) -> None:
    said = re.findall(
        r"^first token after [\d.]+ s \(weights [\d.]+ s, compiling [\d.]+ s\)$", in_rounds[1], re.MULTILINE
    )
    assert len(said) == 1
