"""HumanEval+ and MBPP+ as EvalPlus judges them (Liu et al. 2023, arXiv 2305.01210; its evaluator at 26d6d00).

A program is right when its function returns what the reference solution returns, on the base and on the plus inputs.
Both run in the sandbox, and their results are compared here.
"""

import functools
import marshal
import math
import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rlvr_limit.grading.code.outcome import ProgramOutcome, run_tests
from rlvr_limit.grading.sandbox import decode
from rlvr_limit.grading.sandbox.run import ResultKind, SandboxError, SandboxJob, SandboxLimits, execute

CPU_SECONDS, TIMES_REFERENCE = 4.0, 4.0
REFERENCE_CPU_SECONDS = 300.0
RTOL, FLOAT_ATOL = 1e-7, 1e-6

_FLOAT = rb"-?(?:[0-9]+\.[0-9]*(?:e[+-][0-9]+)?|[0-9]+e[+-][0-9]+|Infinity|NaN)"
_FLOATS = re.compile(rb"(?:\{\"tuple\": )?\[?%(f)b(?:, %(f)b)*\]?\}?" % {b"f": _FLOAT})
# Functions whose results are compared in a way of their own, as the benchmark has it.
SET_EQUAL = frozenset(
    "similar_elements find_char_long common_in_nested_lists extract_singly larg_nnum intersection_array "
    "find_dissimilar Diff".split()
)
NOT_NONE = frozenset("check_str text_match_three text_starta_endb".split())


@dataclass(frozen=True)
class EvalPlusTests:
    """The tests of one problem."""

    task_id: str
    entry: str
    reference: str  # a whole program
    atol: float  # absolute tolerance
    packed: bytes  # the inputs, by `pack`

    def __str__(self) -> str:
        return self.reference

    def inputs(self) -> tuple[list[bytes], list[bytes]]:
        """The base and the plus inputs, each a list of arguments in marshal's form."""
        return marshal.loads(zlib.decompress(self.packed))


@dataclass(frozen=True)
class ReferenceResults:
    """What the reference returns for every input (encode.dumps), base first, in which CPU time, and the tolerances."""

    results: tuple[bytes, ...]
    cpu_seconds: tuple[float, ...]
    atol: tuple[float, ...]


def pack(base: Sequence[Any], plus: Sequence[Any]) -> bytes:
    """Lists of arguments, one for each base and each plus input, as EvalPlusTests.packed."""
    parts = [[marshal.dumps(list(arguments)) for arguments in part] for part in (base, plus)]
    return zlib.compress(marshal.dumps(parts))


def check(
    tests: EvalPlusTests, program: str, all_tests: bool = False, stopped: Callable[[], bool] = lambda: False
) -> ProgramOutcome:
    """Runs a program on all inputs. Failed ones are called "base i" and "plus i", counted from 0 in the data's order.

    Raises SandboxError where the sandbox or the reference solution fails.
    """
    base, plus = tests.inputs()
    inputs = (*base, *plus)
    reference = reference_results(tests)
    cpu = tuple(max(CPU_SECONDS, TIMES_REFERENCE * used) for used in reference.cpu_seconds)
    limits = SandboxLimits(
        total_cpu_seconds=SandboxLimits.total_cpu_seconds + TIMES_REFERENCE * sum(reference.cpu_seconds),
        output_bytes=SandboxLimits.output_bytes + 2 * sum(map(len, reference.results)),
    )
    names = [f"base {i}" for i in range(len(base))] + [f"plus {i}" for i in range(len(plus))]

    def mismatch(index: int, data: bytes) -> str:
        wanted = reference.results[index]
        # Equal texts stand for equal values, but for NaN, which equals nothing.
        if data == wanted and b"NaN" not in data:
            return ""
        arguments = marshal.loads(inputs[index])
        right = _is_right(tests, decode.loads(data), decode.loads(wanted), arguments, reference.atol[index])
        return "" if right else "another value"

    return run_tests(SandboxJob(program, tests.entry, inputs, cpu), limits, names, mismatch, all_tests, stopped)


