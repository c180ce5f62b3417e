"""Programs found in responses as LiveCodeBench and EvalPlus find them, and the limits under which they run there."""

import ast
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_limit.grading.code import evalplus, livecodebench
from rlvr_limit.grading.code import sanitise as sanitising
from rlvr_limit.grading.code.extract import extract
from rlvr_limit.grading.code.grade import check, grade, shorten
from rlvr_limit.grading.code.sanitise import definitions, longest_code, sanitise
from rlvr_limit.types import Problem, Status, UserError
from tests.support.code_rows import livecodebench_row

runs_programs = pytest.mark.skipif(sys.platform != "linux", reason="programs are run on Linux only")


def plus(reference, *inputs):
    return evalplus.EvalPlusTests("HumanEval/0", "f", reference, 0, evalplus.pack(inputs or ([1],), ()))


def right(reference, program):
    return check(plus(reference), program).correct


@runs_programs
def test_annotations_are_evaluated():
    for program in ("def f(x: List[int]): return x", "def f(x): return x\ny: Missing = 1"):
        assert not right("def f(x): return x", program)
        assert right("def f(x): return x", f"from typing import List\nMissing = 0\n{program}")
        assert right("def f(x): return x", f"from __future__ import annotations\n{program}")
    # Inside a function those of variables are not, as ever in Python.
    assert right("def f(x): return x", "def f(x):\n    y: Missing = x\n    return y")


@runs_programs
@pytest.mark.parametrize("function", ["", "add"])
def test_imports_from_the_future_come_too_late_behind_what_livecodebench_puts_before_a_program(function):
    tests = livecodebench.from_row(livecodebench_row(function=function, public=[("1", "2")]), "here").tests
    program = "def add(a: List[int]): return a + 1" if function else "print(int(input()) + 1)"
    assert check(tests, program).correct
    assert "SyntaxError" in check(tests, f"from __future__ import annotations\n{program}").detail


BIG = "9" * 5000


@runs_programs
def test_whole_numbers_of_more_than_4300_digits_are_read_and_written_as_in_livecodebench():
    script = livecodebench.from_row(livecodebench_row(public=[(BIG, "1" + "0" * 5000)]), "here").tests
    assert check(script, "print(int(input()) + 1)").correct
    assert not check(script, "print(int(input()))").correct
    row = livecodebench_row(function="add", public=[(f"{BIG}\n1", "1" + "0" * 5000), (f"-{BIG}\n0", f"-{BIG}")])
    function = livecodebench.from_row(row, "here").tests
    assert check(function, "def add(a, b): return int(str(a)) + b").correct
    assert not check(function, "def add(a, b): return a - b").correct
    with pytest.raises(UserError, match=r"here: no problem.*50,000 digits"):
        livecodebench.from_row(livecodebench_row(function="add", public=[("1" * 50_001, "1")]), "here")


@runs_programs
def test_whole_numbers_keep_pythons_own_limit_as_in_evalplus():
    assert right("def f(x): return 10 ** 4999", "def f(x): return 10 ** 4999")
    assert not right("def f(x): return 5000", "def f(x): return len(str(10 ** 4999))")


OPENED = "Below is a script:\n```python\n"


@pytest.mark.parametrize(
    ("prompt", "response", "program"),
    [
        ("", "First\n```python\na = 1\n```\nbetter:\n```python\na = 2\n```\nDone.", "a = 2"),
        ("", "```python\na = 1\n```\nIt prints\n```\n1\n```\n", "1"),
        ("", "```\na = 1\n```", "a = 1"),
        ("", "```python\na = 1\n", ""),
        ("", "a = 1", ""),
        ("", "<think>```python\nbad\n```</think>\n```py\ngood\n```", "good"),
        ("", "```python\na = 1\n``` This adds one.", "a = 1"),
        ("", "````python\na = 1\n````", "a = 1"),
        ("", "So: ```python\na = 1\n  ```\nDone", "a = 1"),
        ("", "```python\na = 1\n```\nAnd so\n```python\na = 2", "And so"),
        (OPENED, "a = 1\n```\nUse it so:\n```python\nf()\n```", "a = 1"),
        (OPENED, "a = 1\n``` This adds one.", "a = 1"),
        (OPENED, "a = 1\n````", "a = 1"),
        (OPENED, "a = 1", "a = 1"),
        (OPENED, "```python\na = 1\n```", "a = 1"),
        (OPENED, "\n````python\na = 1\n````", "a = 1"),
        (OPENED, "```\nThat is all.", ""),
        ("x```python", "print(1)\n```", "print(1)"),
    ],
)
def test_program_is_found_by_the_line_rule_of_livecodebench(prompt, response, program):
    assert extract(response, prompt) == program


DEFINED = "def f(x):\n    return x + 1"
LONGER = "def f(x):\n    y = 2\n    return x + y"
BLOCK = f"```python\n{DEFINED}\n```"


