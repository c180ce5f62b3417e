"""A study of samples that others drew, from what the import kept of them: graded, drawn and exported like any other."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rlvr_limit import records
from rlvr_limit.distributed.mesh import make_mesh
from rlvr_limit.grading.named import for_bare_answers, grader_named
from rlvr_limit.records.storage import is_url
from rlvr_limit.settings import GROUPS, Arm, EngineConfig, ImportedSettings, MeshConfig, Sampling, Settings, schema
from rlvr_limit.study import comparability, run_folder
from rlvr_limit.study.prepared import ImportedArm, ImportedSamples, Setup, Study, Task
from rlvr_limit.study.setups import benchmark_digest, check_page, code_task, text_task
from rlvr_limit.tasks import benchmarks
from rlvr_limit.tasks.imported.sources import ArmFiles, arms_of
from rlvr_limit.tasks.questions import Question
from rlvr_limit.types import Problem, UserError, not_allowed

KEPT = "imported.json"
"""In the run folder, written last of an import: the problems, and what the files say of each arm."""


def identity(s: ImportedSettings, arms: tuple[ArmFiles, ...]) -> dict[str, Any]:
    """What an import is: files by their content, and how they are read."""
    files = {arm.name: [list(file) for file in arm.digests] for arm in arms}
    return {"imported": files, "benchmarks": list(s.benchmarks), "skip_lines": s.skip_lines}


def folder_of(s: ImportedSettings, arms: tuple[ArmFiles, ...]) -> Path:
    """The run folder. UserError for an object store."""
    if is_url(s.workdir):
        raise not_allowed("config.workdir", s.workdir, "a folder of this machine")
    return Path(s.workdir).expanduser() if s.workdir else Path(s.runs) / "imported" / schema.digest(identity(s, arms))


def known_questions(s: ImportedSettings) -> tuple[dict[str, Question], tuple[str, ...]]:
    """(the questions of config.benchmarks by id, what a reader must know of them)."""
    loaded = [benchmarks.load(name, s.data_dir, 0, s.allow_rows) for name in s.benchmarks]
    return {q.id: q for found, _ in loaded for q in found}, tuple(note for _, said in loaded for note in said)


def open_imported(s: ImportedSettings) -> Study:
    """The study of an import that is done. UserError where there is none, and for arms that may not be compared."""
    arms = arms_of(s.imported)
    root = folder_of(s, arms)
    if not (root / KEPT).exists():
        raise UserError(f"{root}: nothing was imported there yet; type the same without --config.job={s.job}")
    decisive = identity(s, arms)
    # Before anything is read: the folder may be one of other files.
    records.open_run(root, decisive, run_folder.session(s, {}))
    kept = json.loads((root / KEPT).read_text(encoding="utf-8"))
    known, said = known_questions(s)
    questions = [_question(row, known, root) for row in kept["problems"]]
    given = {name: ImportedArm(**fields) for name, fields in kept["arms"].items()}
    task = _task(s, questions, (*said, *kept["notes"]))
    most = max(max(arm.counts.values()) for arm in given.values())
    settings = Settings(
        name="imported",
        job="compare" if s.job == "imported" else s.job,
        title=s.title or " and ".join(given),
        purpose=s.purpose,
        caveat=s.caveat,
        run_dir=str(root),
        benchmarks=s.benchmarks,
        arms={name: Arm(name, _group(name, list(given))) for name in given},
        sampling=Sampling(n=most),
        grading=replace(s.grading, workers=s.grading.workers or max(2, (os.cpu_count() or 2) - 1)),
        report=s.report,
        allow_differ=s.allow_differ,
    )
    problems = tuple(Problem(q.id, q.question, "", (), q.answer) for q in questions)
    check_page(problems)
    setup = Setup(None, None, "", benchmark_digest(questions), "imported", problems, (), settings.sampling)
    samples = ImportedSamples(given, s.allow_unknown, command_of(s), tuple(kept["notes"]))
    setups = dict.fromkeys(given, setup)
    mesh = make_mesh(MeshConfig())
    study = Study(settings, root, mesh, EngineConfig(), task, setups, imported=samples)
    comparability.differences(study, study.evaluated)
    run_folder.keep_prompts(study)
    return study


def command_of(s: ImportedSettings) -> str:
    """What to type for the same page."""
    fields = {name: getattr(s, name) for name in ("imported", "workdir", "benchmarks", "data_dir", "allow_differ")}
    said = [f"--config.{name}={_quoted(str(value))}" for name, value in fields.items() if value]
    return " ".join(["python main.py --config=configs/imported.py", *said, *["--config.skip_lines"] * s.skip_lines])


def _quoted(text: str) -> str:
    """A tuple of names is typed between double quotes."""
    return f'"{text}"' if "'" in text and not set(text) & set('"$`\\!') else shlex.quote(text)


def _question(row: Mapping[str, Any], known: Mapping[str, Question], root: Path) -> Question:
    """A problem as it was kept; of one whose reference is a benchmark's, that benchmark's question."""
    if row["answer"] is None:
        if row["id"] not in known:
            raise UserError(
                f"problem {row['id']}: its reference was config.benchmarks' when {root} was made, and is gone"
            )
        return known[row["id"]]
    answer = row["answer"]
    return Question(row["id"], row["question"], answer if isinstance(answer, str) else tuple(answer))


def _task(s: ImportedSettings, questions: list[Question], notes: tuple[str, ...]) -> Task:
    if any(q.is_code for q in questions):
        return code_task(s.benchmarks, questions, notes)
    return text_task(for_bare_answers(grader_named(s.grading.grader)), notes)


def _group(name: str, names: list[str]) -> str:
    """base is the arm called so, or the first; an arm called like another group is of it, any other is an rl arm."""
    if name == ("base" if "base" in names else names[0]):
        return "base"
    return name if name in GROUPS else "rl"
