"""Grading again, what changed, the second opinion, rare wins and their judgments; guess rates and bounds on chains."""

import csv
import dataclasses
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from rlvr_limit import records
from rlvr_limit.distributed.hosts import Hosts
from rlvr_limit.evaluation.grade import give_second_opinions, grade_missing
from rlvr_limit.evaluation.review import (
    JUDGED,
    changes,
    disagreements,
    judged_again,
    judgments,
    rare_wins,
    second_opinion,
    write_review,
)
from rlvr_limit.grading.math import string_rules
from rlvr_limit.grading.named import NamedGrader
from rlvr_limit.passk.curve import pass_curve
from rlvr_limit.passk.guessing import chain_bounds, marginal_rates, rarely_right
from rlvr_limit.passk.guessing import rare_wins as count_rare_wins
from rlvr_limit.settings import Grading
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.prepared import Task
from rlvr_limit.study.verdicts import counted, references
from rlvr_limit.types import Problem, Status, UserError, Verdict
from tests.support.records_rows import rows_of, sample, verdict, write

N = 21
"""The fewest samples in which a problem can be solved, but rarely."""


def problem(name="p", answer="4"):
    return Problem(name, f"What is {name}?", "", (), answer)


def grade(given, text):
    return Verdict(text == given.answer, Status.GRADED, text)


def study(root, version="new", answer="p 0"):
    return SimpleNamespace(
        imported=None,
        root=root,
        problems=(problem("p", answer), problem("q", "q 1")),
        evaluated=[EvaluatedArm("base", "Base", "base", "base")],
        task=Task(grade, version, inline=True),
        settings=SimpleNamespace(grading=Grading()),
        hosts=Hosts(),
        notice=False,
    )


@pytest.fixture
def run_folder(tmp_path):
    """N samples of two problems; an older grader took everything for right, and has not seen the last one."""
    records.open_run(tmp_path, {}, {})
    drawn = [(name, i) for name in "pq" for i in range(N)]
    write(tmp_path, *(sample(name, i) for name, i in drawn))
    old = study(tmp_path, "old")
    against = references(old, old.task)
    given = [verdict(name, i, grader="old", against=against[name]) for name, i in drawn[:-1]]
    write(tmp_path, *given, table="verdicts")
    return tmp_path


def test_old_verdicts_are_not_replaced_unasked(run_folder):
    with pytest.raises(UserError, match="verdicts by old, this version grades as new: --config.job=grade"):
        grade_missing(study(run_folder))
    assert len(rows_of(run_folder, "verdicts")) == 2 * N - 1


def test_grading_again_keeps_both_versions_side_by_side(run_folder):
    grade_missing(study(run_folder), again=True)
    rows = rows_of(run_folder, "verdicts")
    assert sum(row["grader"] == "old" and row["correct"] for row in rows) == 2 * N - 1
    new = {(row["problem_id"], row["index"]): row["correct"] for row in rows if row["grader"] == "new"}
    assert new == {(name, i): (name, i) in (("p", 0), ("q", 1)) for name in "pq" for i in range(N)}
    grade_missing(study(run_folder))
    assert rows_of(run_folder, "verdicts") == rows


def test_what_the_older_grader_left_out_is_graded_by_it_without_asking(run_folder):
    grade_missing(study(run_folder, "old"))
    assert len(rows_of(run_folder, "verdicts")) == 2 * N