@pytest.mark.parametrize(
    ("prompt", "response", "program"),
    [
        ("", f"Sure:\n\n{BLOCK}\n\nUsage:\n```python\nprint(f(3))\n```\nIt's done.", DEFINED),
        ("", f"{BLOCK}\nOutput:\n```\n4\n5\n```", DEFINED),
        ("", f"{BLOCK} That is all.", DEFINED),
        ("", BLOCK.replace("```", "````"), DEFINED),
        ("", f"```python\n{DEFINED}", DEFINED),
        ("", f"It is\n{DEFINED}\nas asked.", DEFINED),
        ("", f"{BLOCK}\nLonger:\n```python\n{LONGER}\n```", LONGER),
        ("", "```python\ndef f(x): return 1\n```\nUsage:\n```python\nprint(f(3))\n```", "def f(x): return 1"),
        ("", "I do not know.", ""),
        ("", "I do not\n\nknow", ""),
        ("", "```python\nx = (\n```", "x = ("),
        (OPENED, f"{DEFINED}\n```\nLonger:\n```python\n{LONGER}\n```", DEFINED),
        (OPENED, f"{BLOCK}\n", DEFINED),
        (OPENED, "def f(x): return 1\n```", "def f(x): return 1"),
    ],
)
def test_definition_is_found_as_evalplus_does_where_usage_follows(prompt, response, program):
    assert sanitise(response, "f", prompt) == program


def every_run(text):
    """EvalPlus' own rule: of all runs of two lines or more that parse, the first of those with most filled lines."""
    lines, best, found = text.split("\n"), 0, ""
    for i in range(len(lines)):
        for j in range(i + 1, len(lines)):
            run = "\n".join(lines[i : j + 1])
            try:
                ast.parse(run)
            except SyntaxError:
                continue
            if (count := sum(1 for line in lines[i : j + 1] if line.strip())) > best:
                best, found = count, run
    return found


LINES = (
    *("Here it is:", "Usage", "It's so", "", "```", "```python", "def f(x):", "    return x", "    y = 1", "        z"),
    *("if x:", "else:", "try:", "except E:", "x = (", ")", '"""', "'''", '"""doc"""', "# note", "@g", "s = f'{1 +}'"),
    *('t = f"""{a', "y = '\\", "1", "z = '", "\tw = 1", "a, b = c", "```` text"),
)


@given(st.lists(st.sampled_from(LINES), max_size=14).map("\n".join))
def test_longest_code_is_that_of_trying_every_run(text):
    assert longest_code(text).rstrip("\n") == every_run(text).rstrip("\n")


@pytest.mark.parametrize("lines", ["(", "a = (\n" + "b\n" * 50, "if x:", "try:\n    x", "x = f'{1 +}'"])
def test_looking_for_code_is_bounded(lines, monkeypatch):
    parsed = []

    def counted(text, *more, **named):
        parsed.append(len(text))
        return compile(text, *more, **named)

    monkeypatch.setattr(sanitising, "compile", counted, raising=False)
    monkeypatch.setattr(sanitising, "MOST_PARSED", 200_000)
    text = f"{lines}\n" * (20_000 // len(lines))
    longest_code(text)
    assert 0 < sum(parsed) <= 200_000 + 2 * len(text)


@pytest.mark.parametrize(
    ("program", "kept"),
    [
        ("K = 3\nprint(f(input()))\nassert f(1)\ndef f(x):\n    return K * x\nf(1)\nU = 1",
         "K = 3\ndef f(x):\n    return K * x"),
        ("def f(): return g()\nimport math\ndef g(): return 1", "import math\ndef f(): return g()\ndef g(): return 1"),
        ("def f(): return 1\ndef f(): return 2", "def f(): return 1"),
        ("def f(): print(1)\ndef f(): return 2", "def f(): return 2"),
        ("from __future__ import annotations\nimport a\ndef f(): return 1", "import a\ndef f(): return 1"),
        ("@cache\ndef g(): return 1\ndef f(): return g()", "def f(): return g()"),
        ("a, b = c\nc = 1\nclass B(c): pass\ndef f(): return B()", "a, b = c\nclass B(c): pass\ndef f(): return B()"),
        ("y = f(1); x = 3\ndef f(z, y=0): return z.x", "y = f(1)\nx = 3\ndef f(z, y=0): return z.x"),
        ("if True:\n    def f(): return 1", "if True:\n    def f(): return 1"),
        ("def f(:", "def f(:"),
    ],
)  # fmt: skip
def test_what_a_definition_needs_is_kept_as_evalplus_keeps_it(program, kept):
    assert definitions(program, "f") == kept


@runs_programs
@pytest.mark.parametrize("prompt", ["", OPENED])
def test_shortened_response_is_judged_alike(prompt):
    problem = Problem("p", "", prompt, (), plus("def f(x): return x + 1"))
    for response, correct, status in (
        ("```python\ndef f(x):\n    return x + 1\nassert f(1) == 3\n```\nok", True, Status.GRADED),
        (
            '```python\ndef f(x):\n    """Adds.\n    ```\n    ```\n    """\n    return x + 1',
            True,
            Status.GRADED,
        ),
        ("```python\ndef f(x): return x\n```", False, Status.GRADED),
        ("```python\nx = (\n```", False, Status.GRADED),
        ("```python\n```", False, Status.NO_ANSWER),
    ):
        verdict, short = grade(problem, response), shorten(problem, response)
        assert (verdict.correct, verdict.status) == (correct, status)
        assert verdict == (short if status == Status.NO_ANSWER else grade(problem, short))
