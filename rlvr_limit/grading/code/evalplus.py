"""HumanEval+ and MBPP+ as EvalPlus judges them (Liu et al. 2023, arXiv 2305.01210; its evaluator at 26d6d00).

A program is right when its function returns what the reference solution returns, on the base and on the plus inputs.
Both run in the sandbox, and their results are compared here. Rows come from EvalPlus' release files or from the hub.
"""

import ast
import functools
import marshal
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlvr_limit.grading.case_files import require_fields
from rlvr_limit.grading.code.outcome import ProgramCheck
from rlvr_limit.grading.sandbox import decode
from rlvr_limit.grading.sandbox.run import ResultKind, SandboxError, SandboxJob, SandboxLimits, execute
from rlvr_limit.types import UserError

CPU_SECONDS, TIMES_REFERENCE = 4.0, 4.0
REFERENCE_CPU_SECONDS = 300.0
RTOL, FLOAT_ATOL = 1e-7, 1e-6

_FLOAT = rb"-?(?:[0-9]+\.[0-9]*(?:e[+-][0-9]+)?|[0-9]+e[+-][0-9]+|Infinity|NaN)"
_FLOATS = re.compile(rb"(?:\{\"tuple\": )?\[?%(f)b(?:, %(f)b)*\]?\}?" % {b"f": _FLOAT})
_ATOL = re.compile(r"(?:exp|ref_func\(\*inp\)|_\w+\(\*inp\)), ([0-9.e-]+)\)|<= ([0-9.e-]+)\s*$", re.MULTILINE)
_CALL = re.compile(r"assertion\((\w+)\(\*inp\)")
# Functions whose results are compared in a way of their own, as the benchmark has it.
SET_EQUAL = frozenset(
    "similar_elements find_char_long common_in_nested_lists extract_singly larg_nnum intersection_array "
    "find_dissimilar Diff".split()
)
PLUS = "plus "
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

    def program_check(self, program: str) -> ProgramCheck:
        """A program on all inputs, called "base i" and "plus i", counted from 0 in the data's order.

        Raises SandboxError where the sandbox or the reference solution fails.
        """
        base, plus = self.inputs()
        inputs = (*base, *plus)
        reference = reference_results(self)
        cpu = tuple(max(CPU_SECONDS, TIMES_REFERENCE * used) for used in reference.cpu_seconds)
        limits = SandboxLimits(
            total_cpu_seconds=SandboxLimits.total_cpu_seconds + TIMES_REFERENCE * sum(reference.cpu_seconds),
            output_bytes=SandboxLimits.output_bytes + 2 * sum(map(len, reference.results)),
        )
        names = [f"base {i}" for i in range(len(base))] + [f"{PLUS}{i}" for i in range(len(plus))]

        def mismatch(index: int, data: bytes) -> str:
            wanted = reference.results[index]
            # Equal texts stand for equal values, but for NaN, which equals nothing.
            if data == wanted and b"NaN" not in data:
                return ""
            arguments = marshal.loads(inputs[index])
            right = _is_right(self, decode.loads(data), decode.loads(wanted), arguments, reference.atol[index])
            return "" if right else "another value"

        return ProgramCheck(SandboxJob(program, self.entry, inputs, cpu), limits, names, mismatch)


def passes_base_tests(correct: bool, detail: str) -> bool:
    """Whether a program of which this was said passes the base inputs: they come first, and the first failure is said.

    Of tests without base inputs, as the hub's are, it says nothing.
    """
    return correct or detail.startswith(PLUS)


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
        (coefficients,) = arguments
        # sum_i coefficients[i] x^i, summed as the benchmark does.
        return abs(sum(c * math.pow(value, i) for i, c in enumerate(coefficients))) <= tests.atol
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


def _all_close(value: Any, wanted: Any, atol: float) -> bool:
    """numpy.allclose(value, wanted, RTOL, atol) for numbers and nested lists of one shape; False for all else."""
    if isinstance(wanted, list | tuple):
        same_shape = isinstance(value, list | tuple) and len(value) == len(wanted)
        return same_shape and all(_all_close(a, b, atol) for a, b in zip(value, wanted, strict=True))
    if not (isinstance(value, int | float | complex) and isinstance(wanted, int | float | complex)):
        return False
    return value == wanted or (abs(wanted) != math.inf and abs(value - wanted) <= atol + RTOL * abs(wanted))


