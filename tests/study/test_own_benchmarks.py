"""Files of one's own problems: what cannot be asked or shown is refused before any work, in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import command_line
from rlvr_limit.types import UserError
from tests.support import released

pytestmark = pytest.mark.usefixtures("compilation_cache")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released.write_released(tmp_path_factory.mktemp("own"))


def asked(folders: Path, rows: dict[Path, list[Any]], *overrides: str) -> list[str]:
    """The ids of the problems of a comparison on these files, each written with its answers."""
    for path, answers in rows.items():
        path.parent.mkdir(exist_ok=True)
        lines = (json.dumps({"problem": f"What is {i}, in {path}?", "answer": a}) for i, a in enumerate(answers))
        path.write_text("".join(f"{line}\n" for line in lines))
    names = ",".join(f"'{path}'" for path in rows)
    words = released.words(folders, f"benchmarks=({names},)", "allow_rows=()", *overrides)
    study = prepare(command_line.parse_command_line(words, folders))
    return [problem.id for problem in study.problems]


def refusal(*arguments: Any) -> str:
    with pytest.raises(UserError) as caught:
        asked(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_two_files_of_one_name_are_refused_at_the_start(folders: Path, tmp_path: Path) -> None:
    for second in (tmp_path / "b" / "mine.jsonl", tmp_path / "mine.json"):
        said = refusal(folders, {tmp_path / "mine.jsonl": [1, 2], second: [1, 2]})
        assert said.startswith(f"config.benchmarks: {tmp_path / 'mine.jsonl'} and {second} would both call")
    rows = {tmp_path / "mine.jsonl": [1, 2], tmp_path / "other.jsonl": [1, 2]}
    assert asked(folders, rows) == ["mine/0", "mine/1", "other/0", "other/1"]


def test_a_file_that_is_called_like_a_benchmark_is_not_asked_beside_it(folders: Path, tmp_path: Path) -> None:
    path = tmp_path / "math500.jsonl"
    said = refusal(folders, {path: [1, 2]}, f"benchmarks=('math500','{path}')", "allow_rows=('math500',)")
    assert said.startswith(f"config.benchmarks: math500 and {path} would both call their problems math500/0")


def test_one_problem_alone_is_refused_before_any_work(folders: Path, tmp_path: Path) -> None:
    rows = {tmp_path / "mine.jsonl": [1], tmp_path / "other.jsonl": [1, 2]}
    for job in ("compare", "report"):
        said = refusal(folders, rows, f"job={job}")
        assert said.startswith("benchmark mine: 1 problem, but a page needs at least 2")
    assert asked(folders, rows, "job=sample") == ["mine/0", "other/0", "other/1"]


def test_a_whole_solution_without_a_final_value_is_refused_where_mathematics_is_compared(
    folders: Path, tmp_path: Path
) -> None:
    rows = {tmp_path / "mine.jsonl": [1, "We add 1 and 1.\nThe result is even.", "so\n#### 2"]}
    said = refusal(folders, rows)
    assert said.startswith("problem mine/1: its answer 'We add 1 and 1") and "#### value" in said
    assert len(asked(folders, rows, "grading.grader=tests.support.graders:even")) == 3
