"""Verdicts on programs by the rules of EvalPlus and LiveCodeBench, and the command line."""

import base64
import gzip
import json
import pickle
import sys
import zlib

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_limit.grading.__main__ import main
from rlvr_limit.grading.code import evalplus, livecodebench
from rlvr_limit.grading.code.grade import check
from rlvr_limit.types import Status, UserError
from tests.support.code_rows import evalplus_row, livecodebench_row

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are run on Linux only")


def plus(reference, base, more=(), name="HumanEval/0", entry="f", atol=0):
    return evalplus.EvalPlusTests(name, entry, reference, atol, evalplus.pack(base, more))


def right(reference, program, *inputs, **more):
    return check(plus(reference, inputs or ([1],), **more), program).correct


@pytest.mark.parametrize(
    ("reference", "program", "accepted"),
    [
        ("def f(x): return (1, 2)", "def f(x): return (1, 2)", True),
        ("def f(x): return (1, 2)", "def f(x): return [1, 2]", False),
        ("def f(x): return [1, 2]", "def f(x): return [2, 1]", False),
        ("def f(x): return {1, 2}", "def f(x): return {2, 1}", True),
        ("def f(x): return {1, 2}", "def f(x): return [1, 2]", False),
        (
            "def f(x): return {'a': [1]}",
            "import collections\ndef f(x): return collections.Counter() | {'a': [1]}",
            True,
        ),
        ("def f(x): return 2", "def f(x): return 2.0", True),
        ("def f(x): return True", "def f(x): return 1", True),
        ("def f(x): return 2", "def f(x): return 2.0000001", False),
        ("def f(x): return 2.0", "def f(x): return 2.0000001", True),
        ("def f(x): return 2.0", "def f(x): return 2.00001", False),
        ("def f(x): return 2.5", "def f(x): return '2.5'", False),
        ("def f(x): return [1.5, 2.5]", "def f(x): return [1.5, 2.50000001]", True),
        ("def f(x): return [1.5, 2.5]", "def f(x): return (1.5, 2.5)", False),
        ("def f(x): return [1.5, 2.5]", "def f(x): return [1.5, 2.5, 0.0]", False),
        ("def f(x): return float('inf')", "def f(x): return 1e308 * 10", True),
        ("def f(x): return float('inf')", "def f(x): return -1e308 * 10", False),
        ("def f(x): return 10 ** 5000", "def f(x): return 10 ** 5000", True),
        ("def f(x): return 10 ** 5000", "def f(x): return 10 ** 5000 + 1", False),
        ("def f(x): return 1 + 2j", "def f(x): return complex(1, 2)", True),
        ("def f(x): return None", "def f(x): pass", True),
        ("def f(x): return 'a'", "def f(x): return iter('a')", False),
    ],
)
def test_values_compare_as_in_evalplus(reference, program, accepted):
    assert right(reference, program) is accepted


def test_tolerance_of_the_problem_holds_for_all_its_values():
    assert right("def f(x): return 2.0", "def f(x): return 2.05", atol=0.1)
    assert not right("def f(x): return 2.0", "def f(x): return 2.05", atol=0.01)
    assert right("def f(x): return [[1.0], [2]]", "def f(x): return [[1.05], [2]]", atol=0.1)
    # Tolerance is for values of one type only; equality is for all.
    assert not right("def f(x): return 2.5", "def f(x): return 2", atol=1)
    assert right("def f(x): return 2.0", "def f(x): return 2", atol=1)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=4),
    st.floats(-1e-5, 1e-5),
    st.sampled_from((1e-6, 1e-4)),
)
def test_closeness_is_that_of_numpy(wanted, change, atol):
    value = [x + change for x in wanted]
    assert evalplus._all_close(value, wanted, atol) == numpy.allclose(value, wanted, rtol=1e-7, atol=atol)


MBPP = {
    "similar_elements": ("def similar_elements(x): return (4, 5)", "return [5, 4, 4]", "return [5]"),
    "check_str": ("import re\ndef check_str(x): return re.match('a', x)", "return True", "return None"),
    "are_equivalent": ("def are_equivalent(x): return True", "return 17", "raise ValueError"),
    "sum_div": ("def sum_div(x): return 8", "return 0", "return 7"),
}


@pytest.mark.parametrize("entry", MBPP)
def test_problems_of_mbpp_with_rules_of_their_own(entry):
    reference, good, bad = MBPP[entry]
    tests = plus(reference, (["a"],), name="Mbpp/1", entry=entry)
    assert check(tests, f"def {entry}(x): {good}").correct
    assert not check(tests, f"def {entry}(x): {bad}").correct
    # HumanEval+ has no such rules.
    if entry != "check_str":
        other = plus(reference, (["a"],), name="HumanEval/1", entry=entry)
        assert not check(other, f"def {entry}(x): {good}").correct


