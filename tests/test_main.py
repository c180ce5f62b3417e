"""The command line: what is run, what is refused in one line, and the exit codes."""

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import main
from rlvr_limit.study import schema

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
INSTALL = "python3 -m venv .venv && .venv/bin/pip install -q -r requirements.lock"
RUN = f"{INSTALL} && .venv/bin/python main.py"
TEST = f"{INSTALL} && .venv/bin/python -m pytest -q"

CONFIG = '''"""A stub to test the command line with.

More about it.
"""
from ml_collections import ConfigDict, config_dict

def get_config():
    return ConfigDict({
        "job": "report", "n": 3, "rate": 0.1, "deep": True, "seeds": (1, 2), "name": "x", "none": None, "list": [1],
        "optional": config_dict.placeholder(int), "task": {"numbers": 4, "target": {"low": 1}},
        "arms": {"base": {"temperature": 1.0}, "rl": {"temperature": 1.0}},
    })
'''


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "stub.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def ran(monkeypatch) -> list:
    """The configs that the stand-in for the report job was run with."""
    configs = []
    monkeypatch.setitem(sys.modules, "rlvr_limit.evaluation.results", types.SimpleNamespace(run=configs.append))
    return configs


def refusal(capsys, *argv) -> str:
    """The one line on stderr with which the command is refused."""
    assert main.main(["main.py", *map(str, argv)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err.removeprefix("error: ").rstrip("\n")


def test_job_named_by_the_config_runs_with_the_overrides(config, ran):
    overrides = ["--config.n", "5", "--config.rate=2", "--noconfig.deep", "--config.seeds=(7,)", "--config.optional=4"]
    overrides += ["--config.task.target.low=-1", "--config.name=a b", "--config.arms.rl.temperature=.6", "--v=0"]
    assert main.main(["main.py", f"--config={config}", *overrides]) == 0
    assert [one.to_dict() for one in ran] == [
        {
            "job": "report",
            "n": 5,
            "rate": 2.0,
            "deep": False,
            "seeds": (7,),
            "name": "a b",
            "none": None,
            "list": [1],
            "optional": 4,
            "task": {"numbers": 4, "target": {"low": -1}},
            "arms": {"base": {"temperature": 1.0}, "rl": {"temperature": 0.6}},
        }
    ]


def test_config_may_stand_after_its_overrides(config, ran):
    assert main.main(["main.py", "--config.n", "5", "--config", str(config)]) == 0
    assert ran[0].n == 5


def test_job_can_be_chosen_on_the_command_line(config, monkeypatch):
    ran = []
    for job in main.JOBS:
        stand_in = types.SimpleNamespace(run=lambda config: ran.append(config.job))
        monkeypatch.setitem(sys.modules, f"rlvr_limit.jobs.{job}", stand_in)
        assert main.main(["main.py", f"--config={config}", f"--config.job={job}"]) == 0
    assert ran == ["compare", "sample", "grade", "score", "train", "report", "counts", "plan"]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("--config.task.numbrs=3", "unknown field config.task.numbrs: did you mean config.task.numbers?"),
        ("--config.numbers=3", "unknown field config.numbers: did you mean config.task.numbers?"),
        ("--config.tsk.target.low=3", "unknown field config.tsk.target.low: did you mean config.task.target.low?"),
        ("--config.low=3", "unknown field config.low: did you mean config.task.target.low?"),
        (
            "--config.arms.rll.temperature=1",
            "unknown field config.arms.rll.temperature: did you mean config.arms.rl.temperature?",
        ),
        (
            "--config.task.zzz=1",
            "unknown field config.task.zzz: the fields here are config.task.numbers, config.task.target",
        ),
        ("--config.n=abc", "config.n: found 'abc', but an int is right"),
        ("--config.n=1.5", "config.n: found '1.5', but an int is right"),
        ("--config.n", "config.n: found '', but an int is right"),
        ("--config.optional=q", "config.optional: found 'q', but an int is right"),
        ("--config.rate=fast", "config.rate: found 'fast', but a finite float is right"),
        ("--config.deep=maybe", "config.deep: found 'maybe', but a bool is right"),
        (
            "--noconfig.deep=true",
            "--noconfig.deep=true: only a bool is switched off by no, and without a value; "
            "--config.deep=value is right",
        ),
        (
            "--noconfig.n",
            "--noconfig.n: only a bool is switched off by no, and without a value; --config.n=value is right",
        ),
        ("--config.seeds=(1,2", "config.seeds: found '(1,2', but a tuple is right"),
        (
            "--config.task={}",
            "config.task is a group: override its fields one by one, such as --config.task.numbers=value",
        ),
        (
            "--config.arms=1",
            "config.arms is a group: override its fields one by one, such as --config.arms.base.temperature=value",
        ),
        (
            "--config.none=1",
            "config.none takes no override: in the config file write config_dict.placeholder(type) "
            "instead of None, and a tuple instead of a list",
        ),
        (
            "--config.list=1",
            "config.list takes no override: in the config file write config_dict.placeholder(type) "
            "instead of None, and a tuple instead of a list",
        ),
        (
            "--config.job=smple",
            "config.job: found 'smple', but one of compare, sample, grade, score, train, report, counts, plan is right",
        ),
        ("--job=sample", "unknown flag --job: did you mean --config.job?"),
        ("--confg=x.py", "unknown flag --confg: did you mean --config?"),
        ("--qqqqq", "unknown flag --qqqqq: --config=FILE and --config.a.b=value are right"),
        ("extra", "unexpected argument 'extra': overrides are written --config.a.b=value"),
    ],
)
def test_bad_command_line_is_refused_in_one_line(config, ran, capsys, word, line):
    assert refusal(capsys, f"--config={config}", word) == line
    assert ran == []


