"""python -m rlvr_limit.grading math: a file of answers in, the same lines with verdicts out; graders by name."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlvr_limit.grading import exact, math_command
from rlvr_limit.grading.__main__ import main
from rlvr_limit.grading.math import grade as mathematics
from rlvr_limit.grading.math.extract import as_response
from rlvr_limit.grading.named import grader_named
from rlvr_limit.types import Problem, Status, UserError, Verdict

ROOT = Path(__file__).resolve().parents[2]
GOOD = '{"gold": "1", "answer": "1"}'


def write(tmp_path, *lines):
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def command(cases, out):
    return subprocess.run(
        [sys.executable, "-m", "rlvr_limit.grading", "math", "--input", cases, "--output", out],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


def test_every_line_comes_back_in_order_with_its_verdict(tmp_path):
    cases = [
        ({"gold": r"\frac{1}{2}", "answer": r"Let us see. It is \boxed{0.5}.", "name": "first"}, True, "graded", "0.5"),
        ({"gold": r"\frac{1}{2}", "answer": "0.5"}, True, "graded", "0.5"),
        ({"gold": "18", "answer": "2 * 9\n#### 18"}, True, "graded", "18"),
        ({"gold": "18", "answer": "so\nAnswer: $17$"}, False, "graded", "$17$"),
        ({"gold": 18, "answer": 18}, True, "graded", "18"),
        ({"gold": ["1", "-2"], "answer": "-2 and 1"}, True, "graded", "-2 and 1"),
        ({"gold": "we get 900 + 100\n#### 1,000", "answer": "1000"}, True, "graded", "1000"),
        ({"gold": "18", "answer": ""}, False, "no_answer", ""),
        ({"gold": "18", "answer": "I added the eggs.\nThen I sold them."}, False, "no_answer", ""),
        ({"gold": "18", "answer": "9^{9^{9^9}}"}, False, "error", "9^{9^{9^9}}"),
        ({"gold": "是", "answer": "否 \ud800"}, False, "graded", "否 \ud800"),
    ]
    out = tmp_path / "verdicts.jsonl"
    done = command(write(tmp_path, *(case for case, *_ in cases)), out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{mathematics.VERSION}: 11 verdicts, 6 correct (")
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [(row["correct"], row["status"], row["extracted"]) for row in lines] == [case[1:] for case in cases]
    assert [{name: row[name] for name in case} for row, (case, *_) in zip(lines, cases, strict=True)] == [
        case for case, *_ in cases
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{broken", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1, 2]", "a JSON list, not an object"),
        ('{"answer": "1"}', "'gold' is missing; there are answer"),
        ('{"gold": "1"}', "'answer' is missing"),
        ('{"gold": " ", "answer": "1"}', "'gold': ' ' is not a text"),
        ('{"gold": [], "answer": "1"}', "'gold': [] is not"),
        ('{"gold": ["1", null], "answer": "1"}', "'gold': ['1', None] is not"),
        ('{"gold": "1", "answer": null}', "'answer' is missing"),
        ('{"gold": "1", "answer": ["1"]}', "'answer': ['1'] is not"),
    ],
)
def test_a_malformed_line_is_named_by_number_and_nothing_is_written(tmp_path, capsys, line, said):
    out = tmp_path / "out.jsonl"
    arguments = ["math", "--input", str(write(tmp_path, GOOD, "", line, GOOD)), "--output", str(out)]
    assert main(["grading", *arguments]) == 2
    error = capsys.readouterr().err
    assert "cases.jsonl:3: " in error and said in error and error.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("argv", [[], ["maths"], ["math", "--input", "nowhere.jsonl", "--output", "x"]])
def test_what_is_asked_wrongly_is_said_in_one_line(capsys, argv):
    assert main(["grading", *argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1


def test_the_command_does_without_jax():
    code = f"import sys, {math_command.__name__}; print([m for m in sys.modules if m.startswith(('jax', 'flax'))])"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize(
    "bare", ["5", "x = 5", r"\text{north}", "Softball, Kickball, Picnic", "{{{5", "a\0b", "\\[\n5\n\\]"]
)
def test_a_bare_answer_is_taken_as_it_stands(bare):
    assert mathematics.extract(as_response(bare)).text == bare


@pytest.mark.parametrize(
    "whole",
    [r"so \boxed{5}", "a\nAnswer: 5", "<answer>5</answer>", "#### 5", "", "a\nb", "so " * 40, "\\[\n5\n\\]\n\\[6\\]"],
)
def test_a_whole_response_is_left_as_it_is(whole):
    assert as_response(whole) == whole


def test_graders_are_found_by_name():
    assert grader_named("math").grade is mathematics.grade and grader_named("math").version == mathematics.VERSION
    assert grader_named("exact").version == exact.VERSION
    own = grader_named("rlvr_limit.grading.exact:grade")
    assert own.grade is exact.grade and own.version.startswith("rlvr_limit.grading.exact:grade-")
    for wrong in ("maths", "nowhere.to.be.found:grade", "rlvr_limit.grading.exact:mark", "rlvr_limit.grading.exact:"):
        with pytest.raises(UserError, match="grader"):
            grader_named(wrong)


def test_exact_verdicts_leave_case_and_spaces_aside():
    asked = Problem("p", "", "", (), ("New  York", "NYC"))
    assert exact.grade(asked, r"\boxed{new york}") == Verdict(True, Status.GRADED, "new york")
    assert exact.grade(asked, "Answer: nyc").correct and not exact.grade(asked, "Answer: york").correct
    assert exact.grade(asked, "New York").status is Status.NO_ANSWER