def test_a_verdict_belongs_to_its_reference_and_is_given_again_when_that_is_corrected(tmp_path):
    """Unasked, unlike another version's. Page and review count the same changes; a reference put back needs none."""
    records.open_run(tmp_path, {}, {})
    write(tmp_path, *(sample(name, i) for name in "pq" for i in range(N)))
    grade_missing(study(tmp_path))
    corrected = study(tmp_path, answer="p 3")
    grade_missing(corrected)
    now = counted(corrected, "base", ["problem_id", "index", "correct"]).to_pylist()
    assert [(row["problem_id"], row["index"]) for row in now if row["correct"]] == [("p", 3), ("q", 1)]
    assert len(now) == 2 * N and len(rows_of(tmp_path, "verdicts")) == 3 * N
    said = "\n".join(write_review(corrected))
    assert "new: 42 verdicts, 2 right, 40 wrong" in said
    assert "new, on a reference or under a limit that is past: 21 verdicts, 1 right, 20 wrong" in said
    assert "changed to new: 1 right to wrong, 1 wrong to right" in said
    with (tmp_path / "review" / "changes.csv").open(newline="") as file:
        rows = [(row["given_against"], row["index"], row["was"], row["is"]) for row in csv.DictReader(file)]
    assert rows == [("another reference", "0", "right", "wrong"), ("another reference", "3", "wrong", "right")]
    (note,) = judged_again(corrected, corrected.evaluated, "pq")
    assert note.startswith("Base: 21 samples were judged again") and "2 verdicts changed" in note
    assert not judged_again(corrected, corrected.evaluated, "q")
    before = rows_of(tmp_path, "verdicts")
    grade_missing(study(tmp_path))
    assert rows_of(tmp_path, "verdicts") == before
    hurried = study(tmp_path)
    hurried.settings = SimpleNamespace(grading=Grading(seconds=1.0))
    grade_missing(hurried)
    assert len(rows_of(tmp_path, "verdicts")) == len(before) + 2 * N


def test_the_review_tells_what_changed_and_keeps_judgments(run_folder):
    given = study(run_folder)
    grade_missing(given, again=True)
    said = "\n".join(write_review(given))
    assert "old: 41 verdicts, 41 right" in said and "new: 42 verdicts, 2 right, 40 wrong" in said
    assert "changed to new: 39 right to wrong" in said
    assert "2 problems of all arms, 2 samples" in said and "agrees" not in said

    path = run_folder / "review" / "rare_wins.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["problem_id"], row["chain"], row["wins"]) for row in rows] == [("p", "p 0", "1"), ("q", "q 1", "1")]
    rows[1][JUDGED] = "Wrong"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    write_review(given)
    assert judgments(path) == {("base", "q", 1): "wrong"}
    path.write_text(path.read_text().replace("wrong", "perhaps"))
    with pytest.raises(UserError, match=r"rare_wins.csv:3: chain_is: 'perhaps' is not right"):
        write_review(given)


def test_second_opinions_stand_beside_the_verdicts_and_count_nowhere(run_folder):
    """The second grader takes every sample of p for right; it is asked once, and no version of ours."""
    second = NamedGrader(lambda given, text: Verdict(text[0] == "p" == given.id, Status.GRADED, text), "authors-9")
    given = study(run_folder)
    given.task = dataclasses.replace(given.task, second=second)
    give_second_opinions(given)
    with pytest.raises(UserError, match="verdicts by old, this version grades as new"):
        grade_missing(given)
    grade_missing(given, again=True)
    rows = rows_of(run_folder, "verdicts")
    assert sum(row["correct"] for row in rows if row["grader"] == "authors-9") == N
    give_second_opinions(given)
    assert rows_of(run_folder, "verdicts") == rows
    said = "\n".join(write_review(given))
    assert (
        f": authors-9 agrees with new on {100 * (1 + N - 1) / (2 * N):.2f} % of 42 samples; right by both 1, " in said
    )
    assert "by new only 1, by authors-9 only 20" in said and "changed to new: 39 right to wrong" in said
    with (run_folder / "review" / "disagreements.csv").open(newline="") as file:
        listed = list(csv.DictReader(file))
    assert [row["right_by"] for row in listed] == 20 * ["second"] + ["grader"]
    by_ours = counted(given, "base", ["problem_id", "index", "correct"])
    opinion = second_opinion(given, "base", by_ours)
    assert (opinion.both, opinion.only_first, opinion.only_second, opinion.neither) == (1, 1, 20, 20)
    assert (opinion.pass_1, opinion.agreement) == (0.5, 0.5)
    # Without a verdict on one sample there is no opinion on the arm.
    given.task = dataclasses.replace(given.task, second=NamedGrader(second.grade, "authors-10"))
    assert second_opinion(given, "base", by_ours) is None


