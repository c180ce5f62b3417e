"""The mathematics verifier against a table of verdicts reasoned by hand, and against fractions.Fraction."""

import time
from fractions import Fraction
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_limit.grading.math.equivalence import equivalent
from rlvr_limit.grading.math.expression import UndefinedMath
from rlvr_limit.grading.math.extract import extract, last_box
from rlvr_limit.grading.math.grade import LONGEST_ANSWER, grade, shorten
from rlvr_limit.grading.math.parse import parse
from rlvr_limit.types import Problem, Status, Verdict
from tests.benchmarks.math_rewriting import CHANGE, KEEP

BOXED, TAGGED, LINED = r"put your answer within \boxed{}.", "<answer> answer here </answer>", 'after "Answer:".'


PIECES = (
    r"\frac {1} {2}", r"\frac", r"\sqrt", "{", "}", "(", ")", r"\{", r"\}", "[", "]", "x", "2", "3.5", ",", "=", "<",
    r"\le", r"\cup", r"\pm", r"\text{ cm}", r"\text{or}", r"^\circ", "^", "_", "-", "+", "!", "|", r"\infty", r"\%",
    r"\in", r"\ne", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}", "&", r"\sum_{k=1}^{3} k", r"\log",
    r"\overline", ":", ";", r"\setminus", r"\mathbb{R}", r"\emptyset", r"\lim_{x\to 0}", r"\int_0^1 x dx", r"\binom",
    "C", "e", "i", "0", "0.1\\overline{3}",
)  # fmt: skip


def read_table():
    """(reference, answer, whether it is right) of every answer in math_verdicts.txt."""
    reference = None
    for line in (Path(__file__).parent / "math_verdicts.txt").read_text(encoding="utf-8").splitlines():
        sign, _, text = line.partition(" ")
        if sign == "=":
            reference = text
        elif sign in ("+", "-"):
            yield reference, text, sign == "+"


TABLE = list(read_table())


def problem(answer, prompt="", question=""):
    return Problem("p", question, prompt, (), answer)


def boxed(answer):
    return rf"So the final answer is $\boxed{{{answer}}}$."


def test_the_table_is_large():
    assert len(TABLE) >= 150


@pytest.mark.parametrize(("reference", "answer", "right"), TABLE)
def test_verdict_is_the_one_reasoned_by_hand(reference, answer, right):
    verdict = grade(problem(reference), boxed(answer))
    assert verdict.correct is right, verdict
    assert (verdict.status, verdict.extracted) == (Status.GRADED, answer.strip())


def test_equivalence_is_symmetric():
    for reference, answer, right in TABLE:
        a, b = parse(reference), parse(answer)
        try:
            assert equivalent(a, b) == equivalent(b, a), (reference, answer)
        except UndefinedMath:
            assert not right


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"First \boxed{3}, no: \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\{1, \{2\}\}} and then text }", r"\{1, \{2\}\}"),
        (r"\boxed {7}", "7"),
        (r"\fbox{7}", "7"),
        (r"x=\boxed{1} and y=\boxed{2}.", "1, 2"),
        (r"\boxed{1} is not it. Rather \boxed{2}.", "2"),
        (r"\boxed{x = \boxed{5}}", "5"),
        (r"\boxed{\[ \boxed{1, 2} \]}", "1, 2"),
        (r"\boxed{-(\boxed{5})}", "-((5))"),
        (r"\boxed{\boxed{5}, 7}", "(5), 7"),
        (r"\boxed{4} and then \boxed{5 + ", "4"),
        ("<think> \\boxed{1} </think> <answer> 12 </answer>", "1"),
        ("<answer>3</answer> ... <answer>\n$\\boxed{4}$ </answer>", "4"),
        ("so\nAnswer: $\\frac{2}{3}$", r"$\frac{2}{3}$"),
        ("**Final Answer:** 12\n", "12"),
        ("Answer: The answer is $7$.", "$7$."),
        ("Answer: 3\nAnswer: 4\nmore text", "4"),
        ("Answer: 2^n d (2a + nd)", "2^n d (2a + nd)"),
        ("Answer: 12 (as 3*4 = 12)", "12"),
        ("9 - 4 = 5\n#### 5", "5"),
        ("Answer: \\(\\boxed{6}\\) ok", "6"),
    ],
)
def test_last_answer_is_found(text, found):
    assert extract(text).text == found


@pytest.mark.parametrize(
    ("prompt", "found"), [("", "1"), (BOXED, "1"), (TAGGED, "2"), (LINED, "3"), ("#### then the number", "4")]
)
def test_form_that_the_prompt_asks_for_goes_first(prompt, found):
    text = "\\boxed{1}\n<answer>2</answer>\nAnswer: 3\n#### 4"
    assert extract(text, prompt).text == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("I think it is 5", "no \\boxed{}"),
        ("", "no \\boxed{}"),
        (r"the answer is \boxed{5 + 3", "never closed"),
        (r"the answer is \boxed{}", "empty"),
        ("<answer> 5", "never closed"),
        ("Answer:\n\n", "no \\boxed{}"),
        ("\\boxed" * 3000 + "{" * 3000, "never closed"),
        ("\\boxed{" * 9000, "never closed"),
        ("<answer>" * 9000, "never closed"),
    ],
)
def test_no_answer_is_not_a_wrong_answer(text, why):
    verdict = grade(problem("5"), text)
    assert (verdict.correct, verdict.status, verdict.extracted) == (False, Status.NO_ANSWER, "")
    assert why in verdict.detail


