"""Reads the files of others' samples into a run folder: samples, their own verdicts, and what the files say of both.

Everything goes to a folder aside and takes its place when all files were read, so that a file with a bad line leaves
nothing behind. A million samples take a minute or two and memory for the problems and a batch's requests, not for the
samples.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlvr_limit import records
from rlvr_limit.evaluation.grade import verdict_row
from rlvr_limit.evaluation.others.problems import MetProblem, MetProblems, reference_of
from rlvr_limit.grading.named import OWN, grader_named
from rlvr_limit.records.progress import Progress
from rlvr_limit.records.storage.files import os_errors, publish
from rlvr_limit.settings import ImportedSettings
from rlvr_limit.study import run_folder
from rlvr_limit.study.imported import KEPT, folder_of, identity, known_questions
from rlvr_limit.tasks.imported.fields import ImportedRow
from rlvr_limit.tasks.imported.formats import is_request, read_row
from rlvr_limit.tasks.imported.sources import ArmFiles, arms_of, read_rows
from rlvr_limit.types import Status, UserError, Verdict

BATCH, SHOWN = 2048, 5


@dataclass
class _ReadArm:
    """What was read of an arm."""

    files: ArmFiles
    counts: Counter[str] = field(default_factory=Counter)  # samples by problem
    formats: Counter[str] = field(default_factory=Counter)  # rows
    variants: set[str] = field(default_factory=set)
    recorded: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    prompts: dict[str, str] = field(default_factory=dict)  # digest of the first one by problem
    rows: int = 0
    silent: set[str] = field(default_factory=set)  # conditions that some row does not record
    own: int = 0  # samples with a verdict of theirs
    unread: list[str] = field(default_factory=list)  # what was wrong with each bad row
    asked: dict[Any, Any] = field(default_factory=dict)  # requests of a batch by their custom_id

    @property
    def own_name(self) -> str:
        """What their verdicts are called by: the format of the first row."""
        return f"{OWN}-{next(iter(self.formats))}"


def import_samples(s: ImportedSettings) -> None:
    """Imports config.imported into its run folder, unless that was done. UserError naming file and line of what is bad.

    Prints what was read of each arm.
    """
    arms = arms_of(s.imported)
    root = folder_of(s, arms)
    if (root / "manifest.json").exists():
        records.open_run(root, identity(s, arms), run_folder.session(s, {}))
    if (root / KEPT).exists():
        return
    known, _ = known_questions(s)
    aside = root / "importing"
    shutil.rmtree(aside, ignore_errors=True)
    problems = MetProblems(known.values())
    try:
        read = [_read_arm(arm, problems, aside, s) for arm in arms]
        kept = _kept(read, problems, s)
        if not (root / "manifest.json").exists():
            records.open_run(root, identity(s, arms), run_folder.session(s, {}))
        with os_errors("write", root):
            shutil.rmtree(root / "records", ignore_errors=True)
            (aside / "records").rename(root / "records")
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    publish(root / KEPT, lambda file: file.write(json.dumps(kept, indent=1, ensure_ascii=False).encode()))
    print("\n".join(kept["notes"]), flush=True)


def _read_arm(files: ArmFiles, problems: MetProblems, aside: Path, s: ImportedSettings) -> _ReadArm:
    arm = _ReadArm(files)
    samples, verdicts = [], []
    with (
        records.Writer(aside, "samples") as sample_writer,
        records.Writer(aside, "verdicts") as verdict_writer,
        Progress(aside, f"import {files.name}", len(files.paths), "files") as progress,
    ):
        for done, path in enumerate(sorted(files.paths, key=_is_answers), start=1):
            for problem, row in _rows_of_file(path, arm, problems):
                for text, stop, right in zip(row.responses, row.stops, row.verdicts, strict=True):
                    index = arm.counts[problem.id]
                    arm.counts[problem.id] += 1
                    samples.append(
                        {"arm": files.name, "problem_id": problem.id, "index": index, "tokens": [], "logp": []}
                        | {"logp_model": [], "stop": str(stop), "text": text, "time": 0.0}
                    )
                    if right is not None:
                        arm.own += 1
                        verdict = Verdict(right, Status.GRADED)
                        verdicts.append(verdict_row(files.name, problem.id, index, arm.own_name, "", verdict))
                if len(samples) >= BATCH:
                    sample_writer.append(samples)
                    verdict_writer.append(verdicts)
                    samples, verdicts = [], []
            progress.update(done, samples=arm.counts.total())
        sample_writer.append(samples)
        verdict_writer.append(verdicts)
    if arm.unread and not (s.skip_lines and arm.rows):
        more = f"; and {len(arm.unread) - SHOWN:,} more" if len(arm.unread) > SHOWN else ""
        advice = "; --config.skip_lines leaves such rows out and says so" if arm.rows else ""
        raise UserError("; ".join(arm.unread[:SHOWN]) + more + advice)
    return arm


def _is_answers(path: Path) -> bool:
    """False for a file of a batch's requests, which is read before the answers."""
    fields = next((fields for _, fields in read_rows(path)), {})
    return isinstance(fields, UserError) or not is_request(fields)