@functools.lru_cache(maxsize=64)
def reference_results(tests: EvalPlusTests) -> ReferenceResults:
    """Runs the reference solution. Raises SandboxError naming the input on which it fails."""
    base, plus = tests.inputs()
    inputs = (*base, *plus)
    job = SandboxJob(tests.reference, tests.entry, inputs, (REFERENCE_CPU_SECONDS,) * len(inputs))
    results = list(execute(job, SandboxLimits(total_cpu_seconds=REFERENCE_CPU_SECONDS, output_bytes=256 << 20)))
    for result in results:
        if result.kind != ResultKind.VALUE:
            raise SandboxError(
                f"{tests.task_id}: the reference solution fails on input {result.index} ({result.detail})"
            )
    if len(results) != len(inputs):
        raise SandboxError(f"{tests.task_id}: the reference solution ends after {len(results)} of {len(inputs)} inputs")
    texts = tuple(result.data for result in results)
    atol = _tolerances(texts[: len(base)], tests.atol) + _tolerances(texts[len(base) :], tests.atol)
    return ReferenceResults(texts, tuple(result.cpu_seconds for result in results), atol)


def _tolerances(results: Sequence[bytes], atol: float) -> tuple[float, ...]:
    """The absolute tolerance of each input: from the first result that is made of floats on, one is always given."""
    tolerances = []
    for data in results:
        # Equal to reading it and looking at the types, and quick for a list of a million.
        if not atol and _FLOATS.fullmatch(data):
            atol = FLOAT_ATOL
        tolerances.append(atol)
    return tuple(tolerances)


def _is_right(tests: EvalPlusTests, value: Any, wanted: Any, arguments: list[Any], atol: float) -> bool:
    if tests.task_id.startswith("HumanEval") and tests.entry == "find_zero":
        return abs(_polynomial(*arguments, value)) <= tests.atol
    if tests.entry in NOT_NONE:
        wanted = wanted is not None
    exact = _agrees_in_mbpp(tests, value, wanted, arguments) if tests.task_id.startswith("Mbpp") else value == wanted
    return exact or bool(atol and type(value) is type(wanted) and _all_close(value, wanted, atol))


def _agrees_in_mbpp(tests: EvalPlusTests, value: Any, wanted: Any, arguments: list[Any]) -> bool:
    """Equal, or right by a rule of its own where the problem has more than one reading."""
    if tests.entry in SET_EQUAL:
        return decode.as_set(value) == decode.as_set(wanted)
    if tests.entry in NOT_NONE:
        return value == wanted if isinstance(value, bool) else wanted == (value is not None)
    if value == wanted:
        return True
    match tests.entry:
        case "are_equivalent":
            return True
        case "sum_div":
            return value == 0
        case "surface_Area":  # read with the height of the apex over a square base
            edge, height = arguments
            area = round(edge**2 + 2 * edge * math.sqrt((edge / 2) ** 2 + height**2))
            return abs(value - area) <= tests.atol
        case "digit_distance_nums":  # read with zeros before the shorter number
            width = max(len(str(number)) for number in arguments)
            digits = zip(*(str(number).zfill(width) for number in arguments), strict=True)
            return value == sum(abs(int(x) - int(y)) for x, y in digits)
    return False


def _polynomial(coefficients: list[float], x: float) -> float:
    """sum_i coefficients[i] x^i, summed as the benchmark does."""
    return sum(c * math.pow(x, i) for i, c in enumerate(coefficients))


def _all_close(value: Any, wanted: Any, atol: float) -> bool:
    """numpy.allclose(value, wanted, RTOL, atol) for numbers and nested lists of one shape; False for all else."""
    if isinstance(wanted, list | tuple):
        same_shape = isinstance(value, list | tuple) and len(value) == len(wanted)
        return same_shape and all(_all_close(a, b, atol) for a, b in zip(value, wanted, strict=True))
    if not (isinstance(value, int | float | complex) and isinstance(wanted, int | float | complex)):
        return False
    return value == wanted or (abs(wanted) != math.inf and abs(value - wanted) <= atol + RTOL * abs(wanted))
