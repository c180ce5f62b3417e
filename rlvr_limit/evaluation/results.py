"""From the records of a run to its pages. Needs no accelerator and no weights."""

from __future__ import annotations

import datetime
import itertools
import json
from collections import defaultdict
from typing import Any

import numpy as np

from rlvr_limit import records, report
from rlvr_limit.evaluation.arm_results import arm_results, first_rows
from rlvr_limit.evaluation.others.judging import with_verdicts
from rlvr_limit.evaluation.review import (
    judged_again,
    judged_chains,
)
from rlvr_limit.evaluation.score_inputs import REFERENCES, SOLVER
from rlvr_limit.images.preview import previews
from rlvr_limit.models.log_probs import perplexity
from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.folders import written
from rlvr_limit.records.training_log import training_rows
from rlvr_limit.study import comparability
from rlvr_limit.study.arms import EvaluatedArm, runs_of_algorithms
from rlvr_limit.study.matched_temperature import read_matching
from rlvr_limit.study.prepared import Study, benchmark_of
from rlvr_limit.tasks.prompts import ANSWER_ONLY
from rlvr_limit.types import Problem

PAPERS_K = 256
"""The k of Delta_SE in Yue et al. 2025, Fig. 8."""

EVERY_FIELD = "Fields that were changed on the command line: manifest.json in the run folder holds the whole config."


def write_report(study: Study, refresh: int = 0) -> tuple[Place, str]:
    """Draws pages, figures and tables into the run folder; the page to open first, and what it lacks, "" for nothing.

    Several benchmarks or panels get a folder each, and a page that leads to them. While samples or verdicts are
    lacking, a page shows what there is and says what it lacks, and a browser loads it again every `refresh` seconds.
    """
    by_benchmark: dict[str, list[Problem]] = defaultdict(list)
    for problem in study.problems:
        by_benchmark[benchmark_of(problem.id)].append(problem)
    pages = {
        ", ".join(filter(None, (name, panel))): results_of(study, name, problems, panel, refresh)
        for name, problems in by_benchmark.items()
        for panel in study.panels
    }
    s, root = study.settings, study.root / "report"
    with written(root, last=report.PAGE) as here:
        if len(pages) == 1:
            report.write(next(iter(pages.values())), here)
        else:
            report.write_all(s.title, s.purpose, s.caveat, pages, here)
    interims = [page if isinstance(page, report.Interim) else page.interim for page in pages.values()]
    lacking = sum(arm.wanted - arm.graded for interim in interims if interim for arm in interim.arms)
    return root / report.PAGE, f" (interim: {lacking:,} graded samples are lacking)" if lacking else ""


