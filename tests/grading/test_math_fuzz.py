"""Random answers: none ends the command, and verdict(a, b) is verdict(b, a) where both are expressions.

Lists, units, percentages and left sides are none: there the reference says what may be left out.
GRADER_FUZZ_CASES=20000 runs so many cases of either test; hypothesis and the other one derive them from fixed seeds.
"""

import json
import os
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlvr_limit.grading.__main__ import main
from rlvr_limit.grading.math.grade import grade
from rlvr_limit.grading.pool.pool import GradingPool
from rlvr_limit.types import Problem, Status
from tests.benchmarks.math_rewriting import CHANGE, KEEP

CASES = int(os.environ.get("GRADER_FUZZ_CASES", 150))

LEAVES = st.sampled_from(
    [
        "0",
        "1",
        "2",
        "3",
        "7",
        "10",
        "12",
        "-1",
        "-5",
        "0.5",
        "1.25",
        "100",
        "1000",
        r"\frac12",
        r"\frac{3}{4}",
        "x",
        "y",
    ]
    + ["n", "a", r"\pi", "e", "i", r"\sqrt2", r"\infty", r"\theta", "2^{10}", "x_1", "3!", "90^\\circ", r"\ln 2"]
)
UNARY = (
    "-({})", "({})", "({})^2", "({})^{{-1}}", r"\sqrt{{{}}}", r"\sqrt[3]{{{}}}", "|{}|", r"\lfloor {} \rfloor", "2({})",
    r"\lceil {} \rceil", r"\sin({})", r"\cos({})", r"\ln({})", r"\log_2({})", "e^{{{}}}", r"\frac{{{}}}{{2}}",
    "({})!", r"\left({}\right)", r"\tan({})", r"\arcsin({})", "({})^{{x}}", r"\exp({})",
    r"\sum_{{k=1}}^{{3}} ({})", r"\overline{{{}}}", "{}'",
)  # fmt: skip
BINARY = (
    "{}+{}", "{}-{}", "{}-({})", "({})({})", r"{} \cdot {}", r"\frac{{{}}}{{{}}}", "({})/({})", "({})^{{{}}}", "{}{}",
    r"\max({}, {})", r"\binom{{{}}}{{{}}}", r"\gcd({}, {})", r"\min({}, {})", r"{} \bmod {}",
)  # fmt: skip
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(str.format, st.sampled_from(UNARY), inner),
        st.builds(str.format, st.sampled_from(BINARY), inner, inner),
    ),
    max_leaves=5,
)
# The first ones do not change what an expression is.
WRITTEN = st.sampled_from((
    "{}", "{}", "{}+0", r"1\cdot({})", "-(-({}))", r"\frac{{2({})}}{{2}}", "({})^1", "${}$", r"\displaystyle {}",
    "({})+1", "-({})", "2({})", "({})^2", "|{}|", r"\lfloor {} \rfloor", "({})+10^{{-9}}", r"{}^\circ", " {} .",
))  # fmt: skip


@pytest.fixture(scope="module")
def pool():
    with GradingPool(grade, workers=2, seconds=3.0) as graders:
        yield graders


@given(EXPRESSIONS, st.one_of(EXPRESSIONS, st.none()), WRITTEN)
@settings(max_examples=CASES)
@example("10'", r"\frac{1}{\sin(0)}", "{}")  # one cannot be read, the other has no value
@example("0", r"0 \bmod 0", "{}")
@example("1", r"\max(i, 2)", "{}")
@example(r"\min(y, \binom{2^{10}}{\infty\infty})", None, "-({})")  # sympy ends in an AttributeError
@example("xxx-0", None, "{}+0")  # a plain name, and words with a formula
def test_a_verdict_is_the_same_with_reference_and_answer_exchanged(pool, a, other, written):
    b = written.format(a if other is None else other)
    for gold, answer in ((a, b), (b, a)):
        pool.submit(gold, Problem(gold, "", "", (), gold), rf"<answer>{answer}</answer>")
    found = [verdict for _, verdict in pool.finished(wait=True)]
    # Out of time; or sympy's assumptions went round in a circle, which they do by the order of its sets.
    if not any(v.status is Status.TIMEOUT or "RecursionError" in v.detail for v in found):
        assert len({(v.correct, v.status) for v in found}) == 1


GOLDS = (
    "12", "1,000", r"\frac{3}{8}", r"2\sqrt{7}", "x^3 - 2x + 5", "(2, -5)", r"(-\infty, 3] \cup (5, \infty)", "-7",
    "4-7i", r"1, 2, \frac52", r"45^\circ", r"30\text{ cm}", r"\text{(B)}", "243_5", "y = 3x - 4", r"k \leq 4", r"35\%",
    r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\sum_{k=1}^n k", "f(x) = 2x", r"3 \pm \sqrt2",
)  # fmt: skip
PIECES = (
    *r"\frac \sqrt { } ( ) [ ] | \{ \} ^ _ , ; : = < > \le \ne \in \cup \pm + - * / ! % $ & \\ ~ # '".split(),
    *r"\begin{pmatrix} \end{pmatrix} \text{ \sum_{k=1}^{n} \int_0^1 \lim_{x\to0} \lfloor \rfloor \overline".split(),
    *r"\log_ \boxed{ \mathbb{R} \infty \pi e i x y k 0 1 2 12 0.5 cm \circ \% and or for all real".split(),
    *"½ ² √ ∞ π ≤ ， （ ） 答案 是 元 或 ٣ 🎉".split(), " ", "\n", "\0", "\ud800", "\u200b",
)  # fmt: skip
RESPONSES = (r"\boxed{%s}", "Answer: %s", "so it is %s.\n#### %s", "<answer>%s", r"\boxed %s", "$$%s$$") + 3 * ("%s",)


def line(rng: random.Random) -> dict:
    """A reference with itself, another one, a rewriting, a part of either, or signs in any order."""
    gold, noise = rng.choice(GOLDS), "".join(rng.choices(PIECES, k=rng.randint(0, 14)))
    rewrite = rng.choice([*KEEP.values(), *CHANGE.values()])
    answer = rng.choice([gold, rng.choice(GOLDS), noise, rewrite(gold, rng) or gold])
    start, end = answer[: (cut := rng.randint(0, len(answer)))], answer[cut:]
    answer = rng.choice([answer, answer, answer, start + noise + end, start, end, noise + answer, answer * 2])
    answer = rng.choice([rng.choice(RESPONSES).replace("%s", answer)] * 30 + [rng.randint(-99, 99), 1e300, 0.1])
    return {"gold": rng.choice([gold] * 20 + [[gold, "5"], [gold], noise.strip() or gold, -9, 0.5]), "answer": answer}


def test_no_line_ends_the_command_or_is_left_without_a_verdict(tmp_path, capsys):
    rng = random.Random("lines")
    cases = [line(rng) for _ in range(CASES)]
    (tmp_path / "cases").write_text("\n".join(map(json.dumps, cases)), encoding="utf-8")
    assert main(["", "math", "--input", str(tmp_path / "cases"), "--output", str(tmp_path / "verdicts")]) == 0
    rows = [json.loads(text) for text in (tmp_path / "verdicts").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == CASES and f" {CASES} verdicts" in capsys.readouterr().out
    assert {row["status"] for row in rows} <= {"graded", "no_answer", "error"}
    raised = [row for row in rows if row.get("detail", "").partition(":")[0].endswith(("Error", "Exception"))]
    assert raised == []