def from_row(row: dict[str, Any], place: str) -> tuple[str, EvalPlusTests]:
    """The question and the tests of a row. Raises UserError naming place and field of what is missing or wrong."""
    own = "base_input" in row
    names = ("task_id", "prompt", "entry_point", "canonical_solution", "base_input", "plus_input", "atol")
    hub = ("task_id", "prompt", "test", "code" if "code" in row else "canonical_solution")
    require_fields(row, names if own else hub, place)
    try:
        return _from_release(row) if own else _from_hub(row)
    except (ValueError, TypeError, SyntaxError, AttributeError, IndexError) as error:
        raise UserError(f"{place}: no problem of EvalPlus ({type(error).__name__}: {error})") from error


def _from_release(row: dict[str, Any]) -> tuple[str, EvalPlusTests]:
    base, plus = (
        [typed(row["task_id"], arguments) for arguments in row[part]] for part in ("base_input", "plus_input")
    )
    reference = row["prompt"] + row["canonical_solution"]
    return row["prompt"], EvalPlusTests(row["task_id"], row["entry_point"], reference, row["atol"], pack(base, plus))


def _from_hub(row: dict[str, Any]) -> tuple[str, EvalPlusTests]:
    """The hub's data sets hold the inputs in the text of a test, base and plus in one: all count as plus."""
    inputs = next(
        node.value
        for node in ast.walk(ast.parse(row["test"]))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "inputs"
    )
    packed = pack([], [list(arguments) for arguments in ast.literal_eval(_Infinities().visit(inputs))])
    atol = next(float(one or other) for one, other in _ATOL.findall(row["test"]))
    if "code" not in row:
        reference = row["prompt"] + row["canonical_solution"]
        return row["prompt"], EvalPlusTests(row["task_id"], row["entry_point"], reference, atol, packed)
    entry = _CALL.search(row["test"])[1]
    prompt = f'"""\n{row["prompt"]}\n{row["test_list"][0]}\n"""\n'
    return prompt, EvalPlusTests(f"Mbpp/{row['task_id']}", entry, prompt + row["code"], atol, packed)


class _Infinities(ast.NodeTransformer):
    """The names inf and nan, as repr writes them, stand for numbers."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant({"inf": math.inf, "nan": math.nan}[node.id]) if node.id in ("inf", "nan") else node


def _tuples(value: list[Any]) -> list[Any]:
    return [tuple(item) for item in value]


def _tuple_of_tuples(value: list[Any]) -> tuple[Any, ...]:
    return tuple(tuple(item) if isinstance(item, list) else item for item in value)


def _all_tuples(value: Any) -> Any:
    return tuple(map(_all_tuples, value)) if isinstance(value, list) else value


def _sets(value: list[Any]) -> list[Any]:
    return [set(item) if isinstance(item, list) and item else {} for item in value]


def _dict_of_tuples(value: dict[Any, Any]) -> dict[Any, Any]:
    return {key: tuple(item) for key, item in value.items()}


# JSON has no tuples, sets and complex numbers. These problems of MBPP+ want them; their numbers are the benchmark's.
_EACH_ARGUMENT = (
    (tuple, "2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809"),
    (_tuples, "63 64 70 94 120 237 272 299 400 409 417 438 473 614 780"),
    (_tuple_of_tuples, "259 401 445"),
    (_all_tuples, "580 615 791"),
)
_FIRST_ARGUMENT = (
    (tuple, "250 307 405 446 617 720 763 808"),
    (_tuples, "75 413 444 753"),
    (_sets, "115"),
    (float, "124"),
    (complex, "252"),
    (_tuple_of_tuples, "278"),
    (_dict_of_tuples, "722"),
)
_SECOND_ARGUMENT = ((tuple, "106 750"), (complex, "124"))


def typed(task_id: str, arguments: list[Any]) -> list[Any]:
    """Arguments as JSON has them, in the types that the problem wants."""
    benchmark, _, number = task_id.rpartition("/")
    arguments = list(arguments)
    if benchmark != "Mbpp":
        return arguments
    for rules, places in ((_EACH_ARGUMENT, range(len(arguments))), (_FIRST_ARGUMENT, [0]), (_SECOND_ARGUMENT, [1])):
        for convert in (convert for convert, numbers in rules if number in numbers.split()):
            for place in places:
                arguments[place] = convert(arguments[place])
    return arguments
