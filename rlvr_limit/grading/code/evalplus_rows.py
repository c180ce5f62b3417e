"""Rows of HumanEval+ and MBPP+ as EvalPlusTests: the project's own release files, or the hub's data sets."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable
from typing import Any

from rlvr_limit.grading.code.evalplus import EvalPlusTests, pack
from rlvr_limit.types import UserError

# JSON has no tuples, sets and complex numbers. These problems of MBPP+ want them; their numbers are the benchmark's.
_EACH_TUPLE = frozenset(
    (2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630, 726, 740, 744, 809)
)
_EACH_LIST_OF_TUPLES = frozenset((63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780))
_EACH_TUPLE_OF_TUPLES = frozenset((259, 401, 445))
_FIRST_TUPLE = frozenset((250, 307, 405, 446, 617, 720, 763, 808))
_FIRST_LIST_OF_TUPLES = frozenset((75, 413, 444, 753))
_SECOND_TUPLE = frozenset((106, 750))
_ALL_LISTS_TUPLES = frozenset((580, 615, 791))

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
    tree = ast.parse(row["test"])
    inputs = next(
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "inputs"
    )
    arguments = [list(one) for one in ast.literal_eval(_Infinities().visit(inputs))]
    atol = next(float(one or other) for one, other in _ATOL.findall(row["test"]))
    if "code" not in row:
        reference = row["prompt"] + row["canonical_solution"]
        return row["prompt"], EvalPlusTests(row["task_id"], row["entry_point"], reference, atol, pack([], arguments))
    entry = _CALL.search(row["test"])[1]
    prompt = f'"""\n{row["prompt"]}\n{row["test_list"][0]}\n"""\n'
    return prompt, EvalPlusTests(f"Mbpp/{row['task_id']}", entry, prompt + row["code"], atol, pack([], arguments))


class _Infinities(ast.NodeTransformer):
    """The names inf and nan, as repr writes them, stand for numbers."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant({"inf": math.inf, "nan": math.nan}[node.id]) if node.id in ("inf", "nan") else node


def typed(task_id: str, arguments: list[Any]) -> list[Any]:
    """Arguments as JSON has them, in the types that the problem wants."""
    name, _, text = task_id.rpartition("/")
    if name != "Mbpp":
        return arguments
    number = int(text)
    every: dict[frozenset[int], Callable[[Any], Any]] = {
        _EACH_TUPLE: tuple,
        _EACH_LIST_OF_TUPLES: _list_of_tuples,
        _EACH_TUPLE_OF_TUPLES: lambda value: tuple(_list_of_tuples(value)),
        _ALL_LISTS_TUPLES: _all_tuples,
    }
    for numbers, convert in every.items():
        if number in numbers:
            return [convert(value) for value in arguments]
    first, *others = arguments
    if number in _FIRST_TUPLE:
        return [tuple(first), *others]
    if number in _FIRST_LIST_OF_TUPLES:
        return [_list_of_tuples(first), *others]
    if number in _SECOND_TUPLE:
        return [first, tuple(others[0])]
    match number:
        case 115:
            return [[set(item) if isinstance(item, list) and item else {} for item in first]]
        case 124:
            return [float(first), complex(others[0])]
        case 252:
            return [complex(first)]
        case 278:
            return [tuple(tuple(item) if isinstance(item, list) else item for item in first)]
        case 722:
            return [{key: tuple(value) for key, value in first.items()}, *others]
    return arguments


def _list_of_tuples(value: list[Any]) -> list[Any]:
    return [tuple(item) for item in value]


def _all_tuples(value: Any) -> Any:
    return tuple(_all_tuples(item) for item in value) if isinstance(value, list) else value
