"""python -m rlvr_limit.grading code: verdicts on a file of programs, in order, without a run."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import threading
import zlib
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rlvr_limit.grading.code import evalplus_rows, livecodebench
from rlvr_limit.grading.code.grade import VERSION, Tests, check
from rlvr_limit.grading.code.outcome import ProgramOutcome
from rlvr_limit.grading.sandbox.run import SandboxError, warn_of_missing_protection
from rlvr_limit.types import UserError

AHEAD = 16


def main(argv: list[str]) -> int:
    """The command; argv comes after `code`. Returns 0; raises UserError for bad input or where nothing can be run."""
    parser = argparse.ArgumentParser(prog="python -m rlvr_limit.grading code", description=__doc__)
    parser.add_argument(
        "--data", type=Path, required=True, help="HumanEval+, MBPP+ or LiveCodeBench: JSON lines, or .gz"
    )
    parser.add_argument("--input", type=Path, required=True, help='lines {"task_id": ..., "program": ...}')
    parser.add_argument("--output", type=Path, required=True, help="the same lines with verdicts, made anew")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="programs run at once")
    parser.add_argument("--first", action="store_true", help="end a program's tests at the first that it fails")
    options = parser.parse_args(argv)
    if options.workers < 1:
        raise UserError(f"--workers {options.workers}: must be more than 0")
    stop = threading.Event()
    counts: Counter[str] = Counter()
    try:
        warn_of_missing_protection()
        tests = load_tests(options.data)
        programs = list(read_programs(options.input, tests))
        with options.output.open("w", encoding="utf-8", errors="backslashreplace") as output:
            for row, found in zip(programs, _outcomes(tests, programs, options, stop), strict=True):
                output.write(json.dumps(row | verdict_fields(found), ensure_ascii=False) + "\n")
                counts[found.status] += 1
                counts["correct"] += found.correct
    except SandboxError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"--output {options.output}: cannot be written ({error.strerror})") from error
    finally:
        stop.set()
    right = counts.pop("correct", 0)
    by_status = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    print(f"{VERSION}: {len(programs)} verdicts, {right} correct" + (f" ({by_status})" if programs else ""))
    return 0


def load_tests(path: Path) -> dict[str, Tests]:
    """The tests of every problem in a benchmark's file, by task_id (or question_id)."""
    found: dict[str, Tests] = {}
    for place, row in read_lines(path):
        if "question_id" in row:
            tests: Tests = livecodebench.from_row(row, place).tests
            name = tests.question_id
        else:
            _, tests = evalplus_rows.from_row(row, place)
            name = tests.task_id
        if name in found:
            raise UserError(f"{place}: problem {name} is there twice")
        found[name] = tests
    if not found:
        raise UserError(f"{path}: no rows")
    return found


def read_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, fields) of every line of JSON in a file, plain or .gz. Raises UserError naming the line."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    number = 0
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path}:{number}", _object(line, f"{path}:{number}")
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}:{number + 1}: cannot be read ({error})") from error


def _object(line: str, place: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: no JSON ({' '.join(str(error).split())})") from error
    if not isinstance(found, dict):
        raise UserError(f"{place}: found {type(found).__name__}, but an object with named fields is right")
    return found


def read_programs(path: Path, tests: dict[str, Tests]) -> Iterator[dict[str, Any]]:
    """The lines of programs to judge, checked: raises UserError naming the line and what is wrong with it."""
    for place, row in read_lines(path):
        for name in ("task_id", "program"):
            if not isinstance(row.get(name), str):
                raise UserError(f"{place}: field {name!r} is missing or no text; there are {', '.join(row) or 'none'}")
        if row["task_id"] not in tests:
            raise UserError(f"{place}: the data have no problem {row['task_id']!r}")
        yield row


def verdict_fields(found: ProgramOutcome) -> dict[str, Any]:
    """An outcome as fields of a line."""
    return {
        "correct": found.correct,
        "status": str(found.status),
        "failed": list(found.failed),
        "not_run": found.not_run,
        "detail": found.detail,
    }


def _outcomes(
    tests: dict[str, Tests], programs: list[dict[str, Any]], options: argparse.Namespace, stop: threading.Event
) -> Iterator[ProgramOutcome]:
    """Outcomes in order. Threads wait for the programs' own processes."""

    def judge(row: dict[str, Any]) -> ProgramOutcome:
        return check(tests[row["task_id"]], row["program"], not options.first, stop.is_set)

    waiting: deque[Future[ProgramOutcome]] = deque()
    with ThreadPoolExecutor(options.workers) as workers:
        try:
            for row in programs:
                waiting.append(workers.submit(judge, row))
                if len(waiting) >= AHEAD * options.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            stop.set()
            for future in waiting:
                future.cancel()