def test_zero_of_a_polynomial_is_right_where_the_polynomial_is_small():
    tests = plus("def find_zero(xs): return -0.5", ([[1, 2]],), entry="find_zero", atol=1e-4)
    assert check(tests, "def find_zero(xs): return -0.50001").correct
    assert not check(tests, "def find_zero(xs): return -0.6").correct


def test_other_readings_of_two_problems_of_mbpp():
    tests = plus("def surface_Area(a, h): return 33", ([3, 4],), name="Mbpp/581", entry="surface_Area")
    assert check(tests, "def surface_Area(a, h): return 35").correct
    assert not check(tests, "def surface_Area(a, h): return 34").correct
    tests = plus("def digit_distance_nums(a, b): return 0", ([7, 123],), name="Mbpp/558", entry="digit_distance_nums")
    assert check(tests, "def digit_distance_nums(a, b): return 1 + 2 + 4").correct
    assert not check(tests, "def digit_distance_nums(a, b): return 6").correct


def test_failed_inputs_are_named_by_part_and_number():
    tests = plus("def f(x): return abs(x)", ([1], [-1]), ([2], [-2], [3]))
    found = check(tests, "def f(x): return x", all_tests=True)
    assert (found.failed, found.not_run, found.status) == (("base 1", "plus 1"), 0, Status.GRADED)


def test_program_that_changes_its_arguments_changes_nothing_else():
    tests = plus("def f(a): return sorted(a)", ([[3, 1]], [[3, 1]]))
    assert check(tests, "def f(a):\n    a.sort()\n    return a").correct


def test_reference_that_fails_is_an_error_and_not_a_wrong_program():
    found = check(plus("def f(x): return 1 // 0", ([1],)), "def f(x): return 1")
    assert found.status == Status.ERROR and "reference" in found.detail


def test_rows_of_mbpp_get_the_types_that_json_lacks():
    assert evalplus.typed("Mbpp/2", [[1, 2], [3]]) == [(1, 2), (3,)]
    assert evalplus.typed("Mbpp/63", [[[1, 2], [3, 4]]]) == [[(1, 2), (3, 4)]]
    assert evalplus.typed("Mbpp/115", [[[1], [], {}]]) == [[{1}, {}, {}]]
    assert evalplus.typed("Mbpp/124", ["0.0", "1j"]) == [0.0, 1j]
    assert evalplus.typed("Mbpp/580", [[4, [5]]]) == [(4, (5,))]
    assert evalplus.typed("Mbpp/722", [{"a": [1, 2]}, 3]) == [{"a": (1, 2)}, 3]
    assert evalplus.typed("Mbpp/750", [[1], [2]]) == [[1], (2,)]
    assert evalplus.typed("Mbpp/3", [[1]]) == [[1]] == evalplus.typed("HumanEval/2", [[1]])


def test_rows_of_the_hub_hold_their_inputs_in_a_text():
    helper = "def assertion(out, exp, atol):\n    assert out == exp\n"
    test = f"{helper}\ninputs = [[(1, 2), inf], [(3,), -1.5]]\nresults = [1, 2]\n"
    test += "for i, (inp, exp) in enumerate(zip(inputs, results)):\n"
    row = {
        "task_id": 2,
        "prompt": "Add.",
        "code": "def g(a, b): return a[0] + b",
        "test_list": ["assert g((1,), 2) == 3"],
    }
    question, tests = evalplus.from_row(row | {"test": test + "    assertion(g(*inp), exp, 0.5)\n"}, "here")
    assert question == '"""\nAdd.\nassert g((1,), 2) == 3\n"""\n'
    assert (tests.task_id, tests.entry, tests.atol) == ("Mbpp/2", "g", 0.5)
    assert [json.loads(text.decode()) for text in evalplus.reference_results(tests).results] == [float("inf"), 1.5]


@pytest.mark.parametrize("field", ["task_id", "prompt", "entry_point", "canonical_solution", "plus_input", "atol"])
def test_row_without_a_field_is_refused_by_place_and_name(field):
    row = {"task_id": "HumanEval/0", "prompt": "", "entry_point": "f", "canonical_solution": "", "base_input": [],
           "plus_input": [], "atol": 0}  # fmt: skip
    del row[field]
    with pytest.raises(UserError, match=f"data:3.*{field}"):
        evalplus.from_row(row, "data:3")


@pytest.mark.parametrize("packed", [True, False])
def test_livecodebench_script_is_judged_on_public_and_private_tests(packed):
    row = livecodebench_row(public=[("1\n", "2")], private=[("5", "6\n")], packed=packed)
    tests = livecodebench.from_row(row, "here").tests
    assert check(tests, "print(int(input()) + 1)").correct
    found = check(tests, "print(2)", all_tests=True)
    assert (found.correct, found.failed) == (False, ("test 1",))
    # The benchmark's own prelude is there.
    assert check(tests, "print(floor(gcd(0, int(input()))) + 1)").correct


