"""A run on a code benchmark: programs judged in the job's workers, hostile ones harmless, graded again in place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from main import main
from rlvr_limit import checkpoint, records
from rlvr_limit.grading.code import evalplus
from rlvr_limit.grading.code.evalplus import EvalPlusTests
from rlvr_limit.grading.code.grade import VERSION, check, grade, shorten
from rlvr_limit.grading.pool.pool import map_verdicts
from rlvr_limit.models.decoder import ModelConfig, init_params
from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import command_line
from rlvr_limit.tokenizer import load_tokenizer
from rlvr_limit.types import Problem, Status
from tests.support.smoke import REPOSITORY, environment
from tests.support.tokenizer_files import write_qwen2

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are run on Linux only")

ARMS = ("base", "rl")
FENCE = "```"
PROBLEMS = [
    ("def double(x):\n    '''Twice x.'''\n", "double", "    return 2 * x\n", [[1], [-3]], [[10**20], ["ab"]]),
    ("def ends(x):\n    '''First and last.'''\n", "ends", "    return x[0], x[-1]\n", [[[1, 2]]], [[[5]], [[7, 8, 9]]]),
]

DOUBLE = [
    ("def double(x):\n    return x + x\n", True, "graded", ""),
    ("def double(x):\n    return 2 * abs(x)\n", False, "graded", "base 1: another value"),
    ("def double(x):\n    return 2 * x if x != 'ab' else 'ab'\n", False, "graded", "plus 1: another value"),
    ("import os\ndef double(x):\n    os.kill(os.getppid(), 9)\n    return 2 * x\n", False, "graded", "PermissionError"),
    ("import os\ndef double(x):\n    open('{mark}', 'w').write('x')\n    return 2 * x\n", False, "graded", "Error"),
    ("def double(x):\n    while True: pass\n", False, "timeout", "CPU time"),
    ("", False, "no_answer", "no program"),
]
ENDS = [
    ("def ends(xs):\n    first, *_ = xs\n    return first, xs[-1]\n", True, "graded", ""),
    ("def ends(xs):\n    return [xs[0], xs[-1]]\n", False, "graded", "base 0: another value"),
    ("import os\ndef ends(xs): return os._exit(0)\n", False, "graded", "exit with code 0"),
    ("class E:\n    def __eq__(self, o): return True\ndef ends(xs): return E()\n", False, "graded", "another value"),
    ("def ends(xs):\n    open('{secret}').read()\n    return xs[0], xs[-1]\n", False, "graded", "Error"),
    ("def ends(xs:\n", False, "graded", "SyntaxError"),
    ("def ends(xs):\n    return xs[0], xs[-1]\n", True, "graded", ""),
]
"""Programs, their right verdict and a word of its detail: samples 1 to 7 of the base, after one of the model's own."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints of random weights, and a file of two problems in the format of HumanEval+."""
    root = tmp_path_factory.mktemp("code")
    size = load_tokenizer(write_qwen2(root / "tokenizer")).vocab_size
    shape = ModelConfig(size, width=32, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=48, context=600)
    for seed, name in enumerate(ARMS):
        checkpoint.export_hf(root / name, init_params(shape, jax.random.key(seed)), shape, root / "tokenizer")
    names = ("prompt", "entry_point", "canonical_solution", "base_input", "plus_input")
    rows = [{"task_id": f"HumanEval/{i}", "atol": 0, **dict(zip(names, row, strict=True))}
            for i, row in enumerate(PROBLEMS)]  # fmt: skip
    (root / "data").mkdir()
    (root / "data" / "HumanEvalPlus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "temporary").mkdir()
    (root / "secret").write_text("the expected outputs")
    return root


def words(folder: Path, *overrides: str) -> list[str]:
    changed = [
        f"data_dir={folder / 'data'}", "benchmarks=('humanevalplus',)", f"runs={folder / 'runs'}",
        "allow_rows=('humanevalplus',)",
        *(f"arms.{name}.weights={folder / name}" for name in ARMS),
        "sampling.max_tokens=8", "sampling.n=8", "engine.max_num_seqs=8", "engine.steps_per_call=4",
        "grading.workers=2", *overrides,
    ]  # fmt: skip
    return ["main.py", "--config=configs/coder1_code.py", *(f"--config.{word}" for word in changed)]


def root_of(folder: Path) -> Path:
    return prepare(command_line.parse_command_line(words(folder), REPOSITORY / "configs" / "countdown.py")).root


def programs(folder: Path) -> dict[tuple[str, str, int], tuple[str, bool, str, str]]:
    """(arm, problem, sample index) -> (program, correct, status, a word of the detail). The arm rl is always right."""
    places = {"{mark}": str(folder / "mark"), "{secret}": str(folder / "secret")}
    found = {}
    for i, rows in enumerate((DOUBLE, ENDS)):
        for index, (text, *said) in enumerate(rows, start=1):
            for name, path in places.items():
                text = text.replace(name, path)
            found["base", f"humanevalplus/{i}", index] = (text, *said)
            found["rl", f"humanevalplus/{i}", index] = rows[0]
    return found


def store(root: Path, folder: Path) -> None:
    """The programs as samples, all of them right in the eyes of an older grader. The prompt has opened their fence."""
    with records.Writer(root, "samples") as samples, records.Writer(root, "verdicts") as verdicts:
        for (arm, name, index), (program, *_) in programs(folder).items():
            text = f"{program}{FENCE}\n" if program else ""
            row = {"arm": arm, "problem_id": name, "index": index}
            drawn = {"tokens": [1], "logp": [-1.0], "logp_model": [-1.0], "stop": "eos", "text": text, "time": 0.0}
            judged = {"correct": True, "status": "graded", "extracted": text, "detail": ""}
            samples.append([row | drawn])
            verdicts.append([row | {"grader": "code-0", "against": ""} | judged])


@pytest.fixture(scope="module")
def graded(folder: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The run folder after one sample of each problem was drawn, the programs were stored, and job=grade was run."""
    before, here = jax.config.jax_compilation_cache_dir, os.getcwd()
    os.chdir(REPOSITORY)
    try:
        assert main(words(folder, "job=sample", "sampling.n=1")) == 0
        root = root_of(folder)
    finally:
        os.chdir(here)
        jax.config.update("jax_compilation_cache_dir", before)
    store(root, folder)
    command = [sys.executable, *words(folder, "job=grade")]
    surroundings = environment() | {"TMPDIR": str(folder / "temporary")}
    return root, subprocess.run(command, cwd=REPOSITORY, env=surroundings, capture_output=True, text=True)


def verdicts(root: Path, grader: str = VERSION) -> dict[tuple[str, str, int], dict]:
    rows = records.read(root, "verdicts", where={"grader": grader}).to_pylist()
    return {(row["arm"], row["problem_id"], row["index"]): row for row in rows}


def test_programs_are_judged_rightly_in_the_workers_of_the_job(graded, folder):
    root, done = graded
    assert done.returncode == 0, done.stderr
    found = verdicts(root)
    assert len(found) == 2 * 2 * 8
    for key, (_, correct, status, word) in programs(folder).items():
        assert (found[key]["correct"], found[key]["status"]) == (correct, status), found[key]
        assert word in found[key]["detail"], found[key]


def test_samples_of_a_model_are_judged_while_they_are_drawn(graded):
    found = [row for (_, _, index), row in verdicts(graded[0]).items() if index == 0]
    assert len(found) == 4 and not any(row["correct"] for row in found)
    assert {row["status"] for row in found} <= {"graded", "no_answer"}


def test_hostile_programs_leave_nothing_behind(graded, folder):
    assert not (folder / "mark").exists()
    assert (folder / "secret").read_text() == "the expected outputs"
    assert list((folder / "temporary").glob("program-*")) == []
    assert graded[1].returncode == 0


def test_grading_again_is_in_place_and_says_what_changed(graded, folder, compilation_cache, capsys, monkeypatch):
    root, done = graded
    older = verdicts(root, "code-0")
    assert len(older) == 2 * 14 and all(row["correct"] for row in older.values())
    assert f"changed to {VERSION}: 1 right to no_answer, 1 right to timeout, 9 right to wrong" in done.stdout
    monkeypatch.chdir(REPOSITORY)
    before = {path: path.stat().st_mtime_ns for path in (root / "records").rglob("*.parquet")}
    assert main(words(folder, "job=grade")) == 0
    assert {path: path.stat().st_mtime_ns for path in (root / "records").rglob("*.parquet")} == before
    assert main(words(folder, "job=report")) == 0
    head, *rows = (root / "report" / "problems.csv").read_text().splitlines()
    assert head == "problem,guess_rate,c_base,n_base,c_rl,n_rl"
    assert rows == ["humanevalplus/0,,1,8,7,8", "humanevalplus/1,,2,8,7,8"]
    lines = (root / "report" / "further.csv").read_text().splitlines()
    # The base's program that fails "plus 1" is right on them: 1 + 1 + 2 of 16.
    assert [line.split(",")[-1] for line in lines if "base tests" in line and "pass@1" in line] == ["25.0 %", "87.5 %"]


def test_memory_of_a_program_is_the_same_in_a_worker_as_out_of_it():
    tests = EvalPlusTests("HumanEval/0", "f", "def f(x): return x", 0, evalplus.pack([[1]], []))
    program = "import mmap\ndef f(x):\n    there = mmap.mmap(-1, 3 << 30)\n    return x"
    assert check(tests, program).correct
    problem = Problem("p", "", "", (), tests)
    (verdict,) = map_verdicts(grade, [(problem, f"{FENCE}python\n{program}\n{FENCE}")], 1, 60.0, shorten)
    assert verdict.correct and verdict.status == Status.GRADED, verdict
