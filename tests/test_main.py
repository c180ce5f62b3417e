"""The command line: what is run, what is refused in one line, and the exit codes."""

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import main
from rlvr_limit.settings import JOBS, command_line

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
INSTALL = "python3 -m venv .venv && .venv/bin/pip install -q -r requirements.lock"
RUN = f"{INSTALL} && .venv/bin/python main.py"
TEST = f"{INSTALL} && .venv/bin/python -m pytest -q"

CONFIG = ROOT / "configs" / "countdown_smoke.py"


def test_job_named_by_the_config_runs_with_the_overrides(monkeypatch):
    ran = []
    for job in JOBS:
        monkeypatch.setitem(sys.modules, f"rlvr_limit.commands.{job}", types.SimpleNamespace(run=ran.append))
        config = ROOT / "configs" / {"counts": "counts.py", "imported": "imported.py"}.get(job, "countdown_smoke.py")
        assert main.main(["main.py", f"--config={config}", f"--config.job={job}", "--config.report.k=3"]) == 0
    assert [settings.job for settings in ran] == list(JOBS) and {settings.report.k for settings in ran} == {3}


def test_bad_command_line_is_refused_in_one_line(capsys):
    assert main.main(["main.py", f"--config={CONFIG}", "--config.sampling.top_p=1.5"]) == 2
    assert capsys.readouterr() == ("", "error: config.sampling.top_p: 1.5 is not in (0, 1]\n")


@pytest.mark.parametrize("word", ["--help", "-h"])
def test_help_lists_configs_and_jobs(capsys, word):
    assert main.main(["main.py", word]) == 0
    out, err = capsys.readouterr()
    assert err == "" and command_line.describe_configs(ROOT / "configs") in out
    for job, purpose in JOBS.items():
        assert re.search(rf"^  {job} +{re.escape(purpose)}$", out, re.MULTILINE)


def test_ctrl_c_says_how_to_go_on(capsys, monkeypatch):
    def run(config):
        raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "rlvr_limit.commands.compare", types.SimpleNamespace(run=run))
    assert main.main(["main.py", f"--config={CONFIG}"]) == 130
    line = "interrupted: everything drawn so far is kept; run the same command to go on\n"
    assert capsys.readouterr() == ("", line)


def test_real_process_refuses_with_exit_code_2_and_without_starting_jax(tmp_path):
    """From another folder, with a jax that cannot be imported: the refusal still is one line and no traceback."""
    (tmp_path / "jax.py").write_text("raise SystemExit('jax was imported')")
    command = [sys.executable, ROOT / "main.py", f"--config={CONFIG}", "--config.sed=1"]
    process = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True)
    line = "error: unknown field config.sed: did you mean config.seed?\n"
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
