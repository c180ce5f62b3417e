"""The authors' rules, by hand: what they take for the answer, what for equal, and where our grader says otherwise."""

import importlib.util

import pytest

from rlvr_limit.grading.math import authors
from rlvr_limit.grading.math.grade import grade
from rlvr_limit.grading.named import grader_named, is_second_opinion, opinions
from rlvr_limit.grading.pool.pool import map_verdicts
from rlvr_limit.types import Problem, Status

CASES = (
    # reference, response, right by their rules, right by ours
    ("42", r"So \boxed{42}.", True, True),
    ("42", r"So \boxed{41}.", False, False),
    # Extraction: nothing is boxed.
    ("42", "We find 40 + 2 = 42", True, False),
    ("42", "We get 42, as 40 is even.", False, False),
    ("1234", "It comes to 1,234 in all", True, False),
    ("42", "The answer is 42.", True, False),
    ("42", "The answer is 42, not 41.", False, False),
    ("x+1", "Therefore the final answer is $x+1$. I hope it is correct.", True, False),
    ("7", "Answer: 7", True, True),
    ("7", "Answer: 7\n\nThis took 3 steps.", False, True),
    ("7", "I cannot tell.", False, False),
    # The last box counts, closed or not; several are no list.
    ("7", r"\boxed{7} and then \boxed{8}", False, False),
    ("1,2", r"\boxed{1} and \boxed{2}", False, True),
    ("7", r"so it is \boxed{7", True, False),
    ("7", r"so it is \boxed 7", True, True),
    # Numbers within 1e-4, and hundredths and hundredfolds.
    ("3.1416", r"\boxed{3.14159}", True, False),
    ("3.1416", r"\boxed{3.14}", False, False),
    ("50", r"\boxed{0.5}", True, False),
    ("0.5", r"\boxed{50\%}", True, False),
    ("50", r"\boxed{5000}", True, False),
    ("50", r"\boxed{500}", False, False),
    (r"\pi", r"\boxed{3.14159}", True, False),
    # Algebra.
    (r"\frac{1}{2}", r"\boxed{0.5}", True, True),
    (r"\frac12", r"\boxed{\dfrac{2}{4}}", True, True),
    (r"\sqrt2", r"\boxed{2^{1/2}}", True, True),
    ("x^2-1", r"\boxed{(x-1)(x+1)}", True, True),
    ("x^2-1", r"\boxed{(x-1)^2}", False, False),
    ("u^2+v^2=w^2", r"\boxed{w^2=u^2+v^2}", True, True),
    ("y=2x+1", r"\boxed{y-1=2x}", False, True),
    ("y=2x+1", r"\boxed{2y=4x+2}", False, True),
    # A name before =, units, words, brackets.
    ("5", r"\boxed{x=5}", True, True),
    ("5", r"\boxed{n = 5}", True, True),
    ("5", r"\boxed{five}", True, True),
    ("5 cm", r"\boxed{5\text{ kg}}", True, False),
    ("5", r"\boxed{5 apples}", True, True),
    ("(1,2)", r"\boxed{\{1,2\}}", True, False),
    ("(1,2)", r"\boxed{[1,2]}", True, False),
    ("[1,2)", r"\boxed{(1,2]}", True, False),
    ("(1,2)", r"\boxed{(2,1)}", False, False),
    (r"(\frac12,2)", r"\boxed{(0.5,2.0)}", True, True),
    ("1,2", r"\boxed{2,1}", False, True),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\boxed{\begin{bmatrix}1.0\\2\end{bmatrix}}", True, True),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\boxed{\begin{pmatrix}1&2\end{pmatrix}}", False, False),
    # Choices.
    ("B", r"\boxed{\text{(B) }12}", True, True),
    ("B", r"\boxed{A, B}", True, False),
    ("B", r"\boxed{C}", False, False),
)


def problem(reference, name="p"):
    return Problem(name, "", "", (), reference)


@pytest.mark.parametrize(("reference", "response", "theirs", "ours"), CASES)
def test_verdicts_by_their_rules_and_by_ours(reference, response, theirs, ours):
    assert authors.grade(problem(reference), response).correct is theirs
    assert grade(problem(reference), response).correct is ours


def test_there_are_cases_of_all_four_kinds():
    kinds = [(theirs, ours) for *_, theirs, ours in CASES]
    assert all(kinds.count((theirs, ours)) >= 5 for theirs in (True, False) for ours in (True, False))


@pytest.mark.parametrize(("reference", "response", "theirs", "ours"), CASES)
def test_a_shortened_response_is_judged_as_the_whole_one(reference, response, theirs, ours):
    whole, short = authors.grade(problem(reference), response), authors.shorten(problem(reference), response)
    assert (authors.grade(problem(reference), short) if isinstance(short, str) else short) == whole


def test_units_stay_where_the_benchmark_keeps_them():
    for name, right in (("minerva_math/1", False), ("math500/1", True)):
        assert authors.grade(problem("5", name), r"\boxed{5 m}").correct is right


def test_of_several_references_the_first_is_asked_for():
    assert authors.grade(problem(("1", "2")), r"\boxed{1}").correct
    assert not authors.grade(problem(("1", "2")), r"\boxed{2}").correct


def test_no_number_and_no_box_is_no_answer():
    assert authors.grade(problem("7"), "I cannot tell.").status is Status.NO_ANSWER
    assert authors.grade(problem("7"), "").status is Status.NO_ANSWER
    assert authors.grade(problem("7"), "Perhaps 8").status is Status.GRADED


def test_in_the_pool_deep_powers_are_not_right_and_hold_nothing_up():
    hard = rf"\boxed{{{'(' * 30}x+1{')^{999}' * 30}}}"
    asked = [(problem("x+2", "hard"), hard), (problem("42", "easy"), r"\boxed{42}")]
    bad, good = map_verdicts(authors.grade, asked, workers=1, seconds=1.0, shorten=authors.shorten)
    assert good.correct and not bad.correct


def test_math_verify_is_asked_behind_the_authors_where_it_is_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert [second.version for second in opinions(grader_named("math").second)] == [authors.VERSION]


@pytest.mark.parametrize(
    ("reference", "text", "right", "status"),
    [
        (r"\frac12", r"so \boxed{0.5}", True, Status.GRADED),
        (("1", "-2"), r"\boxed{-2, 1}", True, Status.GRADED),
        ("7", r"\boxed{8}", False, Status.GRADED),
        ("7", "I do not know.", False, Status.NO_ANSWER),
    ],
)
def test_math_verify_says_what_the_package_says(reference, text, right, status):
    pytest.importorskip("math_verify")
    authors_grader, third = opinions(grader_named("math").second)
    assert is_second_opinion(third.version) and is_second_opinion(authors_grader.version)
    verdict = third.grade(Problem("m/0", "", "", (), reference), text)
    assert (verdict.correct, verdict.status) == (right, status)
