"""Files of one's own problems: what they may say, and what is refused with its line."""

import gzip
import json

import pytest

from rlvr_limit.tasks import benchmarks
from rlvr_limit.tasks.questions import Question
from rlvr_limit.types import UserError


def write(folder, rows):
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def load(path):
    return benchmarks.load(str(path))[0]


def test_a_file_of_ones_own_may_repeat_a_row_but_not_with_another_answer(tmp_path):
    rows = [{"problem": f"Question {i}?", "answer": str(i)} for i in range(7)]
    path = write(tmp_path, [*rows, *rows[:6]])
    found, notes = benchmarks.load(path)
    assert len(found) == 7
    assert notes[1] == "mine.jsonl: 6 of 13 rows repeat another one and are left out (at 8, 9, 10, 11, 12, ...)."
    write(tmp_path, [*rows, rows[4] | {"answer": "7"}])
    with pytest.raises(UserError, match="mine.jsonl:8: its question is that of .*mine.jsonl:5 too, but they differ"):
        benchmarks.load(path)


def test_a_file_of_ones_own_is_problems_and_answers(tmp_path):
    rows = [{"problem": f"{i}?", "answer": a} for i, a in enumerate(["x", 5, 0.5, ["1", 2], ["3"]])]
    found, notes = benchmarks.load(write(tmp_path, rows))
    assert notes == ("mine.jsonl: problems of one's own.",)
    assert [entry.answer for entry in found] == ["x", "5", "0.5", ("1", "2"), "3"]
    assert [entry.id for entry in found] == [f"mine/{i}" for i in range(5)]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"problem": "q"}, "'answer' is missing"),
        ({"problem": "q", "answer": []}, "empty list"),
        ({"problem": "q", "answer": ["1", ""]}, "not empty"),
        ({"problem": "q", "answer": True}, "True"),
        ({"question": "q", "answer": "1"}, "'problem' is missing"),
    ],
)
def test_a_bad_row_of_ones_own_is_named(tmp_path, row, said):
    path = write(tmp_path, [{"problem": "a", "answer": "1"}, row])
    with pytest.raises(UserError, match=rf"mine.jsonl:2: .*{said}"):
        load(path)
    with pytest.raises(UserError, match="file of problems: found no .*other.jsonl"):
        load(tmp_path / "other.jsonl")


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("2 + 2 = 4, half of it is 2.\n#### 2", "2"),
        ("2 + 2 = 4 #### 1,002", "1,002"),
        ("#### 2\n\nI hope that helps.", "2"),
        (r"We add.\nSo it is $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        ("We add.\n\n**Answer:** 7", "7"),
        (["first\n#### 1", 2], ("1", "2")),
        ("x = 2 and y = 3", "x = 2 and y = 3"),
        (r"\begin{pmatrix}1\\" + "\n" + r"2\end{pmatrix}", r"\begin{pmatrix}1\\" + "\n" + r"2\end{pmatrix}"),
    ],
)
def test_of_ones_own_whole_solution_the_final_value_counts(tmp_path, answer, value):
    path = write(tmp_path, [{"problem": "a", "answer": answer}])
    assert load(path)[0].answer == value


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json"])
def test_a_byte_order_mark_is_read(tmp_path, suffix):
    row = b'{"problem": "a", "answer": "1"}'
    content = b"\xef\xbb\xbf" + (b"[" + row + b"]" if suffix == ".json" else row + b"\n" + row.replace(b"a", b"b", 1))
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".jsonl.gz" else content)
    assert load(path)[0] == Question("mine/0", "a", "1")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ('"answer": "1", "context": 5', ":2: field 'context': 5 is not a text"),
        ('"answer": "1", "context": ["x"]', r":2: field 'context': \['x'\] is not a text"),
        ('"answer": "1", "context": 0', ":2: field 'context': 0 is not a text"),
        ('"answer": ' + "9" * 5000, ":2: a whole number that is too long"),
        ('"answer": {"value": 1}', ":2: field 'answer': .* is not a text"),
        ('"answer": "We add. ####  "', ":2: field 'answer': .* is not an answer, or a solution that ends in"),
    ],
)
def test_what_is_no_text_or_too_long_is_said_in_one_line_with_its_place(tmp_path, fields, said):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"problem": "a", "answer": "1", "context": null}\n{"problem": "b", ' + fields + "}\n")
    with pytest.raises(UserError, match=f"mine.jsonl{said}") as caught:
        load(path)
    assert "\n" not in str(caught.value)
