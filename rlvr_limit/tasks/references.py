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
    known = {"problem_id": {p.id: p.id for p in problems}, "problem": {p.question: p.id for p in problems}}
    texts: dict[str, list[str]] = {}
    for row in files.read_file(path, "config.score.references"):
        fields = [name for name in known if name in row.fields]
        if len(fields) != 1:
            raise UserError(f"{row.place}: found {len(fields)} of the fields problem_id and problem; it must be one")
        (by,) = fields
        named = row.fields[by]
        row.text("text")
        if not isinstance(named, str) or named not in known[by]:
            raise row.refuse(by, named, f"one of this study, as {next(iter(known[by]), '')!r:.60}")
        texts.setdefault(known[by][named], []).append(row.fields["text"])
    return {problem: tuple(of_problem) for problem, of_problem in texts.items()}
