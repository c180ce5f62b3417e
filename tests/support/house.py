"""What the plan of the house allows, held by `ast`. tests/test_floors.py runs it and plants wrongs.

A check of one file is a function (path, source) -> what is wrong; a check of the whole house takes {path: source}.
"""

import ast
import functools
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("rlvr_limit", "kernels", "configs", "tests", "notebooks")
SUFFIXES = (".py", ".html", ".j2", ".css", ".js", ".md", ".cc", ".h")
LONGEST = 400
MODULES = 12
INNER_FLOORS = 4
MAY_SEE_CONFIGS = ("configs", "settings")
VAGUE = ("of", "one", "same", "found")

FLOORS = {
    "types": 0,
    "settings": 1,
    **dict.fromkeys(("passk", "records", "grading", "tokenizer", "images", "distributed"), 2),
    **dict.fromkeys(("models", "tasks"), 3),
    **dict.fromkeys(("rl", "engine", "checkpoint"), 4),
    "report": 5,
    "study": 6,
    "planning": 7,
    **dict.fromkeys(("training", "evaluation"), 8),
    "commands": 9,
    "cli": 10,
    "main": 11,
}
WITHOUT_JAX = ("types", "settings", "tokenizer", "images", "records", "grading", "report")
REPORT_KNOWS = ("passk", "types", "report")
BRINGS_JAX = ("jax", "jaxlib", "flax", "optax", "orbax", "kernels")

CLASS_NAME = re.compile(r"_?[A-Z][a-z][A-Za-z0-9]*")
PURE_CALLS = (
    "dict.fromkeys",
    "frozenset",
    "range",
    "re.compile",
    "str.maketrans",
    "tuple",
    "field",
    "get_type_hints",
    "dataclasses.make_dataclass",
)
PURE_METHODS = ("items", "join", "split")


def room(path: str) -> str:
    """rlvr_limit/engine/engine.py -> engine; main.py -> main; anything else -> its top folder."""
    parts = Path(path).with_suffix("").parts
    return parts[1] if parts[0] == "rlvr_limit" and len(parts) > 1 else parts[0]


@functools.cache
def imports(path: str, source: str) -> tuple[tuple[int, str], ...]:
    """(line, dotted name) of everything imported anywhere in the file, relative imports made absolute."""
    return tuple(_imports(path, source))