def test_file_that_is_no_config_is_refused_in_one_line(tmp_path, capsys):
    path = tmp_path / "a.py"
    path.write_text("")
    assert refusal(capsys, "--config", path) == f"{path} is not a config: it defines no get_config()"
    path.write_text("def get_config():\n    return {'job': 'report'}")
    assert refusal(capsys, "--config", path) == f"{path}: get_config() returned dict, ConfigDict is right"
    path.write_text("import ml_collections as m\ndef get_config():\n    return m.ConfigDict({'a': {'b-c': 1}})")
    assert "config.a: found the name 'b-c', but letters" in refusal(capsys, "--config", path)
    path.write_text("from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict()")
    assert "config.job: found None, but one of compare, " in refusal(capsys, "--config", path)
    (tmp_path / "a.yaml").write_text("")
    assert "is not a Python file" in refusal(capsys, "--config", tmp_path / "a.yaml")


def test_what_a_config_file_raises_is_not_hidden(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("def get_config():\n    return {}['missing']")
    with pytest.raises(KeyError, match="missing"):
        main.main(["main.py", f"--config={path}"])


def test_missing_config_is_answered_with_the_list_of_configs(capsys):
    assert main.main(["main.py", "--config=configs/nowhere_to_be_found.py"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: no config file at 'configs/nowhere_to_be_found.py'")
    assert schema.describe_configs(ROOT / "configs") in err


def test_missing_config_names_the_nearest_one(config):
    with pytest.raises(schema.UserError, match=r"no config file at 'stubb' \(did you mean .*stub\.py\?\)"):
        schema.parse_command_line(["main.py", "--config=stubb"], config)


def test_configs_are_described_by_their_first_docstring_line_without_being_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/one.py").write_text(CONFIG)
    (tmp_path / "configs/two_longer.py").write_text("raise SystemExit\ndef get_config():\n    pass")
    (tmp_path / "configs/wrong.py").write_text("def get_config(:")
    (tmp_path / "configs/__init__.py").write_text("")
    assert schema.describe_configs(tmp_path / "configs").split("\n") == [
        "configs (--config=FILE):",
        "  configs/one.py         A stub to test the command line with.",
        "  configs/two_longer.py  (no docstring)",
        "  configs/wrong.py       (not valid Python: line 1, invalid syntax)",
        "",
        "Any field of a config can be overridden: --config.a.b=value. A tuple is written --config.a.b='(1, 2)'.",
    ]


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_lists_configs_and_jobs(capsys, word):
    assert main.main(["main.py", word]) == 0
    out, err = capsys.readouterr()
    assert err == "" and schema.describe_configs(ROOT / "configs") in out
    for job, purpose in main.JOBS.items():
        assert re.search(rf"^  {job} +{re.escape(purpose)}$", out, re.MULTILINE)


def test_ctrl_c_says_how_to_go_on(config, capsys, monkeypatch):
    def run(config):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "rlvr_limit.evaluation.results", types.SimpleNamespace(run=run))
    assert main.main(["main.py", f"--config={config}"]) == 130
    line = "interrupted: everything drawn so far is kept; run the same command to go on\n"
    assert capsys.readouterr() == ("", line)


def test_real_process_refuses_with_exit_code_2_and_without_starting_jax(config, tmp_path):
    """From another folder, with a jax that cannot be imported: the refusal still is one line and no traceback."""
    (tmp_path / "jax.py").write_text("raise SystemExit('jax was imported')")
    command = [sys.executable, ROOT / "main.py", f"--config={config}", "--config.rat=1"]
    process = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    line = "error: unknown field config.rat: did you mean config.rate?\n"
    assert (process.returncode, process.stdout, process.stderr) == (2, "", line)


def test_makefile_and_ci_call_the_two_commands():
    makefile = (ROOT / "Makefile").read_text().splitlines()
    assert makefile[makefile.index("run:") + 1] == f"\t{RUN}"
    assert makefile[makefile.index("test:") + 1] == f"\t{TEST}"
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == TEST
    assert (ROOT / ".ci/run").stat().st_mode & 0o111


def test_readme_gives_the_two_commands():
    lines = [line.strip() for line in README.read_text().splitlines()]
    assert RUN in lines and TEST in lines


def test_lock_is_exact_hashed_and_names_no_index():
    lock = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^\S.*", lock, re.MULTILINE)
    assert "jax==0.10.2 \\" in pins
    assert [pin for pin in pins if not re.fullmatch(r"[a-z0-9-]+==[\w.]+ (; .+ )?\\", pin)] == []
    assert lock.count("\n    --hash=sha256:") >= len(pins)
    assert "://" not in lock and "index" not in lock
