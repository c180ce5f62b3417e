"""Answers to imitate: a file of prompts and responses."""

from __future__ import annotations

from pathlib import Path

from rlvr_limit.tasks import files
from rlvr_limit.types import UserError


def load(path: str | Path) -> tuple[tuple[str, str], ...]:
    """(prompt, response) of every row of a file, {"prompt": text, "response": text}.

    Raises UserError naming the file, or the file and line, of what is missing or empty.
    """
    path = Path(path)
    if path.suffix not in files.SUFFIXES or not path.is_file():
        endings = ", ".join(files.SUFFIXES)
        raise UserError(f"file of demonstrations: found no {path}; a file ending in {endings} is right")
    found = []
    for row in files.read([path]):
        for field in ("prompt", "response"):
            text = row.fields.get(field)
            if not isinstance(text, str) or not text.strip():
                raise UserError(f"{row.place}: field {field!r} is {text!r:.60}, but a text that is not empty is right")
        found.append((row.fields["prompt"], row.fields["response"]))
    if not found:
        raise UserError(f"{path}: no rows")
    return tuple(found)
