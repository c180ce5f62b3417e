"""Adaptive sampling: who gets a second stage is read from the verdicts, and the page speaks of each stage rightly."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from rlvr_limit import passk, records
from rlvr_limit.evaluation import adaptive
from rlvr_limit.passk import SecondStageCounts
from rlvr_limit.report import ArmResults, Results
from rlvr_limit.report.analysis import analyse
from rlvr_limit.report.results import check
from rlvr_limit.report.tables import chains, guessable
from rlvr_limit.report.words import not_resolved, size
from rlvr_limit.study.verdicts import references
from rlvr_limit.types import UserError
from tests.support import smoke
from tests.support.records_rows import verdict, write
from tests.support.studies import smoke_study

FIRST, N = 4, 10


@pytest.mark.usefixtures("compilation_cache")
def test_a_second_stage_is_for_problems_whose_graded_first_one_has_no_right_sample(tmp_path):
    found = smoke_study(tmp_path, f"sampling.adaptive={FIRST}")
    problems, base, against = found.problems, found.base, references(found, found.task)
    unsolved, solved, half_graded, by_another, untouched = (problem.id for problem in problems[:5])

    def rows(name, right, indices, **changes):
        graded_by = {"grader": found.task.version, "against": against[name], **changes}
        return [verdict(name, i, correct=i in right, **graded_by) for i in indices]

    write(
        found.root,
        *rows(unsolved, {7}, range(9)),  # right in the second stage only, of which one verdict is still to come
        *rows(solved, {2, 8}, range(N)),  # an earlier run drew n of these
        *rows(half_graded, set(), range(FIRST - 1)),
        *rows(by_another, set(), range(FIRST), grader="countdown 0"),
        *rows(untouched, set(), range(FIRST), arm="control"),
        table="verdicts",
    )
    limit = adaptive.samples_wanted(found, base)
    assert [limit(problem) for problem in problems[:5]] == [N, FIRST, FIRST, FIRST, FIRST]
    second = adaptive.second_stage(found, base, problems)
    assert (second.n, second.n_M[:5].tolist(), second.c_M[:5].tolist()) == (N, [5, 0, 0, 0, 0], [1, 0, 0, 0, 0])
    plain = smoke_study(tmp_path)
    assert plain.root == found.root  # a condition of no sample: the same folder
    assert {adaptive.samples_wanted(plain, base)(problem) for problem in problems} == {N}
    assert adaptive.second_stage(plain, base, problems) is None


@pytest.mark.usefixtures("compilation_cache")
@pytest.mark.parametrize("adaptive", [-1, N])
def test_a_first_stage_that_is_none_is_refused(tmp_path, adaptive):
    with pytest.raises(UserError, match=f"config.sampling.adaptive: {adaptive} is not "):
        smoke_study(tmp_path, f"sampling.adaptive={adaptive}")


@pytest.mark.slow
def test_a_run_draws_the_second_stage_after_the_verdicts_of_the_first_and_nothing_twice(tmp_path):
    for _ in range(2):
        done = smoke.run(tmp_path, "sampling.adaptive=8")
        assert done.returncode == 0, done.stderr
    root = smoke.run_folder(done.stdout)
    assert "sample " not in done.stdout + done.stderr  # the second run had nothing to draw
    rows = records.read(root, "verdicts", columns=["arm", "problem_id", "index", "correct"]).to_pylist()
    drawn, solved = Counter(), Counter()
    for row in rows:
        drawn[row["arm"], row["problem_id"]] += 1
        solved[row["arm"], row["problem_id"]] += row["correct"] and row["index"] < 8
    assert len(rows) == records.read(root, "samples", columns=["index"]).num_rows
    assert {(n, solved[key] > 0) for key, n in drawn.items()} == {(8, True), (32, False)}
    assert "Every arm was sampled adaptively: 8 samples" in (root / "report" / "index.html").read_text()


BASE_C, BASE_SECOND = np.array([2, 0, 0, 1, 0, 0]), np.array([0, 3, 0, 0, 1, 0])
RL_C, RL_SECOND = np.array([4, 4, 0, 0, 0, 0]), np.array([0, 0, 0, 2, 0, 0])


def arm(name, c_M, second_c_M, group):
    second_n_M = np.where(c_M == 0, N - FIRST, 0)
    return ArmResults(name, name, group, np.full(6, FIRST), c_M, second=SecondStageCounts(N, second_n_M, second_c_M))


def study(*arms):
    problems = tuple((f"p{i}", "", None) for i in range(6))
    return Results("Title", "Purpose.", "Caveat.", "command", problems, arms, "base", delta_se_k=N)


def test_curves_support_and_delta_se_are_of_both_stages():
    shown = study(arm("base", BASE_C, BASE_SECOND, "base"), arm("rl", RL_C, RL_SECOND, "rl"))
    check(shown)
    found = analyse(shown)
    base_MK = passk.two_stage_curves(FIRST, BASE_C, np.where(BASE_C == 0, N - FIRST, 0), BASE_SECOND, N)
    np.testing.assert_allclose(found.curves["base"].mean_K, base_MK.mean(axis=0))
    beside = found.against_base["rl"]
    assert (beside.support.both, beside.support.base_only) == ((0, 1, 3), (4,))
    assert (beside.support.rl_only, beside.support.neither) == ((), (2, 5))
    assert beside.delta_se == pytest.approx(base_MK[:, -1].mean() - RL_C.mean() / FIRST)
    text = " ".join(not_resolved(shown, found))
    assert "Problems without a right answer, of 6, by arm: base: 2 and rl: 3." in text
    assert f"after {N} wrong samples" in text and f"{FIRST} samples of every problem, and {N} where none" in text
    assert size(shown).endswith(f"n = {FIRST} samples each, up to {N} where none of these is right")


def test_guessable_problems_and_judged_chains_reach_as_far_as_their_stage():
    judged = dataclasses.replace(
        arm("rl", RL_C, RL_SECOND, "rl"), chains_right_M=np.minimum(RL_C, 1), chains_wrong_M=np.zeros(6, int)
    )
    asked = arm("asked", np.zeros(6, int), np.zeros(6, int), "other")
    shown = dataclasses.replace(study(arm("base", BASE_C, BASE_SECOND, "base"), judged, asked), answer_only="asked")
    found = analyse(shown)
    assert len(found.guessable.curves["rl"]) == N and len(found.chains["rl"].low_K) == FIRST
    assert chains(shown, found).header[-1] == f"CoT-Pass@{FIRST}"
    assert guessable(shown, found).header[-1] == f"pass@{N}"


def test_arms_with_and_without_stages_are_held_against_each_other_at_the_same_n():
    plain = ArmResults("rl", "rl", "rl", np.full(6, N), np.array([9, 0, 0, 1, 0, 0]))
    found = analyse(study(arm("base", BASE_C, BASE_SECOND, "base"), plain))
    assert found.against_base["rl"].support.base_only == (1, 4)
    assert len(found.comparisons[0].difference.mean_K) == N


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"n_M": np.array([4, 4, 4, 4, 4, 5])}, "n_M differs between problems"),
        ({"second": SecondStageCounts(N, np.full(6, N - FIRST), BASE_SECOND)}, "problem p0: 0 of 6 in the second"),
        ({"second": SecondStageCounts(N, np.where(BASE_C == 0, 5, 0), BASE_SECOND)}, "problem p1: 3 of 5 .* of 6"),
    ],
)
def test_stages_that_contradict_each_other_are_one_clear_line(fields, words):
    wrong = dataclasses.replace(arm("base", BASE_C, BASE_SECOND, "base"), **fields)
    with pytest.raises(UserError, match=words):
        check(study(wrong, arm("rl", RL_C, RL_SECOND, "rl")))
