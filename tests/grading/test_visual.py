"""MathVista's own rule, and the rule of EasyR1's reward beside it: where they agree, and where they differ."""

import pytest

from rlvr_limit.grading import mathruler, visual
from rlvr_limit.grading.math import grade as mathematics
from rlvr_limit.grading.named import grader_named, is_second_opinion, opinions
from rlvr_limit.types import Problem, Status


def asked(reference, name="mathvista/1"):
    return Problem(name, "", "", (), reference)


def boxed(answer):
    return rf"<think>so</think> \boxed{{{answer}}}"


# (reference, answer, right by MathVista's rule, right by mathruler's)
CASES = [
    ("5", "5", True, True),
    ("5", "5.0", True, True),
    ("5", "5.9", True, False),  # int() cuts
    ("-5", "-5.9", True, False),
    ("5", "4.9", False, False),
    ("1000", "1,000", True, True),
    ("7", r"7 \text{ years}", True, True),
    ("7", "7 years", True, True),
    ("7", "seven", False, False),
    ("5", r"\frac{10}{2}", True, False),  # a whole number must be written as one
    ("1.2", "1.21", True, False),  # round() to the reference's places
    ("1.2", "1.2", True, True),
    ("1.2", "1.25", True, False),  # 1.25 rounds to the even 1.2
    ("1.2", "1.26", False, False),
    ("0.5", r"\frac{1}{2}", True, True),
    ("0.5", r"\frac{2}{4}", True, True),
    ("2.0", "2", True, True),
    ("2.54", "2.55", False, False),  # pid 479: as published, never mended
    ("0.21", "21\\%", False, False),
    ("45", r"45^\circ", True, True),
    ("[2014, 2016]", "[2014,2016]", True, True),
    ("[2014, 2016]", "[2016, 2014]", False, False),
    ("12", "x = 12", True, True),
    ("5", "5 or 6", False, False),
    ("5", "1/0", False, False),
    ("5", "9" * 500, False, False),
]


@pytest.mark.parametrize(("reference", "answer", "by_its_rule", "by_mathruler"), CASES)
def test_both_rules(reference, answer, by_its_rule, by_mathruler):
    assert visual.grade(asked(reference), boxed(answer)).correct == by_its_rule
    assert mathruler.grade(asked(reference), boxed(answer)).correct == by_mathruler


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        (r"2 \sqrt { 221 }", r"2\sqrt{221}", True),
        (r"2\sqrt{221}", r"\sqrt{884}", True),
        (r"\frac{1}{2}", r"\frac{2}{4}", False),  # not reduced
        (r"\frac{1}{2}", "0.5", True),
        (r"2\frac{1}{2}", r"\frac{5}{2}", True),
        ("(3,-4)", "(3, -4)", True),
        ("(3,-4)", "(3,-4]", False),
        ("(3,-4)", "(-4,3)", False),
        ("C", r"\text{C}", True),
        ("c", "C", True),
        ("3.14", r"\pi", False),
        ("10", "10 cm", True),
        ("10", "10 cm^2", True),
        ("10", "10%", True),
        ("1,234", "1234", True),
        ("x^{10}", "x^{5}x^{5}", False),  # powers in braces are never read
    ],
)
def test_mathrulers_rule_on_geometry(reference, answer, right):
    assert mathruler.equal(answer, reference) == right


def test_what_is_no_question_of_mathvista_is_judged_as_mathematics():
    given = asked(r"\frac{1}{2}", "geometry3k/0")
    text = boxed(r"\frac{2}{4}")
    assert visual.grade(given, text) == mathematics.grade(given, text)
    assert visual.grade(given, text).correct and not mathruler.grade(given, text).correct


def test_shorter_responses_are_judged_alike():
    for reference, answer, _, _ in CASES:
        for rule in (visual, mathruler):
            for name in ("mathvista/1", "geometry3k/1"):
                problem, text = asked(reference, name), boxed(answer)
                short = rule.shorten(problem, text)
                verdict = rule.grade(problem, short) if isinstance(short, str) else short
                assert verdict.correct == rule.grade(problem, text).correct


def test_without_a_final_answer_there_is_none():
    assert visual.grade(asked("5"), "I do not see it").status == Status.NO_ANSWER
    assert mathruler.grade(asked("5"), "the answer is 5").status == Status.NO_ANSWER


def test_the_reward_is_nine_tenths_answer_and_one_tenth_form():
    texts = [boxed("5"), r"\boxed{5}", boxed("6"), "5", r"<think>a</think>5 \boxed{}", "before " + boxed("5")]
    assert mathruler.reward(asked("5"), texts) == pytest.approx([1.0, 0.9, 0.1, 0.0, 0.1, 0.9])


def test_the_grader_has_the_other_rule_as_its_second_opinion():
    named = grader_named("visual")
    assert [second.version for second in opinions(named)] == [visual.VERSION, mathruler.VERSION]
    assert is_second_opinion(mathruler.VERSION) and not is_second_opinion(visual.VERSION)
