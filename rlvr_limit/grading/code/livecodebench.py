"""LiveCodeBench's code generation as its own evaluator judges it (Jain et al. 2024, arXiv 2403.07974; code at 28fef95).

Two kinds of tests: scripts read standard input and write standard output; functions (Solution.name, or a plain name)
get JSON values, one a line, and return one.
"""

import base64
import io
import json
import marshal
import pickle
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, InvalidOperation
from typing import Any

from rlvr_limit.grading.case_files import require_fields
from rlvr_limit.grading.code.outcome import ProgramCheck
from rlvr_limit.grading.sandbox import decode
from rlvr_limit.grading.sandbox.run import SandboxJob, SandboxLimits
from rlvr_limit.types import UserError

CPU_SECONDS = 6.0
MAX_DIGITS = 50_000  # of whole numbers that are read or written; Python's own limit is 4,300
# What the evaluator puts before every program, and what is imported once for all tests of one.
STARRED = (
    "string", "re", "datetime", "collections", "heapq", "bisect", "copy", "math", "random", "statistics", "itertools",
    "functools", "operator", "io", "sys", "json", "builtins", "typing",
)  # fmt: skip
PRELUDE = (
    "".join(f"from {name} import *\n" for name in STARRED)
    + "".join(f"import {name}\n" for name in STARRED if name not in ("builtins", "typing"))
    + f"sys.setrecursionlimit(50000)\nsys.set_int_max_str_digits({MAX_DIGITS})\n"
)


@dataclass(frozen=True)
class LiveCodeTests:
    """The tests of one problem."""

    question_id: str
    entry: str  # the function to call, "" for scripts
    packed: bytes  # pairs of input and output, by `pack`

    def __str__(self) -> str:
        return f"{len(self.pairs())} tests"

    def pairs(self) -> list[tuple[str, str]]:
        """Input and output of every test, as text."""
        return marshal.loads(zlib.decompress(self.packed))

    def program_check(self, program: str) -> ProgramCheck:
        """A program on all tests, called "test i", counted from 0, the public ones first."""
        pairs = self.pairs()
        if self.entry:
            inputs = tuple(marshal.dumps([_json(line) for line in text.split("\n")]) for text, _ in pairs)
            entry = f"Solution.{self.entry}" if "class Solution" in program else self.entry
        else:
            inputs, entry = tuple(text.encode() for text, _ in pairs), ""

        def mismatch(index: int, data: bytes) -> str:
            wanted = pairs[index][1]
            if not entry:
                return "" if outputs_match(data.decode(errors="replace"), wanted) else "other output"
            value = decode.loads(data)
            value = list(value) if isinstance(value, tuple) else value
            return "" if value == _json(wanted) else "another value"

        job = SandboxJob(program, entry, inputs, (CPU_SECONDS,) * len(inputs), PRELUDE, STARRED)
        limits = SandboxLimits(total_cpu_seconds=CPU_SECONDS * (1 + len(inputs)))
        return ProgramCheck(job, limits, [f"test {i}" for i in range(len(pairs))], mismatch)


def pack(tests: Sequence[tuple[str, str]]) -> bytes:
    """Pairs of input and output as LiveCodeTests.packed."""
    return zlib.compress(marshal.dumps(list(tests)))


def _json(text: str) -> Any:
    return json.loads(text, parse_int=_whole_number)


def _whole_number(digits: str) -> int:
    """By way of Decimal, which holds whole numbers exactly and has no limit of the whole process to change."""
    if len(digits) > MAX_DIGITS + digits.startswith("-"):
        raise ValueError(f"a number of more than {MAX_DIGITS:,} digits")
    return int(Decimal(digits))


def outputs_match(written: str, wanted: str) -> bool:
    """Line by line, white space at the ends of lines and of the whole aside; numbers may be written in any way."""
    lines, references = ([line.strip() for line in text.strip().split("\n")] for text in (written, wanted))
    return len(lines) == len(references) and all(map(_lines_match, lines, references))


def _lines_match(line: str, reference: str) -> bool:
    if line == reference:
        return True
    try:
        return [Decimal(word) for word in line.split()] == [Decimal(word) for word in reference.split()]
    except InvalidOperation:
        return False


@dataclass(frozen=True)
class LiveCodeRow:
    """One problem."""

    question: str
    starter_code: str  # of a function, "" for scripts
    day: date
    tests: LiveCodeTests


def from_row(row: dict[str, Any], place: str) -> LiveCodeRow:
    """A row of livecodebench/code_generation or code_generation_lite. Raises UserError naming place and field."""
    texts = ("question_id", "question_content", "contest_date", "public_test_cases", "private_test_cases")
    require_fields(row, texts, place, str)
    try:
        cases = json.loads(row["public_test_cases"]) + _private(row["private_test_cases"])
        pairs = [(case["input"], case["output"]) for case in cases]
        entry = json.loads(row.get("metadata") or "{}").get("func_name") or ""
        for text, wanted in pairs if entry else ():
            _json(wanted), [_json(line) for line in text.split("\n")]
        day = date.fromisoformat(row["contest_date"][:10])
    except (ValueError, TypeError, KeyError, AttributeError, EOFError, pickle.UnpicklingError, zlib.error) as error:
        raise UserError(f"{place}: no problem of LiveCodeBench ({type(error).__name__}: {error})") from error
    if not pairs:
        raise UserError(f"{place}: no tests; a program that does nothing would pass")
    tests = LiveCodeTests(row["question_id"], entry, pack(pairs))
    return LiveCodeRow(row["question_content"], row.get("starter_code") or "", day, tests)


def _private(text: str) -> list[dict[str, str]]:
    """JSON, or JSON that was pickled, compressed and written in base 64."""
    if text.lstrip().startswith("["):
        return json.loads(text)
    return json.loads(_TextOnly(io.BytesIO(zlib.decompress(base64.b64decode(text)))).load())


class _TextOnly(pickle.Unpickler):
    """A text needs no class, so that none is ever looked up."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} in a pickled text")