def test_every_second_grader_is_asked_and_disagreements_are_told_before_agreement(run_folder):
    third = NamedGrader(lambda given, text: Verdict(text == "q 2", Status.GRADED, text), "math_verify-1")
    second = NamedGrader(lambda given, text: Verdict(text[0] == "p", Status.GRADED, text), "authors-9", second=third)
    given = study(run_folder)
    given.task = dataclasses.replace(given.task, second=second)
    grade_missing(given, again=True)
    give_second_opinions(given)
    assert {row["grader"] for row in rows_of(run_folder, "verdicts")} == {"old", "new", "authors-9"}
    give_second_opinions(given, all_of_them=True)
    said = write_review(given)
    assert said[0].startswith("answers on which they differ: 24 (")
    assert said[1] == "  right by authors-9 only: 'p 1' for 'p 0' (p, 1 samples)" and "'p " in said[5]
    assert said[6] == "  right by math_verify-1 only: 'q 2' for 'q 1' (q, 1 samples)"
    assert [line.split()[1] for line in said[9:11]] == ["authors-9", "math_verify-1"] and "92.86 %" in said[10]
    assert not any("not installed" in line for line in said)
    given.task = dataclasses.replace(given.task, second=dataclasses.replace(second, second=None))
    assert "math_verify: not installed (pip install 'rlvr_limit[math-verify]'), so it was not asked" in write_review(
        given
    )


def test_changes_are_those_of_correctness_and_status():
    others = [*(verdict(index=i, grader="old") for i in range(3)), verdict(index=1, grader="authors-9")]
    now = [verdict(index=0, grader="new", extracted="4.0"), verdict(index=1, grader="new", correct=False)]
    now += [verdict(index=2, grader="new", correct=False, status="timeout")]
    assert [(row["index"], row["was"], row["is"]) for row in changes(now, others)] == [
        (1, "right", "wrong"),
        (2, "right", "timeout"),
    ]


def test_disagreements_name_distinct_answers_and_put_those_that_the_second_takes_for_right_first():
    problems = {"m/p": problem("m/p", answer="1/2"), "n/q": problem("n/q", answer="3")}
    said = [("m/p", "2/4", True, "2/4", True)] + 3 * [("m/p", "0.49", False, "0.49", False)]
    said += 2 * [("m/p", "50", False, "50", True)] + 3 * [("m/p", "one half", True, "", False)]
    said += [("n/q", "", False, "3", True), ("n/q", "3", True, "3", True)]
    ours = [verdict(name, i, correct=right, extracted=text) for i, (name, text, right, *_) in enumerate(said)]
    theirs = [verdict(name, i, correct=right, extracted=text) for i, (name, *_, text, right) in enumerate(said)]
    counts, found = disagreements([*ours, verdict("n/q", 99)], theirs, problems)
    assert counts == {
        ("m", True, True): 1, ("m", False, False): 3, ("m", False, True): 2, ("m", True, False): 3,
        ("n", False, True): 1, ("n", True, True): 1,
    }  # fmt: skip
    assert [(row["extracted"], row["extracted_by_second"], row["right_by"], row["samples"]) for row in found] == [
        ("50", "50", "second", 2),
        ("", "3", "second", 1),
        ("one half", "", "grader", 3),
    ]


