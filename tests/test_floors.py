"""The plan of the house, held by `ast`: who may import whom, and what no file may contain.

Every check is a function (path, source) -> what is wrong. Each is run over all files, and is shown to catch planted
wrongs and to let pass what is right.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("rlvr_limit", "kernels", "configs", "tests", "notebooks")
SUFFIXES = (".py", ".html", ".css", ".js", ".md")
LONGEST = 400

FLOORS = {
    "types": 0,
    **dict.fromkeys(("mesh", "hosts", "tokenizer", "passk", "records", "scheduler", "grading"), 1),
    **dict.fromkeys(("model", "tasks"), 2),
    **dict.fromkeys(("likelihood", "checkpoint", "engine"), 3),
    **dict.fromkeys(("rollout", "rl", "report", "planning"), 4),
    "jobs": 5,
    "main": 6,
}
WITHOUT_JAX = ("types", "tokenizer", "records", "scheduler", "grading")
BRINGS_JAX = ("jax", "jaxlib", "flax", "optax", "orbax", "kernels")

CLASS_NAME = re.compile(r"_?[A-Z][a-z][A-Za-z0-9]*")
PURE_CALLS = ("dict.fromkeys", "frozenset", "range", "re.compile", "tuple")
PURE_METHODS = ("items", "join", "split")


def room(path: str) -> str:
    """rlvr_limit/engine/engine.py -> engine; main.py -> main; anything else -> its top folder."""
    parts = Path(path).with_suffix("").parts
    return parts[1] if parts[0] == "rlvr_limit" and len(parts) > 1 else parts[0]


def imports(path: str, source: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything imported anywhere in the file, relative imports made absolute."""
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
        if top(name) == "ml_collections" and is_ours(path) and room(path) not in ("main", "configs", "jobs")
    ]


def asks_for_the_backend(path: str, source: str) -> list[str]:
    if not is_ours(path) or room(path) in ("kernels", "mesh"):
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


def all_files() -> dict[str, str]:
    """Path from the root to text, of every file that people read."""
    inside = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts)
    paths = [path for path in [*inside, *ROOT.glob("*")] if path.suffix in SUFFIXES and path.is_file()]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


