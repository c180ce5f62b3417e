"""Finds the program in a response: the last fenced block of Python, or what follows a fence that the prompt opened."""

import ast
import re

_FENCE = re.compile(r"^[ \t]*```[ \t]*([A-Za-z0-9_+-]*)[^\n`]*$", re.MULTILINE)
_OPENED = re.compile(r"```(?:python|py)?\s*\Z", re.IGNORECASE)
PYTHON = ("python", "py", "python3")


def extract(response: str, prompt: str = "") -> str:
    """The program's text; empty where there is none.

    Where the prompt ends in an opened fence, the response begins with the program, which ends at the next fence or with
    the response. Otherwise it is the last closed block that is marked as Python, or the last closed block.
    """
    fences = list(_FENCE.finditer(response))
    if _OPENED.search(prompt):
        # Some models open the fence once more.
        start = fences[0].end() if fences and fences[0][1] and not response[: fences[0].start()].strip() else 0
        ends = [fence.start() for fence in fences if fence.start() >= start]
        return response[start : ends[0] if ends else len(response)].strip("\n")
    marked = other = ""
    opened = None
    for fence in fences:
        # A fence with a language opens a block, even where the one before was never closed.
        if opened is None or fence[1]:
            opened = fence
            continue
        block = response[opened.end() : fence.start()].strip("\n")
        if block.strip():
            other = block
            marked = block if opened[1].lower() in PYTHON else marked
        opened = None
    return marked or other


def definitions(program: str, entry: str) -> str:
    """Imports, and the definitions and assignments at the top level that `entry` needs: no examples, no tests.

    As EvalPlus does before it runs a program. A program that does not parse, or defines no `entry`, is left as it is.
    """
    try:
        body = ast.parse(program).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return program
    defined = [(node, _names_defined(node)) for node in body]
    if not any(entry in names for _, names in defined):
        return program
    needed, new = {entry}, {entry}
    while new:
        using = [node for node, names in defined if names & new]
        new = {part.id for node in using for part in ast.walk(node) if isinstance(part, ast.Name)} - needed
        needed |= new
    kept = [node for node, names in defined if names & needed or isinstance(node, ast.Import | ast.ImportFrom)]
    return "".join(f"{ast.unparse(node)}\n" for node in kept)


def _names_defined(node: ast.stmt) -> set[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return {name}
        case ast.Assign(targets=targets):
            return {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
            return {name}
    return set()
