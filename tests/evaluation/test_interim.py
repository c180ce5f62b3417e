"""A page at any moment: what is on record is drawn, what is lacking is said, and a page that fails ends no run."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlvr_limit import report
from rlvr_limit.evaluation.interim import InterimPages
from rlvr_limit.evaluation.results import results_of, write_report
from rlvr_limit.study.checks import check
from rlvr_limit.study.prepared import Study
from rlvr_limit.study.verdicts import references
from tests.support import smoke
from tests.support.records_rows import abandon, sample, verdict, write
from tests.support.studies import smoke_study

N = 10
pytestmark = pytest.mark.usefixtures("compilation_cache")


@pytest.fixture
def found(tmp_path: Path) -> Iterator[Study]:
    """The smoke study without weights and samples, 10 samples a problem wanted."""
    yield smoke_study(tmp_path)


def draw(study: Study, arm: str, counts: list[int], ungraded: int = 0, right: int = 1) -> None:
    """counts of the problems' samples, of which the last ones have no verdict, left behind by a killed writer."""
    keys = [(p.id, i) for p, n in zip(study.problems, counts, strict=False) for i in range(n)]
    grader = study.task.version
    against = references(study, study.task)
    judged = [(name, i, {"arm": arm, "against": against[name]}) for name, i in keys[: len(keys) - ungraded]]
    graded = [verdict(name, i, grader, correct=i < right, **more) for name, i, more in judged]
    abandon(study.root, *(sample(name, i, arm) for name, i in keys))
    abandon(study.root, *graded, table="verdicts")


def words_of(page: Path) -> str:
    return " ".join(page.read_text().replace("&nbsp;", " ").split())


def page_of(study: Study) -> report.Results | report.Interim:
    return results_of(study, "", list(study.problems))


def test_before_anything_is_drawn_a_page_says_so(found: Study) -> None:
    page, lacking = write_report(found)
    assert lacking == " (interim: 480 graded samples are lacking)"
    text = words_of(page)
    assert text.count("(no sample yet)") == 6 and "0 of 480 samples (0.0 %)" in text
    assert 'http-equiv="refresh"' not in text


def test_arms_are_drawn_as_far_as_every_problem_goes_and_the_others_are_named(found: Study) -> None:
    draw(found, "base", [N] * 8)
    draw(found, "grpo-2", [N, N, N, 4, 3, N, N, N], ungraded=2)
    draw(found, "control", [N, 2])
    shown = page_of(found)
    assert [arm.name for arm in shown.arms] == ["base", "grpo-2"]
    assert shown.arms[1].n_M.tolist() == [10, 10, 10, 4, 3, 10, 10, 8]
    # What was drawn and not judged is not wrong.
    assert shown.arms[1].c_M.tolist() == [1] * 8 and shown.arms[1].ungraded_M.sum() == 0
    assert shown.arms[1].pass_MK.shape[1] == 3
    progress = {arm.label: arm for arm in shown.interim.arms}
    assert len(progress) == 6
    half = progress["GRPO, step 2"]
    assert (half.wanted, half.drawn, half.graded, half.fewest, half.most, half.without) == (80, 67, 65, 3, 10, 0)
    assert (progress["control"].without, progress["control"].drawn, progress["distilled"].drawn) == (6, 12, 0)


def test_an_arm_that_is_alone_is_a_page_once_every_problem_has_a_sample(found: Study) -> None:
    alone = dataclasses.replace(found.settings, arms={"base": found.settings.arms["base"]})
    found = dataclasses.replace(found, settings=alone)
    check(alone)
    draw(found, "base", [N] * 7)
    assert isinstance(page_of(found), report.Interim)
    draw(found, "base", [N] * 8)
    shown = page_of(found)
    assert [arm.name for arm in shown.arms] == ["base"] and shown.interim is None
    page, lacking = write_report(found)
    assert lacking == "" and "One arm alone" in words_of(page)


