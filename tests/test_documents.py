"""README and docs/: short, linked, and with commands that exist."""

import re
import shlex
from pathlib import Path

import pytest

from rlvr_limit.settings import Settings
from rlvr_limit.settings.command_line import parse_command_line

ROOT = Path(__file__).resolve().parents[1]
PAGES = "configs studies training metrics results performance multihost storage design limits".split()
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def commands(text: str) -> list[list[str]]:
    """Words of every main.py command in fenced blocks and between backticks; a line that ends in \\ goes on."""
    blocks = re.findall(r"```\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    lines += re.findall(r"`(python main\.py [^`\n]+)`", text)
    # The command that gcloud carries ends in the quote that it began with.
    asked = [line[line.index("main.py") :].removesuffix('"') if "--command=" in line else line for line in lines]
    return [shlex.split(line[line.index("main.py") :], comments=True) for line in asked if "main.py --" in line]


def test_the_readme_is_one_page():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.encode()) <= 12_000
    assert text.count("\n") <= 180
    assert max(map(len, text.splitlines())) <= 300


def test_every_hub_name_and_revision_of_a_config_is_in_the_table_with_where_it_was_seen():
    text = (ROOT / "docs" / "studies.md").read_text(encoding="utf-8").partition("## Names on the hub")[2]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines() if row.startswith("| `")]
    seen = {(name, row[1].strip("`")) for row in cells for name in re.findall(r"`([^`]+/[^`]+)`", row[0]) if row[2]}
    asked = set()
    for path in (ROOT / "configs").rglob("*.py"):
        if "def get_config" in path.read_text(encoding="utf-8"):
            settings = parse_command_line(["main.py", f"--config={path}"], ROOT / "configs/countdown.py")
            arms = settings.arms.values() if isinstance(settings, Settings) else ()
            asked |= {(arm.weights, arm.revision) for arm in arms if arm.weights}
    assert asked == seen and len(asked) > 15


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_there(page):
    assert (ROOT / "docs" / f"{page}.md").stat().st_size > 500


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    targets = LINK.findall(path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_name_configs_and_fields_that_there_are(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for words in commands(path.read_text(encoding="utf-8")):
        if "--help" not in words and not any("NAME" in word for word in words):
            parse_command_line(
                [word for word in words if word.startswith(("main.py", "--"))], ROOT / "configs/countdown.py"
            )


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_modules_and_files_that_are_named_are_there(path):
    text = path.read_text(encoding="utf-8")
    files = re.findall(r"`((?:rlvr_limit|kernels|tests|configs|docs)/[\w/.-]+)`", text)
    modules = re.findall(r"python -m ((?:rlvr_limit|tests)[\w.]*)", text)
    missing = [name for name in files if "NAME" not in name and not (ROOT / name).exists()]
    missing += [
        m
        for m in modules
        if "NAME" not in m and not any((ROOT / m.replace(".", "/")).with_suffix(s).exists() for s in (".py", ""))
    ]
    assert missing == []
