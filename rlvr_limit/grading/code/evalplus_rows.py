"""Rows of HumanEval+ and MBPP+ as EvalPlusTests: the project's own release files, or the hub's data sets."""

import ast
import math
import re
from typing import Any

from rlvr_limit.grading.code.evalplus import EvalPlusTests, pack
from rlvr_limit.types import UserError

_ATOL = re.compile(r"(?:exp|ref_func\(\*inp\)|_\w+\(\*inp\)), ([0-9.e-]+)\)|<= ([0-9.e-]+)\s*$", re.MULTILINE)
_CALL = re.compile(r"assertion\((\w+)\(\*inp\)")


def from_row(row: dict[str, Any], place: str) -> tuple[str, EvalPlusTests]:
    """The question and the tests of a row. Raises UserError naming place and field of what is missing or wrong."""
    own = "base_input" in row
    names = ("task_id", "prompt", "entry_point", "canonical_solution", "base_input", "plus_input", "atol")
    hub = ("task_id", "prompt", "test", "code" if "code" in row else "canonical_solution")
    for name in names if own else hub:
        if row.get(name) is None:
            raise UserError(f"{place}: field {name!r} is missing; there are {', '.join(row) or 'none'}")
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