def test_a_page_that_lacks_samples_says_what_in_every_form(found: Study) -> None:
    draw(found, "base", [N] * 8)
    draw(found, "grpo-2", [N, N, N, 4, 3, N, N, N], ungraded=2)
    draw(found, "control", [N, 2])
    page, lacking = write_report(found, refresh=600)
    assert lacking == " (interim: 323 graded samples are lacking)"
    html, markdown = words_of(page), words_of(page.parent / "summary.md")
    assert '<meta http-equiv="refresh" content="600">' in html and "<title>Interim: " in html
    for said in ("157 of 480 samples", "Samples without a verdict yet: 2.", "no sample yet of 6 of 8 problems"):
        assert said in html and said in markdown
    assert json.loads((page.parent / "summary.json").read_text())["interim"]["arms"][1]["fewest"] == 3


def test_a_complete_page_is_no_interim_one(found: Study) -> None:
    for entry in found.evaluated:
        draw(found, entry.name, [N] * 8)
    shown = page_of(found)
    assert isinstance(shown, report.Results) and shown.interim is None and len(shown.arms) == 6


def test_nothing_is_compared_before_the_base_is_there(found: Study) -> None:
    draw(found, "base", [N] * 7)
    draw(found, "control", [N] * 8)
    draw(found, "distilled", [N] * 8)
    shown = page_of(found)
    assert isinstance(shown, report.Interim) and shown.arms[0].without == 1


def test_verdicts_of_another_grader_do_not_count(found: Study) -> None:
    draw(found, "base", [N] * 8)
    draw(found, "control", [N] * 8)
    write(found.root, *(sample(p.id, i, "grpo-2") for p in found.problems for i in range(N)))
    old = [verdict(p.id, i, "countdown 0", arm="grpo-2") for p in found.problems for i in range(N)]
    write(found.root, *old, table="verdicts")
    arms = {arm.label: arm for arm in page_of(found).interim.arms}
    assert (arms["GRPO, step 2"].drawn, arms["GRPO, step 2"].graded) == (80, 0)


def test_a_second_stage_that_is_not_done_leaves_the_curve_of_the_first(tmp_path: Path) -> None:
    study = smoke_study(tmp_path, "sampling.adaptive=4")
    draw(study, "base", [4] * 7 + [N], right=0)
    draw(study, "control", [4] * 8, right=1)
    shown = page_of(study)
    base, control = shown.arms
    assert base.second is None and base.n_M.tolist() == [4] * 8 and control.second is not None
    assert shown.interim.arms[0].wanted == 80 and shown.interim.arms[0].graded == 38
    draw(study, "base", [N] * 8, right=0)
    base, _ = page_of(study).arms
    assert base.second.n_M.tolist() == [6] * 8 and base.pass_MK.shape[1] == N


def test_pages_are_written_while_the_block_lasts_and_one_that_fails_ends_nothing(capsys) -> None:
    twice, calls, usual = threading.Event(), [], sys.getswitchinterval()

    def fails_first() -> None:
        calls.append(threading.current_thread().name)
        if len(calls) == 1:
            raise OSError("disk full")
        twice.set()

    with InterimPages(fails_first, every=0.01):
        assert twice.wait(10)
    told = capsys.readouterr()
    assert "interim page: not written, tried again later: OSError('disk full')" in told.out and "disk full" in told.err
    assert set(calls) == {"interim pages"} and sys.getswitchinterval() == usual


def test_without_an_interval_no_page_is_written_and_a_run_that_breaks_off_is_not_held() -> None:
    with InterimPages(lambda: pytest.fail("called"), every=0):
        pass
    with pytest.raises(KeyboardInterrupt), InterimPages(lambda: None, every=1000):
        raise KeyboardInterrupt


@pytest.mark.slow
def test_a_run_killed_while_it_samples_leaves_what_a_page_is_drawn_from(smoke_run: Path, smoke_runs: Path) -> None:
    root = smoke_runs / "killed"
    shutil.copytree(smoke_run, root)
    where = f"run_dir={root}", "sampling.n=4096", "report.every=1"
    assert smoke.kill_when(smoke_runs, lambda output: "interim page: written" in output, 0.2, *where)
    done = smoke.run_smoke_here(smoke_runs, *where, "job=report")
    assert done.returncode == 0 and "graded samples are lacking)" in done.stdout
    assert "Interim: " in (root / "report" / "index.html").read_text()
