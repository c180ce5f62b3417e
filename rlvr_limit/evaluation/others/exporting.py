"""Writes the samples on record as others' tools read them: logs of lm-evaluation-harness and inspect_ai, and counts.

export/lm_eval/ARM/samples_BENCHMARK.jsonl  a line a problem, with all of its responses
export/inspect/ARM/BENCHMARK.json           a sample an epoch of its problem
export/counts.csv                           problem,arm,n,correct: what job=counts reads
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlvr_limit import records
from rlvr_limit.evaluation.review import reference
from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.folders import written
from rlvr_limit.study import comparability
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.prepared import Study, benchmark_of
from rlvr_limit.study.verdicts import counted
from rlvr_limit.types import Problem, Stop, UserError

METRIC = "exact_match"
STOP_REASONS = {Stop.LENGTH: "max_tokens", Stop.UNKNOWN: "unknown"}
Drawn = list[dict[str, Any]]
"""Samples of a problem, each with its verdict, in order of index."""


def write_exports(study: Study) -> Place:
    """Writes all three for every arm and benchmark; returns their folder. UserError where nothing is graded yet.

    Of adaptive sampling the first stage alone: what follows it was drawn because of what it showed.
    """
    counts = []
    with written(study.root / "export", last="counts.csv") as here:
        for entry in study.evaluated:
            by_benchmark: dict[str, list[tuple[Problem, Drawn]]] = defaultdict(list)
            for problem, drawn in _by_problem(study, entry):
                by_benchmark[benchmark_of(problem.id) or "problems"].append((problem, drawn))
                counts.append((problem.id, entry.name, len(drawn), sum(row["correct"] for row in drawn)))
            for benchmark, rows in by_benchmark.items():
                called = benchmark.replace("/", "_")
                lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in _lm_eval(study, entry, rows))
                _write(here / "lm_eval" / entry.name / f"samples_{called}.jsonl", lines)
                _write(here / "inspect" / entry.name / f"{called}.json", _inspect(study, entry, benchmark, rows))
        if not counts:
            raise UserError(f"{study.root}: no sample has a verdict yet, so there is nothing to export")
        with (here / "counts.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("problem", "arm", "n", "correct"), *counts])
    return study.root / "export"


def _by_problem(study: Study, entry: EvaluatedArm) -> Iterator[tuple[Problem, Drawn]]:
    """Each problem of an arm that has graded samples, with these."""
    said = counted(study, entry.name, ["problem_id", "index", "correct", "extracted", "status"]).to_pylist()
    judged = {(row["problem_id"], row["index"]): row for row in said}
    stored = records.read(study.root, "samples", ["problem_id", "index", "text", "stop"], {"arm": entry.name})
    problems = {problem.id: problem for problem in study.setups[entry.arm].problems}
    for name, rows in itertools.groupby(stored.to_pylist(), key=lambda row: row["problem_id"]):
        keys = ((row, judged.get((name, row["index"]))) for row in rows)
        drawn = [row | verdict for row, verdict in keys if verdict]
        if name in problems and (drawn := [row for row in drawn if row["index"] < study.first(problems[name])]):
            yield problems[name], drawn


def _lm_eval(study: Study, entry: EvaluatedArm, rows: list[tuple[Problem, Drawn]]) -> Iterator[dict[str, Any]]:
    settings = _settings(study, entry, {"lengths": "max_gen_toks"})
    for i, (problem, drawn) in enumerate(rows):
        target, prompt = reference(problem) or "", problem.prompt or problem.question
        yield {
            "doc_id": i,
            "doc": {"id": problem.id, "problem": problem.question, "answer": target},
            "target": target,
            "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": settings}},
            "resps": [[row["text"] for row in drawn]],
            "filtered_resps": [row["extracted"] for row in drawn],
            "filter": study.task.version,
            "metrics": [METRIC],
            "doc_hash": _hash(problem.question),
            "prompt_hash": _hash(prompt),
            "target_hash": _hash(target),
            METRIC: sum(row["correct"] for row in drawn) / len(drawn),
        }


def _inspect(study: Study, entry: EvaluatedArm, benchmark: str, rows: list[tuple[Problem, Drawn]]) -> Iterator[str]:
    """The log in pieces: a head, and each sample by itself."""
    epochs, now = max(len(drawn) for _, drawn in rows), datetime.now(UTC).isoformat(timespec="seconds")
    count = sum(len(drawn) for _, drawn in rows)
    ids = [problem.id for problem, _ in rows]
    settings = _settings(study, entry, {"lengths": "max_tokens"})
    plan = {"name": "plan", "steps": [{"solver": "generate", "params": {}}], "config": settings}
    head = {
        "version": 2,
        "status": "success",
        "eval": {
            "run_id": _hash(str(study.root))[:22],
            "created": now,
            "task": benchmark,
            "task_id": _hash(f"{study.root} {entry.name} {benchmark}")[:22],
            "dataset": {"name": benchmark, "samples": len(rows), "sample_ids": ids, "shuffled": False},
            "model": f"none/{entry.name}",
            "model_generate_config": settings,
            "config": {"epochs": epochs},
            "packages": {},
        },
        "plan": plan,
        "results": {"total_samples": count, "completed_samples": count, "scores": []},
        "stats": {"started_at": now, "completed_at": now},
    }
    yield json.dumps(head, ensure_ascii=False)[:-1] + ', "samples": ['
    comma = ""
    for problem, drawn in rows:
        asked = problem.prompt or problem.question
        for row in drawn:
            reply = {"role": "assistant", "content": row["text"], "source": "generate"}
            stop = STOP_REASONS.get(row["stop"], "stop")
            score = {"value": "C" if row["correct"] else "I", "answer": row["extracted"], "explanation": row["status"]}
            sample = {
                "id": problem.id,
                "epoch": row["index"] + 1,
                "input": problem.question,
                "target": reference(problem) or "",
                "messages": [{"role": "user", "content": asked}, reply],
                "output": {"model": entry.name, "choices": [{"message": reply, "stop_reason": stop}]},
                "scores": {study.task.version: score},
            }
            yield comma + json.dumps(sample, ensure_ascii=False)
            comma = ",\n"
    yield "]}\n"


def _settings(study: Study, entry: EvaluatedArm, names: dict[str, str]) -> dict[str, float | int]:
    """Recorded conditions that are numbers, by these names or their own."""
    values = comparability.conditions_of(study, entry).values
    said: dict[str, float | int] = {}
    for name in ("temperature", "top_p", "top_k", "lengths"):
        try:
            value = float(values[name].partition(",")[0])
        except ValueError:  # unknown, or what a search is to find
            continue
        if name != "top_k" or value:
            said[names.get(name, name)] = value if name in ("temperature", "top_p") else int(value)
    return said


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _write(path: Path, pieces: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        for piece in pieces:
            file.write(piece)
