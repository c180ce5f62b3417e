"""Kinds of faults that users of such tools have reported, M1 to M12, each by cases with the right value.

field_cases.jsonl has a case a line, as the command `math` takes them; `status` where a case must be an ERROR: what
cannot be understood is counted by its own name, and is no wrong answer.
"""

import json
from pathlib import Path

import pytest

from rlvr_limit.grading.math.extract import as_response
from rlvr_limit.grading.math.grade import grade
from rlvr_limit.types import Problem, Status

KINDS = {
    "M1": "upright e, i and pi", "M2": "several boxes that are one answer", "M3": "a value behind a left side",
    "M4": "answer lines", "M5": "qualifiers behind an answer", "M6": "boxes without braces",
    "M7": "units of one letter", "M8": "Unicode", "M9": "equal at too few points", "M10": "symbolic sums",
    "M11": "sets and ranges", "M12": "arithmetic of matrices",
}  # fmt: skip
LINES = (Path(__file__).parent / "field_cases.jsonl").read_text(encoding="utf-8").splitlines()
CASES = [json.loads(line) for line in LINES]


def test_every_kind_has_cases_of_its_own():
    assert {case["kind"] for case in CASES} == {*KINDS}


@pytest.mark.parametrize("case", CASES, ids=[f"{c['kind']}-{c['answer'][:40]}" for c in CASES])
def test_field_case_is_judged_rightly(case):
    verdict = grade(Problem("p", "", "", (), case["gold"]), as_response(case["answer"]))
    assert verdict.correct is case["correct"], (KINDS[case["kind"]], verdict)
    assert verdict.status == case.get("status", Status.GRADED), verdict
