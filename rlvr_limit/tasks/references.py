"""Other people's answers to the problems, such as the ground truth Y_GT of Yue et al. 2025, Fig. 6: a file of texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlvr_limit.tasks import files
from rlvr_limit.types import Problem, UserError


def load(path: str | Path, problems: Sequence[Problem]) -> dict[str, tuple[str, ...]]:
    """The texts of a file for each problem id, in the order of the file.

    A row is {"text": answer} with either "problem_id" or "problem", the text of a question. Raises UserError naming the
    file, or the file and line, of what is missing, empty or of no problem here.
    """
    path = Path(path)
    if path.suffix not in files.SUFFIXES or not path.is_file():
        endings = ", ".join(files.SUFFIXES)
        raise UserError(f"config.score.references: found no {path}; a file ending in {endings} is right")
    known = {"problem_id": {p.id: p.id for p in problems}, "problem": {p.question: p.id for p in problems}}
    found: dict[str, list[str]] = {}
    for row in files.read([path]):
        fields = [name for name in known if name in row.fields]
        if len(fields) != 1:
            raise UserError(
                f"{row.place}: found {len(fields)} of the fields problem_id and problem, one of them is right"
            )
        (by,) = fields
        named, text = row.fields[by], row.fields.get("text")
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"{row.place}: field 'text' is {text!r:.60}, but a text that is not empty is right")
        if not isinstance(named, str) or named not in known[by]:
            example = next(iter(known[by]), "")
            raise UserError(
                f"{row.place}: field {by!r} is {named!r:.60}, but one of this study, as {example!r:.60}, is right"
            )
        found.setdefault(known[by][named], []).append(text)
    if not found:
        raise UserError(f"{path}: no rows")
    return {name: tuple(texts) for name, texts in found.items()}
