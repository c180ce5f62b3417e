"""The plan of the house: who may import whom, and what no file may contain. The checks are in tests/support/house.py.

Each is run over all files, and is shown to catch planted wrongs and to let pass what is right.
"""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.house import (
    FLOORS,
    LONGEST,
    MODULES,
    ROOT,
    all_files,
    asks_for_the_backend,
    brings_jax_where_none_is_needed,
    class_names_twice,
    crowded_folders,
    goes_up_or_sideways,
    has_a_vague_function,
    imports_a_command,
    imports_a_config,
    imports_a_test,
    is_a_drawer_for_everything,
    is_too_long,
    kernel_knows_more_than_jax,
    knows_ml_collections,
    report_knows_the_rest,
    room,
    runs_at_import,
    swallows_every_error,
    too_many_inner_floors,
)

# Each check with files that it must refuse, then files that it must let pass.
PLANTED: dict[Callable[[str, str], list[str]], tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {
    goes_up_or_sideways: (
        [
            ("rlvr_limit/types.py", "import rlvr_limit.passk"),
            ("rlvr_limit/distributed/mesh.py", "from rlvr_limit import records"),
            ("rlvr_limit/rl/losses.py", "from rlvr_limit.engine.rollout import rollout"),
            ("rlvr_limit/engine/engine.py", "def f():\n    from ..commands import compare"),
            ("rlvr_limit/grading/math/grade.py", "from ...tasks import countdown"),
            ("rlvr_limit/models/decoder.py", "from .. import engine"),
            ("rlvr_limit/training/loop.py", "from rlvr_limit.evaluation import sample"),
            ("rlvr_limit/commands/compare.py", "import main"),
            ("rlvr_limit/commands/compare.py", "from rlvr_limit import drawer"),
            ("rlvr_limit/drawer.py", ""),
        ],
        [
            ("rlvr_limit/engine/rollout.py", "from rlvr_limit.grading.countdown import grade"),
            ("rlvr_limit/engine/engine.py", "from . import programs\nfrom rlvr_limit.engine import programs"),
            ("rlvr_limit/training/loop.py", "from ..rl import losses\nfrom rlvr_limit.study import arms"),
            ("main.py", "from rlvr_limit.settings import schema"),
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
            ("rlvr_limit/models/decoder.py", "from ml_collections import ConfigDict"),
            ("rlvr_limit/evaluation/counts.py", "from ml_collections import ConfigDict"),
            ("kernels/x.py", "import ml_collections.config_dict"),
        ],
        [
            ("rlvr_limit/settings/command_line.py", "from ml_collections import ConfigDict"),
            ("configs/base.py", "import ml_collections"),
        ],
    ),
    asks_for_the_backend: (
        [
            ("rlvr_limit/engine/engine.py", "import jax\ndef f():\n    return jax.default_backend() == 'cpu'"),
            ("main.py", "from jax import default_backend"),
            ("rlvr_limit/planning/prepare.py", "import jax\ndef f():\n    return jax.devices()[0].device_kind"),
        ],
        [
            ("kernels/top_p/__init__.py", "import jax\ndef f():\n    return jax.default_backend()"),
            ("rlvr_limit/distributed/mesh.py", "from jax import default_backend"),
        ],
    ),
    brings_jax_where_none_is_needed: (
        [
            ("rlvr_limit/types.py", "import jax.numpy as jnp"),
            ("rlvr_limit/grading/countdown.py", "def f():\n    from flax import nnx"),
            ("rlvr_limit/records/files.py", "from kernels import top_p"),
        ],
        [("rlvr_limit/passk/curve.py", "import jax"), ("rlvr_limit/records/files.py", "import numpy, pyarrow")],
    ),
    runs_at_import: (
        [
            ("rlvr_limit/distributed/mesh.py", "import jax\nMESH = jax.make_mesh((8,), ('data',))"),
            ("rlvr_limit/distributed/mesh.py", "import jax\nMESH = Mesh(jax.devices(), ('data',))"),
            ("rlvr_limit/engine/engine.py", "step = jax.jit(lambda x: x)"),
            ("rlvr_limit/commands/compare.py", "FLAGS = flags.DEFINE_string('x', '', '')"),
            ("rlvr_limit/commands/compare.py", "HOME = os.environ['HOME']"),
            ("rlvr_limit/commands/compare.py", "def _load():\n    return open('x').read()\nTEXT = _load()"),
            ("rlvr_limit/report/style.py", "matplotlib.use('Agg')"),
            ("rlvr_limit/models/decoder.py", "try:\n    import flax\nexcept ImportError:\n    flax = None"),
            ("configs/x.py", "for i in range(3):\n    pass"),
            ("main.py", "if len(JOBS):\n    main()"),
        ],
        [
            ("main.py", '"""Doc."""\nimport sys\nif __name__ == "__main__":\n    sys.exit(main(sys.argv))'),
            ("rlvr_limit/types.py", "Grader = Callable[[int], bool]\n'''A function.'''\nclass A:\n    x = f()"),
            (
                "rlvr_limit/tokenizer/text.py",
                "if TYPE_CHECKING:\n    import a\nx: int\nA = re.compile('a')\nB = 3 * (1, 2)",
            ),
            ("rlvr_limit/records/schema.py", "def _t(x):\n    return Table(pa.schema(x.split()))\nALL = (_t('a b'),)"),
            ("tests/conftest.py", "os.environ['A'] = 'b'"),
        ],
    ),
    swallows_every_error: (
        [("rlvr_limit/models/decoder.py", "def f():\n    try:\n        g()\n    except:\n        pass")],
        [("rlvr_limit/models/decoder.py", "def f():\n    try:\n        g()\n    except KeyError:\n        raise")],
    ),
    is_a_drawer_for_everything: (
        [("rlvr_limit/utils.py", ""), ("rlvr_limit/engine/utils/a.py", ""), ("tests/helpers.py", "")],
        [("rlvr_limit/passk/curve.py", "")],
    ),
    is_too_long: (
        [("README.md", "\n" * (LONGEST + 1))],
        [("README.md", "\n" * LONGEST)],
    ),
    has_a_vague_function: (
        [
            ("rlvr_limit/a.py", "def of(x):\n    return x"),
            ("kernels/a.py", "class A:\n    def same(self):\n        pass"),
        ],
        [("rlvr_limit/a.py", "def kind_of(x):\n    return x"), ("tests/a.py", "def one():\n    return 1")],
    ),
    imports_a_test: (
        [
            ("tests/rl/test_a.py", "from tests.models.test_model import x"),
            ("tests/benchmarks/b.py", "from tests.models import test_model"),
            ("tests/rl/test_a.py", "from test_model import x"),
        ],
        [("tests/rl/test_a.py", "from tests.support import models"), ("rlvr_limit/a.py", "import test_x")],
    ),
    imports_a_command: (
        [("rlvr_limit/commands/compare.py", "from rlvr_limit.commands import sample")],
        [("main.py", "from rlvr_limit.commands import sample"), ("tests/test_x.py", "import rlvr_limit.commands.plan")],
    ),
    report_knows_the_rest: (
        [
            ("rlvr_limit/report/page.py", "from rlvr_limit import records"),
            ("rlvr_limit/report/page.py", "import kernels.draw"),
        ],
        [("rlvr_limit/report/page.py", "from rlvr_limit import passk\nfrom rlvr_limit.types import UserError")],
    ),
}

# Each check of the whole house, likewise with houses.
CHAIN = {f"rlvr_limit/a/{n}.py": f"from rlvr_limit.a import {m}" for n, m in zip("bcde", "cdef", strict=True)}
PLANTED_HOUSES: dict[Callable[[dict[str, str]], list[str]], tuple[list[dict[str, str]], list[dict[str, str]]]] = {
    crowded_folders: (
        [{f"rlvr_limit/a/m{i}.py": "" for i in range(MODULES + 1)}],
        [{f"rlvr_limit/a/{name}.py": "" for name in ("__init__", "__main__", *range(MODULES))}],
    ),
    too_many_inner_floors: (
        [
            {**CHAIN, "rlvr_limit/a/f.py": ""},
            {"rlvr_limit/a/b.py": "from . import c", "rlvr_limit/a/c.py": "import rlvr_limit.a.b"},
            {"rlvr_limit/a/b/x.py": "from rlvr_limit.a import c", "rlvr_limit/a/c.py": "from .b import x"},
        ],
        [{**CHAIN, "rlvr_limit/a/e.py": "", "rlvr_limit/a/f.py": ""}, {**CHAIN, "rlvr_limit/b/f.py": ""}],
    ),
    class_names_twice: (
        [{"rlvr_limit/a.py": "class Row:\n    pass", "kernels/b.py": "class Row:\n    pass"}],
        [{"rlvr_limit/a.py": "class Row:\n    pass", "tests/b.py": "class Row:\n    pass"}],
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


@pytest.mark.parametrize("check", PLANTED_HOUSES, ids=lambda check: check.__name__)
def test_the_house_has_no(check):
    refused, passed = PLANTED_HOUSES[check]
    assert [house for house in refused if not check(house)] == []
    assert [wrong for house in passed for wrong in check(house)] == []
    assert check(all_files()) == []


def test_every_file_of_the_house_is_looked_at():
    files = all_files()
    assert {"main.py", "rlvr_limit/types.py", "rlvr_limit/settings/schema.py", "tests/test_floors.py"} <= files.keys()
    rooms = {room(path) for path in files if path.startswith("rlvr_limit/") and path != "rlvr_limit/__init__.py"}
    assert rooms == FLOORS.keys() - {"main"}


def test_main_stays_under_60_lines():
    assert all_files()["main.py"].count("\n") < 60


@pytest.mark.parametrize(
    ("module", "strangers"),
    [
        ("rlvr_limit.evaluation.sample", ("matplotlib", "rlvr_limit.report")),
        (
            "rlvr_limit.evaluation.counts",
            ("rlvr_limit.engine.engine", "rlvr_limit.engine.programs", "rlvr_limit.models"),
        ),
        ("rlvr_limit.distributed.mesh", ("rlvr_limit.passk", "rlvr_limit.rl")),
        ("rlvr_limit.settings.command_line", ("jax",)),
    ],
)
def test_importing_a_room_does_not_bring(module, strangers):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(strangers) & set(done.stdout.split())
