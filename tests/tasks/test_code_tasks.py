"""Loading code benchmarks: names, windows, several files, starter code, and what is refused."""

import gzip
import json

import pytest

from rlvr_limit.tasks import benchmarks
from rlvr_limit.types import UserError
from tests.support.code_rows import evalplus_row, livecodebench_row


def load(name, data_dir):
    return benchmarks.load(name, data_dir, allow_rows=(name,))[0]


def write(path, rows):
    path.parent.mkdir(exist_ok=True, parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path.parent


@pytest.mark.parametrize("name", ["HumanEvalPlus.jsonl.gz", "humanevalplus-v0.1.10.jsonl"])
def test_problem_is_named_by_benchmark_and_number(tmp_path, name):
    write(tmp_path / name, [evalplus_row("HumanEval/7", "    return x\n", [[1]], [])])
    (question,) = load("humanevalplus", tmp_path)
    assert (question.id, question.question, question.starter_code) == ("humanevalplus/7", "def f(x):\n", "")
    assert question.answer.reference == "def f(x):\n    return x\n"


def test_window_takes_the_days_from_first_to_last_of_all_files(tmp_path):
    days = ["2023-05-07", "2024-07-31", "2024-08-01", "2025-01-31", "2025-02-01"]
    rows = [livecodebench_row(f"q{i}", public=[("1", "1")], day=f"{day}T00:00:00") for i, day in enumerate(days)]
    write(tmp_path / "livecodebench" / "test.jsonl", rows[:3])
    write(tmp_path / "livecodebench" / "test2.jsonl", rows[3:])
    assert [q.id for q in load("livecodebench_v5", tmp_path)] == ["livecodebench_v5/q2", "livecodebench_v5/q3"]
    assert len(load("livecodebench_v5_all", tmp_path)) == 4


def test_starter_code_of_a_function_comes_with_its_question(tmp_path):
    row = livecodebench_row(function="add", public=[("1", "1")])
    (question,) = load("livecodebench_v5", write(tmp_path / "livecodebench.jsonl", [row]))
    assert question.starter_code == row["starter_code"] != ""


def test_bad_data_are_refused_in_one_line(tmp_path):
    row = evalplus_row("HumanEval/7", "    return x\n", [[1]], [])
    assert len(load("humanevalplus", write(tmp_path / "humanevalplus.jsonl", [row, row]))) == 1
    other = evalplus_row("HumanEval/7", "    return x\n", [[2]], [])
    with pytest.raises(UserError, match=r"humanevalplus\.jsonl:2: its row name is that of .*:1 too, but they differ"):
        load("humanevalplus", write(tmp_path / "humanevalplus.jsonl", [row, other]))
    with pytest.raises(UserError, match="has no file mbppplus"):
        load("mbppplus", tmp_path)
    with pytest.raises(UserError, match="'humaneval' is not one of .*humanevalplus"):
        load("humaneval", tmp_path)
