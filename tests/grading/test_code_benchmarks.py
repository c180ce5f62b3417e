"""The programs that the benchmarks of the program verifier run: all there, and judged rightly on tests of our own."""

import json
import sys

import pytest

from rlvr_limit.types import UserError
from tests.benchmarks.codeforces_stdin import FOLDER, PROGRAMS, digest, judge, load

CASES = {
    "smaller_first": ("2\n5 3\n1 1\n", "3 5\n1 1\n"),
    "two_deposits": ("2\n4 6\n3 3\n", "2\n3"),
    "screens_for_icons": ("2\n0 0\n8 2", "0\n2\n"),
    "games_worth_playing": ("1\n50 7\n", "3.5"),
    "ways_to_deal_cards": ("1 2\n", "1\n"),
}
"""Input and output worked out by hand: programs that read and write in different ways."""


def test_every_program_is_listed_once_with_a_problem_of_its_own():
    assert {path.stem for path in FOLDER.glob("*.py")} == PROGRAMS.keys() and len(PROGRAMS) == 20
    assert len({*PROGRAMS.values()}) == 20


@pytest.mark.skipif(sys.platform != "linux", reason="programs are run on Linux only")
def test_programs_are_accepted_on_their_own_tests_and_refused_with_a_line_more(tmp_path):
    data = tmp_path / "data.json"
    rows = [{"problem": f"{name}\n", "tests": [{"input": a, "output": b}]} for name, (a, b) in CASES.items()]
    data.write_text(json.dumps(rows))
    known = load(data)
    tests = [known[digest(name)] for name in CASES]
    programs = [(FOLDER / f"{name}.py").read_text() for name in CASES]
    assert all(outcome.correct for outcome in judge(zip(tests, programs, strict=True), 2))
    longer = judge(zip(tests, [f"print(0)\n{program}" for program in programs], strict=True), 2)
    assert [outcome.failed for outcome in longer] == [("test 0",)] * len(CASES)


def test_data_of_another_kind_are_refused_in_one_line(tmp_path):
    for content in ("", "[1]", '[{"problem": "p"}]'):
        (tmp_path / "data.json").write_text(content)
        with pytest.raises(UserError, match="no list of problems with tests"):
            load(tmp_path / "data.json")
