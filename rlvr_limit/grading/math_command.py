"""The command `math`: a file of {"gold": ..., "answer": ...} lines, written back with correct, status and extracted."""

import argparse
import json
from pathlib import Path
from typing import Any

from rlvr_limit.grading.case_files import read_json_lines, require_fields, write_verdicts
from rlvr_limit.grading.math import grade as mathematics
from rlvr_limit.grading.math.extract import as_response, last_box
from rlvr_limit.grading.pool.pool import map_verdicts
from rlvr_limit.types import Problem, UserError, Verdict, not_allowed


def main(arguments: list[str]) -> int:
    """Grades every line, in order; nothing is written where a line is malformed. Raises UserError, one line."""
    parser = argparse.ArgumentParser(prog="python -m rlvr_limit.grading math", description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="JSON lines: gold (or a list of golds), answer")
    parser.add_argument("--output", type=Path, required=True, help="the same lines with correct, status, extracted")
    parser.add_argument("--workers", type=int, default=2, help="processes that grade")
    parser.add_argument("--seconds", type=float, default=10.0, help="CPU time that a verdict may take")
    options = parser.parse_args(arguments)
    if options.workers < 1 or options.seconds <= 0:
        raise UserError(f"--workers {options.workers}, --seconds {options.seconds}: both must be more than 0")
    cases = [_checked(fields, place) for place, fields in read_json_lines(options.input)]
    items = [(_problem(case), as_response(str(case["answer"]))) for case in cases]
    verdicts = map_verdicts(mathematics.grade, items, options.workers, options.seconds, mathematics.shorten)
    write_verdicts(options.output, mathematics.VERSION, cases, map(_verdict_fields, verdicts))
    return 0


def _checked(fields: dict[str, Any], place: str) -> dict[str, Any]:
    require_fields(fields, ("gold", "answer"), place)
    golds = fields["gold"] if isinstance(fields["gold"], list) else [fields["gold"]]
    if not golds or not all(_is_text(gold) and str(gold).strip() for gold in golds):
        raise not_allowed(f"{place}: field 'gold'", fields["gold"], "a text or a list of texts")
    if not _is_text(fields["answer"]):
        raise not_allowed(f"{place}: field 'answer'", fields["answer"], "a text")
    return fields


def _is_text(value: Any) -> bool:
    """A number in JSON is as good as its digits."""
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _problem(case: dict[str, Any]) -> Problem:
    """Lines of the same reference and question are one problem, whose equal answers are graded once."""
    gold = case["gold"]
    reference = tuple(map(_final_answer, gold)) if isinstance(gold, list) else _final_answer(gold)
    question, prompt = (str(case.get(name) or "") for name in ("question", "prompt"))
    return Problem(json.dumps([reference, question, prompt]), question, prompt, (), reference)


def _final_answer(gold: str | int | float) -> str:
    """The answer in a gold that may be a whole solution: its last box, or what stands behind ####."""
    text = str(gold).strip()
    return last_box(text) or text.rpartition("####")[2].strip() or text


def _verdict_fields(verdict: Verdict) -> dict[str, Any]:
    fields = {"correct": verdict.correct, "status": str(verdict.status), "extracted": verdict.extracted}
    return fields | ({"detail": verdict.detail} if verdict.detail else {})
