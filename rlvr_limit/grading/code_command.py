"""The command `code`: verdicts on a file of programs, in order, without a run."""

import argparse
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlvr_limit.grading.case_files import read_json_lines, require_fields, write_verdicts
from rlvr_limit.grading.code import evalplus, livecodebench
from rlvr_limit.grading.code.grade import VERSION, CodeTests, check
from rlvr_limit.grading.sandbox.run import SandboxError, warn_of_missing_protection
from rlvr_limit.types import UserError


def main(arguments: list[str]) -> int:
    """Judges every program, in order. Raises UserError for bad input, or where no program can be run."""
    parser = argparse.ArgumentParser(prog="python -m rlvr_limit.grading code", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="HumanEval+, MBPP+ or LiveCodeBench: JSON lines, or .gz"
    )
    parser.add_argument("--input", type=Path, required=True, help='lines {"task_id": ..., "program": ...}')
    parser.add_argument("--output", type=Path, required=True, help="the same lines with verdicts, made anew")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="programs run at once")
    parser.add_argument("--first", action="store_true", help="end a program's tests at the first that it fails")
    options = parser.parse_args(arguments)
    if options.workers < 1:
        raise UserError(f"--workers {options.workers}: must be more than 0")
    stop = threading.Event()

    def verdict(row: dict[str, Any]) -> dict[str, Any]:
        outcome = check(tests[row["task_id"]], row["program"], not options.first, stop.is_set)
        return asdict(outcome) | {"status": str(outcome.status)}

    try:
        warn_of_missing_protection()
        tests = load_tests(options.data)
        programs = list(_read_programs(options.input, tests))
        # The threads only wait for the programs' own processes.
        with ThreadPoolExecutor(options.workers) as workers:
            try:
                write_verdicts(options.output, VERSION, programs, workers.map(verdict, programs))
            finally:
                stop.set()
                workers.shutdown(cancel_futures=True)
    except SandboxError as error:
        raise UserError(str(error)) from error
    return 0


def load_tests(path: Path) -> dict[str, CodeTests]:
    """The tests of every problem in a benchmark's file, by task_id (or question_id)."""
    all_tests: dict[str, CodeTests] = {}
    for place, row in read_json_lines(path):
        if "question_id" in row:
            tests: CodeTests = livecodebench.from_row(row, place).tests
            name = tests.question_id
        else:
            _, tests = evalplus.from_row(row, place)
            name = tests.task_id
        if name in all_tests:
            raise UserError(f"{place}: problem {name} is there twice")
        all_tests[name] = tests
    if not all_tests:
        raise UserError(f"{path}: no rows")
    return all_tests


def _read_programs(path: Path, tests: dict[str, CodeTests]) -> Iterator[dict[str, Any]]:
    for place, row in read_json_lines(path):
        require_fields(row, ("task_id", "program"), place, str)
        if row["task_id"] not in tests:
            raise UserError(f"{place}: the data have no problem {row['task_id']!r}")
        yield row
