"""The program of a response as EvalPlus finds it before it runs one (its sanitize.py at 26d6d00).

It takes the longest run of lines that is valid Python, wherever fences are, and of that imports and what the wanted
function needs: no examples, no tests.
"""

import ast
import codeop
import itertools

from rlvr_limit.grading.code.extract import FENCE, extract, opens_fence

MOST_PARSED = 4_000_000  # characters for one response, seconds at most; what was found by then counts
_INVALID = (SyntaxError, ValueError, RecursionError, MemoryError)


def sanitise(response: str, entry: str, prompt: str = "") -> str:
    """The program that defines `entry`; empty where a response has neither such a definition nor a fence.

    Where the prompt ends in an opened fence, EvalPlus ends the response at the line that closes it. It misses programs
    of one line by an error of its own; here they count, where no two lines are Python.
    """
    opened = opens_fence(prompt)
    text = response.partition(f"\n{FENCE}\n")[0] if opened else response
    one_line = (line for line in text.split("\n") if line.startswith(f"def {entry}("))
    program = longest_code(text) or next(one_line, "") or extract(response, prompt)
    kept = definitions(program, entry)
    return kept if opened or FENCE in response or f"def {entry}" in kept else ""


def longest_code(text: str) -> str:
    """The first of the runs of two or more lines that parse with the most lines that are not blank.

    EvalPlus parses every run. Here an error's line ends the runs that are worth it: none that parses goes beyond it.
    """
    lines = text.split("\n")
    filled = [0, *itertools.accumulate(bool(line.strip()) for line in lines)]
    best, found, left = 0, "", MOST_PARSED
    for first in range(len(lines)):
        # Prose ends at its first line, so that not all of a long response is parsed for each of its lines.
        width, stop = 1, -1
        while stop < 0 and filled[-1] - filled[first] > best and left > 0:
            run = "\n".join(lines[first : first + width])
            left -= len(run) + 1
            if wrong := _line_of_error(run, codeop.PyCF_ALLOW_INCOMPLETE_INPUT):
                stop = first + wrong - 1
            elif first + width >= len(lines):
                stop = len(lines)
            width *= 2
        while stop > first + 1 and filled[stop] - filled[first] > best and left > 0:
            run = "\n".join(lines[first:stop])
            left -= len(run)
            if wrong := _line_of_error(run):
                stop = min(stop - 1, first + wrong - 1)
            else:
                best, found = filled[stop] - filled[first], run
    return found


def _line_of_error(program: str, flags: int = 0) -> int:
    """0 for valid Python, else the line, counted from 1, before which any valid beginning of it ends.

    With PyCF_ALLOW_INCOMPLETE_INPUT 0 for what may become valid by more lines, too.
    """
    last = program.count("\n") + 1
    try:
        compile(program, "<response>", "exec", ast.PyCF_ONLY_AST | flags, dont_inherit=True)
    except SyntaxError as error:
        if flags and error.msg == "incomplete input":
            return 0
        # Inside of an f-string Python counts lines in another way.
        return error.lineno if error.lineno and not error.msg.startswith("f-string") else last
    except _INVALID:
        return last
    return 0


def definitions(program: str, entry: str) -> str:
    """Imports, and those definitions at the top level that `entry` needs by name; all of it where that is nothing.

    As EvalPlus: the first definition of a name counts, and it is a class, a function with a return, or an assignment,
    without decorators. A program that does not parse is left as it is.
    """
    try:
        body = ast.parse(program).body
    except _INVALID:
        return program
    imports: list[ast.stmt] = []
    defined: dict[str, ast.stmt] = {}
    for node in body:
        if isinstance(node, ast.Import) or (isinstance(node, ast.ImportFrom) and node.module != "__future__"):
            imports.append(node)
        elif name := _name_defined(node):
            defined.setdefault(name, node)
    needed, new = {entry}, [entry]
    while new:
        name = new.pop()
        more = _identifiers(defined[name]) - needed if name in defined else set()
        needed |= more
        new += more
    kept = [*imports, *(node for name, node in defined.items() if name in needed)]
    return "\n".join(ast.get_source_segment(program, node) for node in kept).strip() or program


def _name_defined(node: ast.stmt) -> str:
    match node:
        case ast.ClassDef(name=name, decorator_list=[]):
            return name
        case ast.FunctionDef(name=name, decorator_list=[]) | ast.AsyncFunctionDef(name=name, decorator_list=[]):
            return name if any(isinstance(part, ast.Return) for part in ast.walk(node)) else ""
        case ast.Assign(targets=[ast.Name(id=name), *_]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
        # Of `a, b = c` it takes the first name that stands alone.
        case ast.Assign(targets=[_], value=ast.Name(id=name)) | ast.AnnAssign(value=ast.Name(id=name)):
            return name
    return ""


def _identifiers(node: ast.stmt) -> set[str]:
    """Every name in the text of a definition, those of attributes, arguments and keywords too."""
    parts = (part for part in ast.walk(node) if not isinstance(part, ast.Constant))
    fields = (value for part in parts for _, value in ast.iter_fields(part))
    texts = itertools.chain.from_iterable(value if isinstance(value, list) else [value] for value in fields)
    return {name for text in texts if isinstance(text, str) for name in text.split(".")}