def test_rare_wins_are_all_right_samples_of_problems_solved_in_less_than_five_percent_of_samples():
    rows = [verdict(name, i, correct=i < wins) for name, wins in (("p", 6), ("q", 7)) for i in range(140)]
    problems = {name: problem(name) for name in "pq"}
    found = rare_wins(rows, problems, {("base", "q", 2): "right"})
    assert [(row["problem_id"], row["index"]) for row in found] == [*(("p", i) for i in range(6)), ("q", 2)]
    assert {(row["wins"], row["samples"]) for row in found if row["problem_id"] == "p"} == {(6, 140)}


def test_a_rare_win_counts_by_its_best_chain():
    n, c = np.full(6, 128), np.array([0, 1, 2, 3, 6, 7])
    right, wrong = np.array([0, 0, 1, 0, 0, 2]), np.array([0, 1, 1, 2, 0, 0])
    # Of four problems solved 1 to 6 times in 128: one by a right chain, one by a wrong one alone, two not known.
    assert count_rare_wins(n, c, right, wrong) == (4, 1, 1)
    assert count_rare_wins([20], [1], [1], [0]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("reference", "answer", "same"),
    [
        (r"\frac{1}{2}", "0.5", True),
        (r"\frac12", r"\dfrac{1}{2}", True),
        (r"\frac{1}{2}", "1/2", True),
        (r"\frac1{72}", r"\frac{1}{72}", True),
        (r"90^\circ", "90", True),
        (r"\$5", "5", True),
        (r"5\text{ cm}", "5", True),
        ("k = 5", "5", True),
        (r"\sqrt3", r"\sqrt{3}", True),
        (".5", "0.5", True),
        (r"\left(1,2\right)", "(1, 2)", True),
        ("10,000", "10000", False),
        ("abc=5", "5", False),
        ("0.25", r"\frac14", False),
        ("1,2", "2,1", False),
    ],
)
def test_strict_rules_compare_normal_forms_and_know_no_algebra(reference, answer, same):
    assert (string_rules.normal_form(reference) == string_rules.normal_form(answer)) is same


@pytest.mark.parametrize("n", [21, 100, 128, 140, 1024])
def test_rarely_right_means_at_times_but_in_less_than_a_twentieth(n):
    # 0.05 * 140 is above 7 in floating point.
    expected = [0 < c and Fraction(c, n) < Fraction(1, 20) for c in range(n + 1)]
    assert rarely_right([n] * (n + 1), range(n + 1)).tolist() == expected and sum(expected) == (n - 1) // 20


def test_marginal_rates_are_frequencies_among_answers_to_other_problems():
    rng = np.random.default_rng(0)
    accepted, problem_R = [{"a"}, {"b", "d"}, ["c", "c"], {""}, ()], rng.integers(0, 5, 200).tolist()
    answer_R = rng.choice(["a", "b", "c", "d", ""], 200).tolist()
    slow = [
        np.mean([a in right and a != "" for p, a in zip(problem_R, answer_R, strict=True) if p != i])
        for i, right in enumerate(accepted)
    ]
    np.testing.assert_allclose(marginal_rates(accepted, problem_R, answer_R), slow, rtol=1e-12)
    assert marginal_rates([{"a"}], [0, 0], ["a", "a"]).tolist() == [0]
    with pytest.raises(UserError, match="none of the 1"):
        marginal_rates([{"a"}], [1], ["a"])


def test_chain_bounds_enclose_every_way_of_judging_the_rest():
    n, c, right, wrong = np.array([8, 8, 8]), np.array([5, 2, 0]), np.array([1, 0, 0]), np.array([2, 2, 0])
    low, high = chain_bounds(n, c, right, wrong)
    for extra in range(3):
        between = pass_curve(n, right + np.array([extra, 0, 0]))
        assert (low <= between).all() and (between <= high).all()
    np.testing.assert_array_equal(low, pass_curve(n, [1, 0, 0]))
    np.testing.assert_array_equal(high, pass_curve(n, [3, 0, 0]))
    with pytest.raises(UserError, match="problem 1"):
        chain_bounds(n, c, right, wrong + 1)
