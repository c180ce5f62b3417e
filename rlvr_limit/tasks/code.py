"""The code benchmarks as one table, and their rows as questions with tests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlvr_limit.grading.case_files import read_json_lines
from rlvr_limit.grading.code import evalplus_rows, livecodebench
from rlvr_limit.grading.code.evalplus import EvalPlusTests
from rlvr_limit.grading.code.livecodebench import LiveCodeTests
from rlvr_limit.tasks import files
from rlvr_limit.types import UserError

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")


@dataclass(frozen=True)
class Benchmark:
    """Where a benchmark's rows are: the hub's data set and its files, or local files named `stems` + a suffix.

    first and last bound the days on which problems were released, both included; "": no window.
    """

    name: str
    hub: str
    hub_files: str
    stems: tuple[str, ...]
    rows: int
    first: str = ""
    last: str = ""


# Hub names and files were not checked against the hub itself.
LIVECODEBENCH = ("livecodebench/code_generation_lite", "tes*[t2345].jsonl", ("livecodebench*", "livecodebench*/test*"))
"""Release v5 is the hub's files test.jsonl to test5.jsonl."""

HUB_TEST = "data/test-*.parquet"
BENCHMARKS = (
    Benchmark("humanevalplus", "evalplus/humanevalplus", HUB_TEST, ("humanevalplus*", "humanevalplus*/*"), 164),
    Benchmark("mbppplus", "evalplus/mbppplus", HUB_TEST, ("mbppplus*", "mbppplus*/*"), 378),
    Benchmark("livecodebench_v5", *LIVECODEBENCH, 279, "2024-08-01", "2025-01-31"),
    Benchmark("livecodebench_v5_all", *LIVECODEBENCH, 880, "2023-05-01", "2025-01-31"),
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """One problem before it has a prompt: id is "<benchmark>/<the benchmark's own number>", answer its tests."""

    id: str
    question: str
    answer: EvalPlusTests | LiveCodeTests
    starter_code: str = ""


def load(name: str, data_dir: str | Path | None = None) -> tuple[Question, ...]:
    """The questions of a benchmark in the order of its files, those outside its window left out.

    Reads a local folder, or the hub's files where data_dir is empty or None. Raises UserError on an unknown benchmark,
    a missing file, a line that is no JSON, a missing field, or a problem that is there twice.
    """
    benchmark = next((entry for entry in BENCHMARKS if entry.name == name), None)
    if benchmark is None:
        known = ", ".join(entry.name for entry in BENCHMARKS)
        raise UserError(f"benchmark: found {name!r}, but one of {known} is right")
    paths = _local(Path(data_dir), benchmark) if data_dir else files.download(benchmark.hub, (benchmark.hub_files,))
    found: dict[str, Question] = {}
    for place, row in _rows(paths):
        question = _question(benchmark, row, place)
        if question is None:
            continue
        if question.id in found:
            raise UserError(f"{place}: problem {question.id} is there twice")
        found[question.id] = question
    if not found:
        raise UserError(f"{paths[0]}: no problems of {name}")
    if len(found) != benchmark.rows:
        logging.warning("%s: %d problems in %s, not %d", name, len(found), paths[0], benchmark.rows)
    return tuple(found.values())


def _question(benchmark: Benchmark, row: dict, place: str) -> Question | None:
    """None where the problem lies outside the benchmark's window."""
    if not benchmark.first:
        text, tests = evalplus_rows.from_row(row, place)
        return Question(f"{benchmark.name}/{tests.task_id.rpartition('/')[2]}", text, tests)
    found = livecodebench.from_row(row, place)
    if not benchmark.first <= found.day.isoformat() <= benchmark.last:
        return None
    name = found.tests.question_id.replace("/", "_")
    return Question(f"{benchmark.name}/{name}", found.question, found.tests, found.starter_code)


def _rows(paths: list[Path]) -> Iterator[tuple[str, dict]]:
    for path in paths:
        if path.suffix == ".parquet":
            yield from ((row.place, row.fields) for row in files.read([path]))
        else:
            yield from read_json_lines(path)


def _local(folder: Path, benchmark: Benchmark) -> list[Path]:
    """All files that fit the first pattern that fits any: a benchmark may come in several."""
    if not folder.is_dir():
        raise UserError(f"data_dir: {folder} is no folder")
    here = {path: path.relative_to(folder) for path in sorted([*folder.glob("*"), *folder.glob("*/*")])}
    for stem in benchmark.stems:
        # Path.match takes one part of the pattern for one part of the path.
        fits = [
            path
            for path, name in here.items()
            if any(Path(str(name).lower()).match(stem + suffix) for suffix in SUFFIXES)
            and len(name.parts) == len(Path(stem).parts)
        ]
        if fits:
            return fits
    names = " or ".join(f"{stem}{{{','.join(SUFFIXES)}}}" for stem in benchmark.stems)
    raise UserError(f"data_dir: {folder} has no file {names}")