def _imports(path: str, source: str) -> Iterator[tuple[int, str]]:
    package = Path(path).parent.parts
    for node in ast.walk(ast.parse(source, filename=path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            stem = ".".join([*base, *filter(None, [node.module])])
            yield from ((node.lineno, f"{stem}.{alias.name}") for alias in node.names)


def top(name: str) -> str:
    return name.partition(".")[0]


def is_ours(path: str) -> bool:
    """The program itself, as against its tests and notebooks."""
    return path == "main.py" or Path(path).parts[0] in ("rlvr_limit", "kernels", "configs")


def goes_up_or_sideways(path: str, source: str) -> list[str]:
    mine = room(path)
    if not is_ours(path) or mine in ("kernels", "configs") or path == "rlvr_limit/__init__.py":
        return []
    if mine not in FLOORS:
        return [f"{mine} has no floor"]
    wrong = []
    for line, name in imports(path, source):
        theirs = name.split(".")[1] if top(name) == "rlvr_limit" and "." in name else top(name)
        if top(name) not in ("rlvr_limit", "main") or theirs == mine:
            continue
        if theirs not in FLOORS or FLOORS[theirs] >= FLOORS[mine]:
            wrong.append(f"line {line}: {mine} (floor {FLOORS[mine]}) imports {name} (floor {FLOORS.get(theirs)})")
    return wrong


def kernel_knows_more_than_jax(path: str, source: str) -> list[str]:
    allowed = {"jax", "numpy", "kernels", *sys.stdlib_module_names}
    return [
        f"line {line}: a kernel imports {name}"
        for line, name in imports(path, source)
        if room(path) == "kernels" and top(name) not in allowed
    ]


def imports_a_config(path: str, source: str) -> list[str]:
    return [
        f"line {line}: {name}"
        for line, name in imports(path, source)
        if top(name) == "configs" and is_ours(path) and room(path) != "configs"
    ]


def knows_ml_collections(path: str, source: str) -> list[str]:
    return [
        f"line {line}: {name}"
        for line, name in imports(path, source)
        if top(name) == "ml_collections" and is_ours(path) and room(path) not in MAY_SEE_CONFIGS
    ]


def asks_for_the_backend(path: str, source: str) -> list[str]:
    if not is_ours(path) or room(path) in ("kernels", "distributed"):
        return []
    questions = ("default_backend", "devices", "device_count")
    found = []
    for node in ast.walk(ast.parse(source, filename=path)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "jax":
            found += [f"line {node.lineno}: {node.attr}"] if node.attr in questions else []
        elif isinstance(node, ast.ImportFrom) and node.module == "jax":
            found += [f"line {node.lineno}: {alias.name}" for alias in node.names if alias.name in questions]
    return found


def brings_jax_where_none_is_needed(path: str, source: str) -> list[str]:
    return [
        f"line {line}: {name}"
        for line, name in imports(path, source)
        if room(path) in WITHOUT_JAX and path.startswith("rlvr_limit/") and top(name) in BRINGS_JAX
    ]


def runs_at_import(path: str, source: str) -> list[str]:
    """Allowed at the top: docstrings, imports, defs, classes, constants, and the two usual `if`s."""
    tree = ast.parse(source, filename=path)
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}

    def is_pure(node: ast.AST, seen: tuple[str, ...] = ()) -> bool:
        """Builds a value and touches nothing: expressions, records, and functions of this file that do the same."""
        for part in ast.walk(node):
            if isinstance(part, ast.Attribute) and part.attr in ("environ", "argv"):
                return False
            if not isinstance(part, ast.Call):
                continue
            name = ast.unparse(part.func)
            last = name.rpartition(".")[2]
            here = name in functions and name not in seen and is_pure(functions[name], (*seen, name))
            known = name in PURE_CALLS or name.startswith("pa.") or CLASS_NAME.fullmatch(last)
            if not (here or known or (isinstance(part.func, ast.Attribute) and last in PURE_METHODS)):
                return False
        return True

    def is_allowed(node: ast.stmt) -> bool:
        match node:
            case ast.Import() | ast.ImportFrom() | ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                return True
            case ast.Expr(value=ast.Constant(value=str())):
                return True
            case ast.Assign(value=value) | ast.AnnAssign(value=value):
                return value is None or is_pure(value)
            case ast.If(test=test):
                return ast.unparse(test) in ("TYPE_CHECKING", "__name__ == '__main__'")
        return False

    if not is_ours(path):
        return []
    return [f"line {node.lineno}: {ast.unparse(node)[:60]}" for node in tree.body if not is_allowed(node)]


def swallows_every_error(path: str, source: str) -> list[str]:
    if not re.search(r"except\s*:", source):
        return []
    return [
        f"line {node.lineno}: bare except"
        for node in ast.walk(ast.parse(source, filename=path))
        if isinstance(node, ast.ExceptHandler) and node.type is None
    ]


def is_a_drawer_for_everything(path: str, source: str) -> list[str]:
    return [f"no {name}" for name in Path(path).with_suffix("").parts if name in ("utils", "util", "helpers", "misc")]


def is_too_long(path: str, source: str) -> list[str]:
    lines = source.count("\n")
    return [f"{lines} lines, more than {LONGEST}"] if lines > LONGEST else []


def has_a_vague_function(path: str, source: str) -> list[str]:
    if not is_ours(path):
        return []
    return [
        f"line {node.lineno}: a function called {node.name}"
        for node in ast.walk(ast.parse(source, filename=path))
        if isinstance(node, ast.FunctionDef) and node.name in VAGUE
    ]


def imports_a_test(path: str, source: str) -> list[str]:
    if top(path.replace("/", ".")) != "tests":
        return []
    return [f"line {line}: {name}" for line, name in imports(path, source) if re.search(r"(^|\.)test_\w+", name)]


def imports_a_command(path: str, source: str) -> list[str]:
    if not is_ours(path) or path == "main.py":
        return []
    return [f"line {line}: {name}" for line, name in imports(path, source) if name.startswith("rlvr_limit.commands.")]


def report_knows_the_rest(path: str, source: str) -> list[str]:
    if room(path) != "report":
        return []
    ours = ((line, name) for line, name in imports(path, source) if top(name) in ("rlvr_limit", "kernels"))
    return [f"line {line}: {name}" for line, name in ours if (name.split(".") + [""])[1] not in REPORT_KNOWS]


# Checks of the whole house.


def crowded_folders(files: Mapping[str, str]) -> list[str]:
    modules = Counter(str(PurePath(p).parent) for p in files if is_module(p) and PurePath(p).stem[:2] != "__")
    crowded = ((folder, count) for folder, count in modules.items() if count > MODULES)
    return [f"{folder} has {count} modules, more than {MODULES}" for folder, count in crowded]


def is_module(path: str) -> bool:
    return path.endswith(".py") and PurePath(path).parts[0] in ("rlvr_limit", "kernels")


def units_below(files: Mapping[str, str]) -> dict[str, dict[str, set[str]]]:
    """folder -> unit -> the units of the same folder that it imports. A unit is a module or a subfolder."""
    below: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    names = {".".join(PurePath(p).with_suffix("").parts) for p in files if is_module(p)}
    for path, source in files.items():
        if not is_module(path) or PurePath(path).name == "__init__.py":
            continue
        mine = PurePath(path).with_suffix("").parts
        for _, name in imports(path, source):
            theirs = tuple(name.split("."))
            while theirs and ".".join(theirs) not in names:
                theirs = theirs[:-1]
            depth = next((i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), None)
            if depth:
                below[".".join(mine[:depth])][mine[depth]].add(theirs[depth])
    return below


def too_many_inner_floors(files: Mapping[str, str]) -> list[str]:
    """Longest chains of imports inside a folder, and circles. The rooms themselves have floors of their own."""
    wrong = []
    for folder, below in units_below(files).items():
        if folder == "rlvr_limit":
            continue

        def chain(unit: str, above: tuple[str, ...] = (), below: Mapping[str, set[str]] = below) -> tuple[str, ...]:
            if unit in above:
                return (*above[above.index(unit) :], unit, "...")
            further = (chain(lower, (*above, unit)) for lower in sorted(below.get(unit, ())))
            deepest = max(further, key=len, default=())
            return deepest if deepest[-1:] == ("...",) else (unit, *deepest)

        chains = [chain(unit) for unit in list(below)]
        circles = [c for c in chains if c[-1] == "..."]
        deepest = max(chains, key=len)
        if circles:
            wrong.append(f"{folder}: a circle of imports: {' > '.join(circles[0][:-1])}")
        elif len(deepest) > INNER_FLOORS:
            wrong.append(f"{folder}: {len(deepest)} inner floors, more than {INNER_FLOORS}: {' > '.join(deepest)}")
    return wrong


def class_names_twice(files: Mapping[str, str]) -> list[str]:
    where = defaultdict(list)
    for path, source in files.items():
        if is_module(path):
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.ClassDef):
                    where[node.name].append(path)
    return [f"class {name} stands in {', '.join(paths)}" for name, paths in where.items() if len(paths) > 1]


@functools.cache
def all_files() -> dict[str, str]:
    """Path from the root to text, of every file that people read."""
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts)
    paths = [path for path in [*inside, *ROOT.glob("*")] if path.suffix in SUFFIXES and path.is_file()]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}
