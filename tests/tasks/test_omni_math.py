"""Omni-MATH-Rule: the file as it is, the hub's other set, and who is in which part."""

import json
from pathlib import Path

import pytest

from rlvr_limit.tasks import benchmarks
from rlvr_limit.tasks.benchmarks import BY_NAME, split_omni_math
from rlvr_limit.tasks.questions import Question
from rlvr_limit.types import UserError


def questions(count):
    return tuple(Question(f"omni_math/{i}", f"Question {i}?", str(i)) for i in range(count))


def numbered(count):
    return [{"problem": f"Question {i}?", "answer": str(i)} for i in range(count)]


def write(path: Path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def split(everything, data_dir, seed=0):
    (train, note), (test, _) = (
        split_omni_math(everything, len(everything), BY_NAME[f"omni_{part}"], data_dir, seed)
        for part in ("train", "test")
    )
    return train, test, note


def omni_rows():
    """As many rows as omni_math_rule.jsonl has, five of which repeat another one."""
    rows = numbered(2816)
    return [*rows, *rows[100:105]]


def test_omni_math_rule_is_read_as_it_is_and_split_in_2000_and_the_rest(tmp_path):
    write(tmp_path / "omni_math_rule.jsonl", omni_rows())
    found = {name: benchmarks.load(name, tmp_path, 3) for name in ("omni_math", "omni_train", "omni_test")}
    asked = {name: {entry.question for entry in entries} for name, (entries, _) in found.items()}
    assert [len(questions) for questions in asked.values()] == [2816, 2000, 816]
    assert [BY_NAME[name].problems for name in found] == [2816, 2000, 816]
    assert asked["omni_train"] | asked["omni_test"] == asked["omni_math"]
    repeats, whose = found["omni_train"][1]
    assert repeats.startswith("omni_math_rule.jsonl: 5 of 2,821 rows repeat another one")
    assert whose == "omni_train: 2,000 problems, drawn by seed 3, not the paper's split."


def test_the_hubs_omni_math_is_refused_in_one_line(tmp_path):
    write(tmp_path / "omni_math/test.jsonl", numbered(4428))
    for folder, said in ((None, "--config.data_dir"), (tmp_path, "has 4,428 rows, but 2,821 were published")):
        with pytest.raises(UserError, match="omni_math_rule.jsonl of https://github.com/.* another set") as refused:
            benchmarks.load("omni_train", folder)
        assert said in str(refused.value) and "\n" not in str(refused.value)


def test_seeded_split_is_disjoint_complete_stable_and_says_what_it_is():
    everything = questions(2816)
    train, test, note = split(everything, None, seed=3)
    assert (len(train), len(test)) == (2000, 816)
    assert {*train, *test} == set(everything)
    assert note == "omni_train: 2,000 problems, drawn by seed 3, not the paper's split."
    assert (train, test, note) == split(everything, None, seed=3) != split(everything, None, seed=4)
    assert [len(part) for part in split(questions(1408), None)[:2]] == [1000, 408]


def test_split_of_the_folder_decides_by_rows_of_the_file(tmp_path):
    rows = {"train": [2815, 0, 2816], "test": [1, 101, 2817, *range(200, 300)]}
    (tmp_path / "omni_math_split.json").write_text(json.dumps(rows))
    write(tmp_path / "omni_math.jsonl", omni_rows())
    train, (_, note) = benchmarks.load("omni_train", tmp_path)
    # Row 2816 repeats row 100, which is in neither part, and row 2817 repeats row 101, which is in the same.
    assert [q.id for q in train] == ["omni_train/2815", "omni_train/0"]
    assert [q.id for q in benchmarks.load("omni_test", tmp_path)[0]] == [
        f"omni_test/{i}" for i in (1, 101, *range(200, 300))
    ]
    assert note == "omni_train: 2 problems, from omni_math_split.json."


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"train": [0]}', "it must be"),
        ("{", "it must be"),
        ("[1]", "it must be"),
        ('{"train": [0, 4], "test": []}', "row 4"),
        ('{"train": [0, 1], "test": [1]}', "1 rows stand there twice"),
    ],
)
def test_a_bad_split_file_is_refused(tmp_path, text, said):
    (tmp_path / "omni_math_split.json").write_text(text)
    with pytest.raises(UserError, match=said):
        split(questions(4), tmp_path)