# Each check with files that it must refuse, then files that it must let pass.
PLANTED: dict[Callable[[str, str], list[str]], tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {
    goes_up_or_sideways: (
        [
            ("rlvr_limit/types.py", "import rlvr_limit.passk"),
            ("rlvr_limit/scheduler.py", "from rlvr_limit import records"),
            ("rlvr_limit/rl/losses.py", "from rlvr_limit.engine.rollout import rollout"),
            ("rlvr_limit/engine/engine.py", "def f():\n    from ..jobs import compare"),
            ("rlvr_limit/grading/math.py", "from ..tasks import countdown"),
            ("rlvr_limit/model.py", "from . import engine"),
            ("rlvr_limit/compare.py", "import main"),
            ("rlvr_limit/compare.py", "from rlvr_limit import drawer"),
            ("rlvr_limit/drawer.py", ""),
        ],
        [
            ("rlvr_limit/rollout.py", "from rlvr_limit import engine\nfrom rlvr_limit.grading.countdown import grade"),
            ("rlvr_limit/engine/engine.py", "from . import programs\nfrom rlvr_limit.engine import programs"),
            ("rlvr_limit/train.py", "from ..rl import losses\nfrom rlvr_limit.jobs import settings"),
            ("main.py", "from rlvr_limit.jobs import settings"),
            ("tests/test_x.py", "import main"),
        ],
    ),
    kernel_knows_more_than_jax: (
        [
            ("kernels/top_p/tpu.py", "from rlvr_limit.types import Sample"),
            ("kernels/top_p/reference.py", "import flax"),
        ],
        [("kernels/top_p/gpu.py", "import functools\nimport jax.numpy as jnp\nimport numpy\nfrom . import reference")],
    ),
    imports_a_config: (
        [("main.py", "from configs import countdown"), ("rlvr_limit/x.py", "import configs.countdown")],
        [
            ("configs/countdown.py", "from configs import base"),
            ("rlvr_limit/x.py", "from . import configs_of_arms"),
        ],
    ),
    knows_ml_collections: (
        [
            ("rlvr_limit/model.py", "from ml_collections import ConfigDict"),
            ("kernels/x.py", "import ml_collections.config_dict"),
        ],
        [
            ("rlvr_limit/settings.py", "from ml_collections import ConfigDict"),
            ("configs/base.py", "import ml_collections"),
        ],
    ),
    asks_for_the_backend: (
        [
            ("rlvr_limit/engine/engine.py", "import jax\ndef f():\n    return jax.default_backend() == 'cpu'"),
            ("main.py", "from jax import default_backend"),
            ("rlvr_limit/prepare.py", "import jax\ndef f():\n    return jax.devices()[0].device_kind"),
        ],
        [
            ("kernels/top_p/__init__.py", "import jax\ndef f():\n    return jax.default_backend()"),
            ("rlvr_limit/mesh.py", "from jax import default_backend"),
        ],
    ),
    brings_jax_where_none_is_needed: (
        [
            ("rlvr_limit/types.py", "import jax.numpy as jnp"),
            ("rlvr_limit/grading/countdown.py", "def f():\n    from flax import nnx"),
            ("rlvr_limit/scheduler.py", "from kernels import top_p"),
        ],
        [("rlvr_limit/passk/curve.py", "import jax"), ("rlvr_limit/records/files.py", "import numpy, pyarrow")],
    ),
    runs_at_import: (
        [
            ("rlvr_limit/mesh.py", "import jax\nMESH = jax.make_mesh((8,), ('data',))"),
            ("rlvr_limit/mesh.py", "import jax\nMESH = Mesh(jax.devices(), ('data',))"),
            ("rlvr_limit/engine/engine.py", "step = jax.jit(lambda x: x)"),
            ("rlvr_limit/compare.py", "FLAGS = flags.DEFINE_string('x', '', '')"),
            ("rlvr_limit/compare.py", "HOME = os.environ['HOME']"),
            ("rlvr_limit/compare.py", "def _load():\n    return open('x').read()\nTEXT = _load()"),
            ("rlvr_limit/report/style.py", "matplotlib.use('Agg')"),
            ("rlvr_limit/model.py", "try:\n    import flax\nexcept ImportError:\n    flax = None"),
            ("configs/x.py", "for i in range(3):\n    pass"),
            ("main.py", "if len(JOBS):\n    main()"),
        ],
        [
            ("main.py", '"""Doc."""\nimport sys\nif __name__ == "__main__":\n    sys.exit(main(sys.argv))'),
            ("rlvr_limit/types.py", "Grader = Callable[[int], bool]\n'''A function.'''\nclass A:\n    x = f()"),
            ("rlvr_limit/tokenizer.py", "if TYPE_CHECKING:\n    import a\nx: int\nA = re.compile('a')\nB = 3 * (1, 2)"),
            ("rlvr_limit/records/schema.py", "def _t(x):\n    return Table(pa.schema(x.split()))\nALL = (_t('a b'),)"),
            ("tests/conftest.py", "os.environ['A'] = 'b'"),
        ],
    ),
    swallows_every_error: (
        [("rlvr_limit/model.py", "def f():\n    try:\n        g()\n    except:\n        pass")],
        [("rlvr_limit/model.py", "def f():\n    try:\n        g()\n    except KeyError:\n        raise")],
    ),
    is_a_drawer_for_everything: (
        [("rlvr_limit/utils.py", ""), ("rlvr_limit/engine/utils/a.py", ""), ("tests/helpers.py", "")],
        [("rlvr_limit/passk/curve.py", "")],
    ),
    is_too_long: (
        [("README.md", "\n" * (LONGEST + 1))],
        [("README.md", "\n" * LONGEST)],
    ),
}
CHECKS = pytest.mark.parametrize("check", PLANTED, ids=lambda check: check.__name__)


@CHECKS
def test_no_file(check):
    read_as_text = (is_too_long, is_a_drawer_for_everything)
    files = {path: text for path, text in all_files().items() if path.endswith(".py") or check in read_as_text}
    wrong = [f"{path}: {what}" for path, text in files.items() for what in check(path, text)]
    assert not wrong, "\n".join([f"{check.__name__}:", *wrong])


@CHECKS
def test_planted_wrong_is_caught(check):
    refused, _ = PLANTED[check]
    assert [path for path, source in refused if not check(path, source)] == []


@CHECKS
def test_what_is_right_passes(check):
    _, passed = PLANTED[check]
    assert [what for path, source in passed for what in check(path, source)] == []


def test_every_file_of_the_house_is_looked_at():
    found = all_files()
    assert {"main.py", "rlvr_limit/types.py", "rlvr_limit/settings.py", "tests/test_floors.py"} <= found.keys()
    rooms = {room(path) for path in found if path.startswith("rlvr_limit/") and path != "rlvr_limit/__init__.py"}
    assert rooms <= FLOORS.keys()


def test_main_stays_under_60_lines():
    assert all_files()["main.py"].count("\n") < 60