def results_of(
    study: Study, benchmark: str, problems: list[Problem], panel: str = "", refresh: int = 0
) -> report.Results | report.Interim:
    """Everything the page of one benchmark and panel shows; where no two arms of several can be compared yet, how far
    they are.

    An arm is shown once every problem has a graded sample. Raises UserError where arms may not be compared.
    """
    s, base, judged = study.settings, study.panels[panel][0], None if study.task.exact_chains else judged_chains(study)
    title = ": ".join(filter(None, (s.title, benchmark, panel)))
    notes = _comparison_notes(study, study.panels[panel])
    shown = {entry: arm_results(study, entry, problems, judged) for entry in study.panels[panel]}
    progress = tuple(progress for progress, _, _ in shown.values())
    interim = None
    if any(arm.graded < arm.wanted for arm in progress):
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
        interim = report.Interim(title, s.purpose, len(problems), progress, now, refresh)
    entries = [entry for entry, (_, arm, _) in shown.items() if arm]
    if base not in entries or len(entries) < min(2, len(shown)):
        return interim
    names = [entry.name for entry in entries]
    arms, examples = zip(*(shown[entry][1:] for entry in entries), strict=True)
    arms, judge = with_verdicts(study, arms, problems)
    answer_only = [e.name for e in entries if s.arms[e.arm].prompt == ANSWER_ONLY.name]
    session, command = _last_session(study.root), f"python main.py --config=configs/{s.name}.py"
    every_field = () if study.imported else (EVERY_FIELD,)
    controls = [e.name for e in entries if e.group == "control"]
    trained = dict.fromkeys(study.source(entry).arm for entry in entries)
    return report.Results(
        title=title,
        purpose=s.purpose,
        caveat=s.caveat,
        command=study.imported.command if study.imported else f"{command} --config.seed={s.seed}",
        problems=tuple((p.id, p.question, p.guess_rate) for p in problems),
        arms=arms,
        base=names[0],
        control_of={e.name: controls[0] for e in entries if e.group == "distilled" and controls},
        examples=tuple(itertools.chain(*examples)),
        images={p.id: previews(p.images, report.IMAGES_BYTES // len(problems)) for p in problems if p.images},
        perplexity=_perplexities(study.root, names, {p.id for p in problems}, s.score.answers),
        training={arm: training_rows(study.root, arm) for arm in trained},
        versions={**session["versions"], "device": session["device"]},
        timings=_timings(study.root),
        seed=s.seed if any(study.setups[entry.arm].model for entry in entries) else None,
        notes=(*notes, *judged_again(study, entries, {p.id for p in problems}), *study.task.notes, *every_field),
        delta_se_k=min(s.report.k or PAPERS_K, study.n(problems[0])),
        study=s.name,
        benchmark=benchmark,
        answer_only=answer_only[0] if answer_only else "",
        exact_chains=study.task.exact_chains,
        judge=judge,
        algorithms=runs_of_algorithms(entries),
        interim=interim,
    )


def _comparison_notes(study: Study, entries: list[EvaluatedArm]) -> tuple[str, ...]:
    """What a reader must know of these arms' conditions. Raises UserError where they may not be compared."""
    notes = [*comparability.differences(study, entries), *comparability.same_arms(study, entries)]
    for entry in entries:
        matching = read_matching(study.root, entry.name)
        if matching and matching.temperature is not None:
            last, target = matching.rounds[-1].entropy, matching.target
            notes.append(
                f"{entry.label}: temperature {matching.temperature:.4f} was found in {len(matching.rounds)} rounds; in "
                f"the last of them (a sample of its own, {last.tokens:,} tokens) the entropy of a token was "
                f"{last.mean:.4f} nats (standard error {last.error:.4f}), that of {study.named(matching.aim).label} "
                f"{target.mean:.4f} ({target.error:.4f})."
            )
    return tuple(notes)


def _perplexities(root: Place, arms: list[str], problems: set[str], answers: int) -> dict[tuple[str, str], np.ndarray]:
    """(model, whose text) -> the perplexity of each answer that is scored."""
    perplexities = {}
    for model in arms:
        for whose in (*arms, SOLVER, REFERENCES):
            stored = records.read(root, "scores", ["problem_id", "index", "logp"], {"arm": whose, "model": model})
            logps = first_rows(stored, answers, problems)["logp"].to_pylist()
            if any(logps):
                perplexities[model, whose] = np.array([perplexity(logp) for logp in logps if logp])
    return perplexities


def _last_session(root: Place) -> dict[str, Any]:
    """The last session that did more than draw a page, which may be drawn on another machine."""
    sessions = records.read_manifest(root)["sessions"]
    return next((s for s in reversed(sessions) if s["config"]["job"] != "report"), sessions[-1])


def _timings(root: Place) -> dict[str, float]:
    """Seconds by stage, summed over the sessions that a run took; a stage that was killed left none."""
    total: dict[str, float] = defaultdict(float)
    if not (root / "timings.jsonl").exists():
        return total
    for line in (root / "timings.jsonl").read_text().splitlines():
        row = json.loads(line)
        stage = row["stage"] if row["stage"].startswith("train") else row["stage"].split()[0]
        total[stage] += row["seconds"]
    return dict(total)