@pytest.mark.parametrize(
    "answer",
    [
        r"9^{9^{9^{9}}}",
        r"2^{100000000}",
        r"(1000000!)!",
        "(" * 60 + "1" + ")" * 60,
        r"\frac" * 150 + "12",
        "1+" * 600 + "1",
        r"1\frac{9}{5}",
        "2^3^2",
        "n!!",
        r"\frac{1}{2",
        "x\0y",
        r"\unknown{3}",
        "{" * 30 + "3",
        "3}",
        "1e999999",
        "1 2",
        "9" * (LONGEST_ANSWER + 1),
    ],
)
def test_what_cannot_be_read_safely_is_an_error_and_takes_no_time(answer):
    started = time.process_time()
    verdict = grade(problem(r"\frac{1}{2}"), f"<answer>{answer}</answer>")
    assert (verdict.correct, verdict.status) == (False, Status.ERROR)
    assert verdict.detail
    assert time.process_time() - started < 1


def test_extraction_takes_no_time_whatever_stands_between_boxes():
    started = time.process_time()
    assert extract(r"\boxed{1}" + "$ , " * 20_000 + r"\boxed{2}").text == "2"
    assert extract(r"\boxed{1}, " * 5_000 + r"\boxed{2" * 5_000).text
    assert extract("Answer:" + " " * 50_000 + "\n" + "Answer: " * 9_000).text
    assert time.process_time() - started < 2


@given(st.text(alphabet="\\\\{}[]()^_!|$%&~#.,:=<>0123456789abxe \n\0±°π", max_size=40))
@settings(max_examples=300)
def test_no_text_makes_the_grader_raise(text):
    for form in (rf"\boxed{{{text}}}", f"<answer>{text}</answer>", text):
        verdict = grade(problem(r"\{1, \frac{x}{2}\}"), form)
        assert isinstance(verdict, Verdict) and isinstance(verdict.status, Status)


@given(st.lists(st.sampled_from(PIECES), max_size=12))
@settings(max_examples=300)
def test_no_mathematics_makes_the_grader_raise(pieces):
    verdict = grade(problem(r"(1, x^2)"), f"<answer>{' '.join(pieces)}</answer>")
    assert isinstance(verdict.status, Status)


# References as benchmarks write them, one of each kind that the rewritings of tests/benchmarks/math_rewriting.py know.
SAMPLE = (
    "7", "-3", "12,500", "48000", "0.75", r"\frac{3}{8}", r"-\dfrac{5}{6}", r"2\sqrt{7}", r"\frac{\sqrt{3}}{2}",
    r"x^3 - 2x + 5", r"4 - 7i", r"\frac{\pi}{6}", "(2, -5)", r"\left( \frac{1}{2}, 4 \right)", r"[-1, 6)",
    r"(-\infty, 3] \cup (5, \infty)", r"1, 2, \frac{5}{2}", r"\{3, 8\}", r"45^\circ", r"30\text{ cm}",
    r"9 \text{ hours}", r"\$18.50", r"35\%", r"\text{(B)}", r"\text{north}", r"3 \pm \sqrt{2}", "243_5",
    r"y = 3x - 4", r"k \leq 4",
)  # fmt: skip


@pytest.mark.parametrize("kind", KEEP)
def test_a_rewriting_that_keeps_the_value_is_accepted(kind):
    rewritten = [(text, KEEP[kind](text, Random(f"{kind}/{text}"))) for text in SAMPLE]
    assert any(other for _, other in rewritten)
    assert [pair for pair in rewritten if pair[1] and not grade(problem(pair[0]), boxed(pair[1])).correct] == []


@pytest.mark.parametrize("kind", CHANGE)
def test_a_rewriting_that_changes_the_value_is_not_accepted(kind):
    rewritten = [(text, CHANGE[kind](text, Random(f"{kind}/{text}"))) for text in SAMPLE]
    assert any(other for _, other in rewritten)
    assert [pair for pair in rewritten if pair[1] and grade(problem(pair[0]), boxed(pair[1])).correct] == []


def test_references_of_one_benchmark_do_not_pass_for_each_other():
    passed = [(a, b) for a in SAMPLE for b in SAMPLE if a != b and grade(problem(a), boxed(b)).correct]
    assert passed == []
    assert all(grade(problem(text), boxed(text)).correct for text in SAMPLE)


