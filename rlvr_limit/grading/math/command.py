"""The command `math`: a file of {"gold": ..., "answer": ...} lines, written back with correct, status and extracted."""

from __future__ import annotations

import argparse
import collections
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlvr_limit.grading.math import grade as mathematics
from rlvr_limit.grading.math.extract import as_response, last_box
from rlvr_limit.grading.pool.pool import map_verdicts
from rlvr_limit.types import Problem, UserError


def main(arguments: list[str]) -> int:
    """Grades every line, in order; nothing is written where a line is malformed. Raises UserError, one line."""
    parser = argparse.ArgumentParser(prog="python -m rlvr_limit.grading math", description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="JSON lines: gold (or a list of golds), answer")
    parser.add_argument("--output", type=Path, required=True, help="the same lines with correct, status, extracted")
    parser.add_argument("--workers", type=int, default=2, help="processes that grade")
    parser.add_argument("--seconds", type=float, default=10.0, help="CPU time that a verdict may take")
    given = parser.parse_args(arguments)
    if given.workers < 1 or given.seconds <= 0:
        raise UserError(f"--workers {given.workers}, --seconds {given.seconds}: both must be more than 0")
    lines = list(read(given.input))
    items = [(_problem(fields), _response(fields["answer"])) for fields in lines]
    verdicts = map_verdicts(mathematics.grade, items, given.workers, given.seconds, mathematics.shorten)
    counts: collections.Counter[str] = collections.Counter()
    try:
        with given.output.open("w", encoding="utf-8", errors="backslashreplace") as out:
            for fields, verdict in zip(lines, verdicts, strict=True):
                said = {"correct": verdict.correct, "status": str(verdict.status), "extracted": verdict.extracted}
                detail = {"detail": verdict.detail} if verdict.detail else {}
                out.write(json.dumps(fields | said | detail, ensure_ascii=False) + "\n")
                counts[verdict.status] += 1
                counts["correct"] += verdict.correct
    except OSError as error:
        raise UserError(f"--output {given.output}: cannot be written ({error.strerror})") from error
    right = counts.pop("correct", 0)
    by_status = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    print(f"{mathematics.VERSION}: {len(lines)} verdicts, {right} correct" + (f" ({by_status})" if lines else ""))
    return 0


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The cases of a file. Raises UserError that names the first line that is none. Empty lines are skipped."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--input {path}: cannot be read ({error})") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _case(line, f"{path}:{number}")


def _case(line: str, place: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{place}: no JSON ({' '.join(str(error).split())})") from error
    if not isinstance(fields, dict):
        raise UserError(f"{place}: found {type(fields).__name__}, but an object with gold and answer is right")
    for name in ("gold", "answer"):
        if name not in fields:
            raise UserError(f"{place}: field {name!r} is missing; there are {', '.join(fields) or 'none'}")
    golds = fields["gold"] if isinstance(fields["gold"], list) else [fields["gold"]]
    if not golds or not all(_is_text(gold) and str(gold).strip() for gold in golds):
        raise UserError(f"{place}: field 'gold' is {fields['gold']!r:.60}, but a text or a list of texts is right")
    if not _is_text(fields["answer"]):
        raise UserError(f"{place}: field 'answer' is {fields['answer']!r:.60}, but a text is right")
    return fields


def _is_text(value: Any) -> bool:
    """A number in JSON is as good as its digits."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _problem(fields: dict[str, Any]) -> Problem:
    """Lines of the same reference and question are one problem, whose equal answers are graded once."""
    gold = fields["gold"]
    answer = tuple(_reference(part) for part in gold) if isinstance(gold, list) else _reference(gold)
    question, prompt = (str(fields.get(name) or "") for name in ("question", "prompt"))
    return Problem(json.dumps([answer, question, prompt]), question, prompt, (), answer)


def _reference(gold: str | int | float) -> str:
    """The answer in a gold that is a whole solution: its last box, or what stands behind ####."""
    text = str(gold).strip()
    behind = text.rpartition("####")[2].strip()
    return last_box(text) or behind or text


def _response(answer: str | int | float) -> str:
    return as_response(str(answer))
