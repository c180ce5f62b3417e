"""Which answers are one vote: those that the grader holds equal, as far as that takes no algebra."""

import itertools
import time

import pytest

from rlvr_limit import passk
from rlvr_limit.grading.math.grade import grade
from rlvr_limit.grading.math.string_rules import normal_form, vote_form
from rlvr_limit.grading.named import grader_named
from rlvr_limit.types import Problem

CLASSES = (
    ("1,000", "1000", "1000.0", "1{,}000", "10^3", r"1\,000", "x = 1000", r"1000\text{ cm}", r"\$1000"),
    (r"\frac12", "0.5", "1/2", r"\dfrac{1}{2}", ".5", r"2^{-1}", "½"),
    (r"2\sqrt2", r"\sqrt{8}", r"2 \sqrt{2}"),
    (r"\frac{\pi}{4}", r"\pi/4", r"0.25\pi"),
    (r"\{1, 2\}", r"\{2, 1.0\}"),
    ("(1, 2)", r"\left(1.0, 2\right)"),
    ("(2, 1)",),
    ("-7", "\u22127", "-7.0"),
    ("0.785398",),
    ("x^2+1", "x^2 + 1"),
    ("A", r"\text{A}"),
    ("1/0",),
    ("9^{9^{9^{9}}}",),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1.0\\2\end{pmatrix}"),
)


def test_answers_are_one_vote_exactly_where_they_are_of_one_class():
    forms = [{vote_form(text) for text in alike} for alike in CLASSES]
    assert [len(form) for form in forms] == [1] * len(CLASSES)
    assert len(set.union(*forms)) == len(CLASSES)


def test_the_grader_holds_equal_what_is_one_vote_and_nothing_else():
    evaluated = [alike for alike in CLASSES if alike[0] not in ("1/0", "9^{9^{9^{9}}}")]
    for ours, theirs in itertools.product(evaluated, evaluated):
        verdict = grade(Problem("m/0", "", "", (), ours[0]), rf"\boxed{{{theirs[-1]}}}")
        assert verdict.correct == (ours is theirs), (ours[0], theirs[-1])


def test_spellings_of_one_wrong_answer_outvote_the_right_one():
    """Uncertainty shown as zero: 1,000, 1000 and 1000.0 were three votes of one each, and two of 7 had the majority."""
    answers, right = ["1,000", "1000", "1000.0", "7", "7", ""], [False] * 3 + [True] * 2 + [False]
    spelling = grader_named("math").spelling
    votes = passk.count_votes(1, [0] * 6, [spelling(text) for text in answers], right)
    assert votes == [passk.Votes(right=2, wrong=(3,), silent=1)]
    assert passk.maj_at_k(votes, [6])[0, 0] == 0
    # The grader that compares words does not read numbers.
    assert grader_named("exact").spelling("1,000") != grader_named("exact").spelling("1000")


@pytest.mark.parametrize(
    "text",
    [
        "9" * 60,
        "(" * 199,
        "9^{99}" * 9,
        r"((10^{99})^{99})^{99}",
        r"(10^{99})^{99}",
        r"\sqrt" * 30,
        "{" * 5000,
        "1e9999999",
    ]
    + ["1" + ",000" * 40, r"\frac{1}{0}", r"0^{-1}", r"\pi^{\pi}", r"\text{" * 40, "2=2^{9^{9^9}}", r"\le\le", r"\cup"],
)
def test_no_answer_takes_long_or_raises(text):
    start = time.process_time()
    assert isinstance(vote_form(text), str)
    assert time.process_time() - start < 1
    assert vote_form("") == normal_form("") == ""