def test_reference_that_cannot_be_read_still_equals_itself():
    assert grade(problem(r"n!!"), boxed("n!!")) == Verdict(True, Status.GRADED, "n!!")
    assert grade(problem(r"n!!"), boxed("n!")).status is Status.ERROR


def test_several_references_as_they_stand_are_right_even_where_they_are_words_and_formulas():
    parts = ("f(x)=ax+b", "where b is an integer", r"and \mho(a)=0")
    assert grade(problem(parts), boxed(", ".join(parts))).correct
    assert not grade(problem(parts), boxed(", ".join(parts[:2]))).correct


def test_a_sentence_in_a_box_is_its_own_reference_and_says_what_it_says():
    said = r"The length of the altitude \(AB\) is \(24\)."
    assert grade(problem(said), rf"\boxed{{{said}}}").correct
    assert grade(problem("24"), rf"\boxed{{{said}}}").correct
    assert not grade(problem("25"), rf"\boxed{{{said}}}").correct


def test_a_reference_may_be_a_sentence_that_says_one_thing():
    assert grade(problem(r"The smallest value of \(a_{10}\) is \(248\)."), boxed("248")).correct
    assert not grade(problem("Ann is 5 and Bob is 7"), boxed("7")).correct


def test_percent_sign_is_accepted_only_where_the_question_asks_for_a_percentage():
    asked = problem("25", question="What percent of 8 is 2?")
    assert grade(asked, boxed(r"25\%")).correct
    assert not grade(asked, boxed(r"0.25")).correct
    assert not grade(problem("25", question="What is 5 squared?"), boxed(r"25\%")).correct


def test_a_list_of_references_asks_for_all_of_them():
    both = problem(("-2", r"\frac{1}{2}"))
    assert grade(both, boxed(r"0.5, -2")).correct
    assert not grade(both, boxed("-2")).correct
    assert grade(problem(["221", "8"]), boxed("8,221")).correct
    assert grade(problem(["100", "200"]), boxed("100,200")).correct
    assert not grade(problem(["1", "2"]), boxed("(1,2)")).correct


@pytest.mark.parametrize("factor", [100, Fraction(1, 100), 10, Fraction(1, 10), -1])
@pytest.mark.parametrize("number", ["7", "0.5", r"\frac{3}{8}", r"\sqrt{2}", r"10\%", "2x"])
def test_a_rescaled_answer_is_never_accepted(number, factor):
    bare = number.removesuffix(r"\%")
    assert not grade(
        problem(number), boxed(rf"\frac{{{Fraction(factor).numerator}}}{{{Fraction(factor).denominator}}} \cdot {bare}")
    ).correct


RATIONALS = st.fractions(min_value=-1000, max_value=1000, max_denominator=1000)


def spellings(value):
    above, below, sign = abs(value.numerator), value.denominator, "-" * (value < 0)
    yield rf"{sign}\frac{{{above}}}{{{below}}}"
    yield rf"\dfrac{{{sign}{above * 7}}}{{{below * 7}}}"
    yield f"{sign}{above}/{below}"
    yield rf"x = {sign}\frac{{{above}}}{{{below}}} + 0"
    whole, rest = divmod(above, below)
    if whole and rest:
        yield rf"{sign}{whole}\frac{{{rest}}}{{{below}}}"
    if 1000 % below == 0:
        yield f"{sign}{above * 1000 // below // 1000}.{above * 1000 // below % 1000:03d}"


@given(RATIONALS, RATIONALS, st.data())
def test_rationals_are_equal_exactly_when_their_fractions_are(a, b, data):
    first, second = (data.draw(st.sampled_from(list(spellings(value)))) for value in (a, b))
    verdict = grade(problem(first), boxed(second))
    assert (verdict.status, verdict.correct) == (Status.GRADED, a == b)
    assert grade(problem(first), boxed(data.draw(st.sampled_from(list(spellings(a)))))).correct


@settings(max_examples=30)
@given(RATIONALS, st.integers(2, 30), st.integers(1, 30))
def test_sums_of_a_root_are_equal_exactly_when_their_parts_are(value, radicand, factor):
    text = rf"\frac{{{value.numerator}}}{{{value.denominator}}} + {factor}\sqrt{{{radicand}}}"
    assert grade(
        problem(text), boxed(rf"\sqrt{{{radicand * factor**2}}} + {value.numerator}/{value.denominator}")
    ).correct
    assert not grade(problem(text), boxed(text + r" + 10^{-60}")).correct


def test_short_form_is_judged_as_the_response_it_stands_for():
    for reference, answer, _ in TABLE[::3]:
        given, response = problem(reference, BOXED), "much text\n" * 50 + boxed(answer)
        short = shorten(given, response)
        if isinstance(short, str):
            assert len(short) < 200
            assert grade(given, short) == grade(given, response)
        else:
            assert short == grade(given, response)


def test_last_box_of_a_solution_is_the_reference():
    assert last_box(r"so $s = \boxed{1.6} \mathrm{~cm}$") == "1.6"
    assert last_box("no box") == ""