def _rows_of_file(path: Path, arm: _ReadArm, problems: MetProblems) -> Iterator[tuple[MetProblem, ImportedRow]]:
    """Each row with its problem. What is wrong with others goes to arm.unread."""
    variant, task = None, _task_of(path, arm.files)
    for place, fields in read_rows(path):
        if isinstance(fields, UserError):
            arm.unread.append(str(fields))
            continue
        if is_request(fields):
            arm.asked[fields["custom_id"]] = fields
            continue
        if arm.asked and fields.get("custom_id") in arm.asked:
            fields = {"request": arm.asked[fields["custom_id"]], **fields}
        try:
            format_name, row = read_row(fields)
            variant = row.variant if variant is None else variant
            if row.variant != variant:
                continue
            problem = problems.meet(row, row.task or task, place)
        except UserError as error:
            arm.unread.append(f"{place}: {error}")
            continue
        except (TypeError, KeyError, AttributeError, IndexError, ValueError) as error:
            arm.unread.append(f"{place}: not understood ({type(error).__name__}: {error!s:.80})")
            continue
        arm.formats[format_name] += 1
        if variant:
            arm.variants.add(variant)
        arm.silent |= arm.recorded.keys() ^ row.recorded.keys() if arm.rows else set()
        for name, value in row.recorded.items():
            arm.recorded[name].add(value)
        arm.rows += 1
        if row.prompt and problem.id not in arm.prompts:
            arm.prompts[problem.id] = hashlib.sha256(row.prompt.encode("utf-8", "replace")).hexdigest()
        yield problem, row


def _task_of(path: Path, files: ArmFiles) -> str:
    """The benchmark that a file's name says; its folder's, where an arm's files lie in several; else none."""
    found = re.fullmatch(r"(?:samples|details)_(.+?)(?:_\d{4}-\d\d-\d\d.*)?\.(?:jsonl|parquet)", path.name)
    if found:
        return re.sub(r"[|:]", "_", found[1])
    return path.parent.name if len({other.parent for other in files.paths}) > 1 else ""


def _kept(read: list[_ReadArm], problems: MetProblems, s: ImportedSettings) -> dict[str, Any]:
    """What stands in KEPT: problems that all arms have, with references that agree, and what is known of each arm."""
    common = [name for name in problems.by_id if all(arm.counts[name] for arm in read)]
    if len(common) < 2:
        told = "; ".join(f"{a.files.name} has {len(+a.counts):,}, first {next(iter(a.counts), 'none')!r}" for a in read)
        raise UserError(f"{len(common)} problems that all arms have, where bands need at least two: {told}")
    grader = grader_named(s.grading.grader)
    chosen = {name: problems.by_id[name] for name in common}
    given = {name: reference_of(problem, grader, s.grading.grader == "math") for name, problem in chosen.items()}
    rows = [{"id": name, "question": problem.question, "answer": given[name]} for name, problem in chosen.items()]
    arms, notes = {}, []
    for arm in read:
        of_format = " and ".join(arm.formats) + (f" (filter {', '.join(sorted(arm.variants))})" if arm.variants else "")
        listed = [path.name for path in arm.files.paths]
        called = ", ".join(listed if len(listed) < 4 else [listed[0], "...", listed[-1]])
        recorded = {name: _said(values) for name, values in arm.recorded.items() if name not in arm.silent}
        if all(name in arm.prompts for name in common):
            digest = hashlib.sha256("".join(arm.prompts[name] for name in sorted(common)).encode())
            recorded["template"] = digest.hexdigest()[:12]
        counts = {name: arm.counts[name] for name in common}
        arms[arm.files.name] = {
            "recorded": recorded,
            "counts": counts,
            "own": arm.own_name if arm.own else "",
        }
        least, most = min(counts.values()), max(counts.values())
        each = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        notes.append(
            f"{arm.files.name}: {len(listed):,} file{'s' * (len(listed) > 1)} ({called}) read as {of_format}: "
            f"{sum(counts.values()):,} samples of {len(common):,} problems, {each} each."
        )
        if without := [name for name in arm.counts if name not in chosen]:
            notes.append(
                f"{arm.files.name}: {len(without):,} problems that not all arms have are left out, the first of them "
                f"{without[0]!r} ({arm.counts[without[0]]:,} samples)."
            )
        if arm.unread:
            notes.append(
                f"{arm.files.name}: {len(arm.unread):,} rows could not be read and are left out, the first of them "
                f"{arm.unread[0]}."
            )
    return {"problems": rows, "arms": arms, "notes": notes}


def _said(values: set[str]) -> str:
    """The one value of a condition, or all that the rows have."""
    return " and ".join(sorted(values))
