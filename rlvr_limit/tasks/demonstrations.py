"""Answers to imitate: a file of prompts and responses."""

from __future__ import annotations

from pathlib import Path

from rlvr_limit.tasks import files


def load(path: str | Path) -> tuple[tuple[str, str], ...]:
    """(prompt, response) of every row of a file, {"prompt": text, "response": text}, white space and all.

    Raises UserError naming the file, or the file and line, of what is missing or empty.
    """
    rows = files.read_file(path, "file of demonstrations")
    for row in rows:
        row.text("prompt"), row.text("response")
    return tuple((row.fields["prompt"], row.fields["response"]) for row in rows)