def test_livecodebench_function_gets_json_lines_and_a_tuple_counts_as_a_list():
    tests = livecodebench.from_row(livecodebench_row(function="add", public=[("[1, 2]\n3", "[4, 5]")]), "here").tests
    solution = "class Solution:\n    def add(self, a: List[int], b):\n        return {}"
    for body, accepted in (("[x + b for x in a]", True), ("tuple(x + b for x in a)", True), ("a", False)):
        assert check(tests, solution.format(body)).correct is accepted
    assert check(tests, "def add(a, b): return [x + b for x in a]").correct


@pytest.mark.parametrize(
    ("written", "wanted", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("  1 2  \n3\n\n\n", "1 2\n3", True),
        ("1  2", "1 2", True),
        ("a  b", "a b", False),
        ("1.0", "1", True),
        ("1e3", "1000.00", True),
        ("0.3333333333", "0.3333333334", False),
        ("1\n\n2", "1\n2", False),
        ("yes", "YES", False),
        ("50000000000000000", "50000000000000001", False),
        ("", "1", False),
        ("nan", "nan", True),
    ],
)
def test_output_is_compared_line_by_line(written, wanted, same):
    assert livecodebench.outputs_match(written, wanted) is same


def test_pickled_tests_may_hold_a_text_only():
    row = livecodebench_row(public=[("1", "1")])
    row["private_test_cases"] = base64.b64encode(zlib.compress(pickle.dumps(print))).decode()
    with pytest.raises(UserError, match=r"here.*builtins\.print"):
        livecodebench.from_row(row, "here")


def test_problem_without_tests_is_refused():
    with pytest.raises(UserError, match="no tests"):
        livecodebench.from_row(livecodebench_row(), "here")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "HumanEvalPlus.jsonl.gz"
    with gzip.open(path, "wt") as file:
        for i in range(3):
            file.write(json.dumps(evalplus_row(f"HumanEval/{i}", f"    return x + {i}\n", [[1]], [[2], [3]])) + "\n")
    return path


def run(data, lines, *more):
    given, output = data.with_name("programs.jsonl"), data.with_name("verdicts.jsonl")
    given.write_text("".join(line + "\n" for line in lines))
    code = main(["grading", "code", "--data", str(data), "--input", str(given), "--output", str(output), *more])
    return code, [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []


def test_command_keeps_order_and_fields(data, capsys):
    programs = [("HumanEval/2", "def f(x): return x + 2"), ("HumanEval/0", "def f(x): return x + (x > 2)"),
                ("HumanEval/1", "def f(x): return x - 1"), ("HumanEval/1", "import sys\nsys.exit()")] * 3  # fmt: skip
    lines = [json.dumps({"task_id": t, "program": p, "mine": i}) for i, (t, p) in enumerate(programs)]
    code, rows = run(data, lines, "--workers", "2")
    assert code == 0 and [row["mine"] for row in rows] == list(range(12))
    assert [row["correct"] for row in rows] == [True, False, False, False] * 3
    assert rows[1]["failed"] == ["plus 1"] and rows[2]["failed"] == ["base 0", "plus 0", "plus 1"]
    assert {row["status"] for row in rows} == {"graded"} and rows[3]["failed"] == ["loading"]
    assert capsys.readouterr().out == "code-2: 12 verdicts, 3 correct (12 graded)\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [("{", ":2: no JSON"), ("[" * 100_000, ":2: no JSON"), ("[]", ":2: a JSON list"),
     ('{"task_id": "HumanEval/0"}', ":2: field 'program'"),
     ('{"task_id": "HumanEval/9", "program": ""}', ":2: the data have no problem 'HumanEval/9'")],
)  # fmt: skip
def test_malformed_line_is_named_by_number(data, capsys, line, said):
    code, rows = run(data, ['{"task_id": "HumanEval/0", "program": "x = 1"}', line])
    error = capsys.readouterr().err
    assert code == 2 and not rows and said in error and error.count("\n") == 1


def test_what_cannot_be_encoded_or_compiled_is_a_wrong_program(data):
    code, rows = run(data, [json.dumps({"task_id": "HumanEval/0", "program": text}) for text in ("x = '\ud800'", "\0")])
    assert code == 0 and [row["failed"] for row in rows] == [["loading"]] * 2


@pytest.mark.parametrize(
    ("more", "said"),
    [(["--output", "/nowhere/x"], "--output /nowhere/x: cannot be written"), (["--workers", "0"], "--workers 0"),
     (["--data", "/nowhere/x"], "/nowhere/x: no such file")],
)  # fmt: skip
def test_what_is_asked_wrongly_is_said_in_one_line(data, capsys, more, said):
    code, rows = run(data, [json.dumps({"task_id": "HumanEval/0", "program": ""})], *more)
    error = capsys.readouterr().err
    assert code == 2 and not rows and said in error and error.count("\n") == 1
