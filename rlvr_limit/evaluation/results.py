"""From the records of a run to its pages. Needs no accelerator and no weights."""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlvr_limit import passk, records, report
from rlvr_limit.evaluation import cache_error, entropy_matching
from rlvr_limit.evaluation.adaptive import second_stage
from rlvr_limit.evaluation.review import Judged, judged_chains, reference
from rlvr_limit.evaluation.score_inputs import REFERENCES, SOLVER
from rlvr_limit.grading.math import string_rules
from rlvr_limit.models.log_probs import perplexity
from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.folders import written
from rlvr_limit.records.training_log import training_rows
from rlvr_limit.study import conditions
from rlvr_limit.study.prepared import Evaluated, Study, benchmark_of
from rlvr_limit.tasks.prompts import ANSWER_ONLY
from rlvr_limit.types import Problem, Status, Stop, UserError

PAPERS_K = 256
"""The k of Delta_SE in Yue et al. 2025, Fig. 8."""

EVERY_FIELD = "Fields that were changed on the command line: manifest.json in the run folder holds the whole config."

EXAMPLES = 64
"""Stored samples kept for the page per problem and arm, right and other ones in turns."""

PAGE = "index.html"

ANSWERS = 12
"""Answers listed per problem and arm, those that were read most often."""


def write_report(study: Study) -> Place:
    """Draws pages, figures and tables into the run folder and returns the page to open first.

    Several benchmarks or panels get a folder each, and a page that leads to them.
    """
    by_benchmark: dict[str, list[Problem]] = defaultdict(list)
    for problem in study.problems:
        by_benchmark[benchmark_of(problem.id)].append(problem)
    studies = {
        ", ".join(filter(None, (name, panel))): study_of(study, name, problems, panel)
        for name, problems in by_benchmark.items()
        for panel in study.panels
    }
    s, root = study.settings, study.root / "report"
    with written(root, last=PAGE) as here:
        if len(studies) == 1:
            report.write(next(iter(studies.values())), here)
        else:
            report.write_all(s.title, s.purpose, s.caveat, studies, here)
    return root / PAGE


def study_of(study: Study, benchmark: str, problems: list[Problem], panel: str = "") -> report.Results:
    """Everything the page of one benchmark and panel shows.

    Raises UserError naming an arm that has fewer than n graded samples, or may not be compared with its base.
    """
    s, entries = study.settings, study.panels[panel]
    compared = _compared(study, entries)
    arms, examples = [], []
    judged = judged_chains(study)
    for entry in entries:
        arm, shown = _arm(study, entry, problems, judged)
        arms.append(arm)
        examples += shown
    asked = [e.name for e in entries if s.arms[e.arm].prompt == ANSWER_ONLY.name]
    session = records.read_manifest(study.root)["sessions"][-1]
    controls = [e.name for e in entries if e.group == "control"]
    distilled = [e.name for e in entries if e.group == "distilled"]
    return report.Results(
        title=": ".join(filter(None, (s.title, benchmark, panel))),
        purpose=s.purpose,
        caveat=s.caveat,
        command=f"python main.py --config=configs/{s.name}.py --config.seed={s.seed}",
        problems=tuple((p.id, p.question, p.guess_rate) for p in problems),
        arms=tuple(arms),
        base=entries[0].name,
        control_of={name: controls[0] for name in distilled if controls},
        examples=tuple(examples),
        perplexity=_perplexities(study, [e.name for e in entries], {p.id for p in problems}),
        training={arm: training_rows(study.root, arm) for arm in _trained(study, entries)},
        versions={**session["versions"], "device": session["device"]},
        timings=_timings(study.root),
        seed=s.seed,
        notes=(*compared, *study.task.notes, EVERY_FIELD),
        delta_se_k=min(s.report.k or PAPERS_K, study.n(problems[0])),
        answer_only=asked[0] if asked else "",
    )


def _trained(study: Study, entries: list[Evaluated]) -> dict[str, None]:
    """The arms whose training made the weights of these, each once."""
    return dict.fromkeys(study.source(entry).arm for entry in entries)


def _arm(
    study: Study, entry: Evaluated, problems: list[Problem], judged: Judged
) -> tuple[report.ArmResults, list[report.Example]]:
    n, place = study.first(problems[0]), {problem.id: i for i, problem in enumerate(problems)}
    wanted = ["problem_id", "index", "stop", "text", "logp_model", "logp"]
    samples = records.read(study.root, "samples", columns=wanted, where={"arm": entry.name})
    samples = _of(samples, n, place)
    by = {"arm": entry.name, "grader": study.task.version}
    columns = ["problem_id", "index", "correct", "status", "extracted"]
    verdicts = _of(records.read(study.root, "verdicts", columns=columns, where=by), n, place)
    expected = n * len(problems)
    for what, found in (("samples", samples.num_rows), ("verdicts", verdicts.num_rows)):
        if found != expected:
            raise UserError(f"arm {entry.name} has {found} {what}, the report needs {expected}: --config.job=compare")
    # Both tables come sorted by (problem, index) and hold the same keys, so their rows stand side by side.
    row = np.array([place[name] for name in samples["problem_id"].to_pylist()])
    correct = verdicts["correct"].to_numpy()
    texts = samples["text"].to_pylist()
    stops = np.array(samples["stop"].to_pylist())
    statuses = np.array(verdicts["status"].to_pylist())

    def count(mask: np.ndarray) -> np.ndarray:
        return np.bincount(row[mask], minlength=len(place))

    lengths = pc.list_value_length(samples["logp_model"]).to_numpy()
    entropy = entropy_matching.entropy_of(samples)
    chains_right_M, chains_wrong_M = _chains(entry.name, verdicts, judged, place)
    distinct = len(set(zip(row.tolist(), texts, strict=True)))
    arm = report.ArmResults(
        name=entry.name,
        label=entry.label,
        group=entry.group,
        n_M=count(np.ones(len(row), bool)),
        c_M=count(correct),
        truncated_M=count(stops == Stop.LENGTH),
        no_answer_M=count(statuses == Status.NO_ANSWER),
        ungraded_M=count(np.isin(statuses, (Status.TIMEOUT, Status.ERROR))),
        mean_tokens=float(lengths.mean()),
        duplicate_rate=1 - distinct / len(row),
        entropy=entropy.mean,
        entropy_error=entropy.error,
        conditions=_conditions(study, entry, n),
        weights_sha256=records.read_manifest(study.root)["facts"][f"arms.{entry.name}.weights_sha256"],
        marginal_M=_marginal(problems, row, verdicts),
        answers_M=_answers(row, verdicts, len(problems)),
        votes_M=_votes(problems, row, verdicts),
        tokens_M=np.bincount(row, weights=lengths, minlength=len(place)) / count(np.ones(len(row), bool)),
        chains_right_M=chains_right_M,
        chains_wrong_M=chains_wrong_M,
        second=second_stage(study, entry, problems),
        cache_error=cache_error.of(study, entry),
    )
    return arm, _examples(entry.name, row, samples, verdicts)


def _marginal(problems: list[Problem], row: np.ndarray, verdicts: pa.Table) -> np.ndarray | None:
    """Guess rates from the arm's answers to other problems.

    Right for a problem are its reference and whatever the grader has accepted for it, so that other spellings count.
    None where the task has rates of its own, or where references are no texts (tests of programs).
    """
    if all(p.guess_rate is not None for p in problems) or any(reference(p) is None for p in problems):
        return None
    normal_form = functools.cache(string_rules.normal_form)
    answers = [normal_form(text) for text in verdicts["extracted"].to_pylist()]
    accepted = [{normal_form(reference(problem) or "")} for problem in problems]
    for i in np.flatnonzero(verdicts["correct"].to_numpy()):
        accepted[row[i]].add(answers[i])
    return passk.marginal_rates(accepted, row.tolist(), answers)


def _votes(problems: list[Problem], row: np.ndarray, verdicts: pa.Table) -> tuple[passk.Votes, ...] | None:
    """Samples by answer, equal where their normal forms are; None where answers are programs, which have none."""
    if any(reference(p) is None for p in problems):
        return None
    normal_form = functools.cache(string_rules.normal_form)
    answers = [normal_form(text) if text else "" for text in verdicts["extracted"].to_pylist()]
    return tuple(passk.count_votes(len(problems), row.tolist(), answers, verdicts["correct"].to_pylist()))


def _chains(
    arm: str, verdicts: pa.Table, judged: Judged, place: dict[str, int]
) -> tuple[np.ndarray, np.ndarray] | tuple[None, None]:
    """[M] right answers whose chain was judged right, and judged wrong; None twice where none of the arm's was."""
    counts = {said: np.zeros(len(place), np.int64) for said in ("right", "wrong")}
    columns = (verdicts[name].to_pylist() for name in ("problem_id", "index", "correct"))
    for name, index, correct in zip(*columns, strict=True):
        said = judged.get((arm, name, index))
        if said and correct:
            counts[said][place[name]] += 1
    return (counts["right"], counts["wrong"]) if any(map(np.any, counts.values())) else (None, None)


def _of(table: pa.Table, n: int, place: dict[str, int]) -> pa.Table:
    """The rows of these problems; of a folder that holds more samples than asked for, the first n of each."""
    here = pc.is_in(table["problem_id"], value_set=pa.array(list(place), pa.large_string()))
    return table.filter(pc.and_(here, pc.less(table["index"], n)))


def _examples(arm: str, row: np.ndarray, samples: pa.Table, verdicts: pa.Table) -> list[report.Example]:
    """EXAMPLES samples of each problem: right and other ones in turns while there are both, the lowest index first."""
    correct = verdicts["correct"].to_numpy()
    kept = []
    for problem in range(row.max() + 1):
        mine = np.flatnonzero(row == problem)
        right, other = mine[correct[mine]], mine[~correct[mine]]
        half = EXAMPLES // 2
        most = max(half, EXAMPLES - len(other)), max(half, EXAMPLES - len(right))
        turns = [(turn, j) for side, rows in enumerate((right[: most[0]], other[: most[1]]))
                 for turn, j in ((2 * i + side, int(j)) for i, j in enumerate(rows))]  # fmt: skip
        kept += [j for _, j in sorted(turns)]
    shown = []
    names = ("problem_id", "index", "text", "stop", "logp")
    columns = [samples[name].take(pa.array(kept)).to_pylist() for name in names]
    columns += [verdicts[name].take(pa.array(kept)).to_pylist() for name in ("correct", "extracted", "status")]
    for problem_id, index, text, stop, logp, right, extracted, status in zip(*columns, strict=True):
        total = float(np.sum(logp))
        shown.append(report.Example(problem_id, arm, index, text, right, stop, extracted, total, status))
    return shown


def _answers(row: np.ndarray, verdicts: pa.Table, M: int) -> tuple[report.Answers, ...]:
    """Of each problem the answers read most often, and how many others there are."""
    counts: list[Counter[tuple[str, bool]]] = [Counter() for _ in range(M)]
    columns = (verdicts[name].to_pylist() for name in ("extracted", "correct"))
    for problem, *answer in zip(row.tolist(), *columns, strict=True):
        counts[problem][tuple(answer)] += 1
    found = []
    for count in counts:
        listed = sorted(count.items(), key=lambda item: (-item[1], item[0]))[:ANSWERS]
        rest = count.total() - sum(samples for _, samples in listed)
        shown = tuple((text, samples, int(right)) for (text, right), samples in listed)
        found.append((shown, (len(count) - len(listed), rest)))
    return tuple(found)


def _conditions(study: Study, entry: Evaluated, n: int) -> dict[str, str]:
    setup, found = study.setups[entry.arm], conditions.of(study, entry)
    arm = study.settings.arms[study.source(entry).arm]
    asked = records.read_manifest(study.root)["conditions"]["asked"][entry.arm]
    said = {
        "samples per problem": str(n) if not setup.sampling.adaptive else f"{n}, and more where none is right",
        "temperature": found.temperature,
        "top-p": found.top_p,
        **({"top-k": found.top_k} if setup.sampling.top_k else {}),
        **({"min-p": found.min_p} if setup.sampling.min_p else {}),
        "max new tokens": str(setup.sampling.max_tokens),
        "stop tokens": " ".join(map(str, setup.stop_tokens)),
        "questions": found.question,
        "problems and references": found.benchmark,
        "prompts": asked["prompts_sha256"][:12],
        "grader": found.grader,
        "engine": found.engine,
        "dtype": found.dtype,
    }
    if setup.model.context:
        said["context"] = str(setup.model.context)
        said["most new tokens of the longest prompt"] = str(asked["shortest_limit"])
    if setup.folder:
        said["prompt template"] = study.settings.arms[entry.arm].prompt
        # A folder is what it is, whatever revision a hub name would have been fetched at.
        local = Path(arm.weights).expanduser().is_dir()
        said["weights"] = arm.weights if local else f"{arm.weights} {arm.revision}".strip()
    return said


def _compared(study: Study, entries: list[Evaluated]) -> tuple[str, ...]:
    """What a reader must know of these arms' conditions. Raises UserError where they may not be compared."""
    notes = [*conditions.differences(study, entries), *conditions.same_arms(study, entries)]
    for entry in entries:
        kept = entropy_matching.read(study.root, entry.name)
        if kept and kept.temperature is not None:
            last = kept.rounds[-1].entropy
            notes.append(
                f"{entry.label}: temperature {kept.temperature:.4f} was found in {len(kept.rounds)} rounds; in the "
                f"last of them (a sample of its own, {last.tokens:,} tokens) the entropy of a token was "
                f"{last.mean:.4f} nats (standard error {last.error:.4f}), that of {study.named(kept.aim).label} "
                f"{kept.target.mean:.4f} ({kept.target.error:.4f})."
            )
    return tuple(notes)


def _perplexities(study: Study, names: list[str], problems: set[str]) -> dict[tuple[str, str], np.ndarray]:
    found = {}
    place = {name: i for i, name in enumerate(problems)}
    for model in names:
        for arm in (*names, SOLVER, REFERENCES):
            where = {"arm": arm, "model": model}
            stored = records.read(study.root, "scores", columns=["problem_id", "index", "logp"], where=where)
            logps = _of(stored, study.settings.score.answers, place)["logp"].to_pylist()
            if any(logps):
                found[model, arm] = np.array([perplexity(logp) for logp in logps if logp])
    return found


def _timings(root: Place) -> dict[str, float]:
    """Seconds by stage, summed over the sessions that a run took."""
    total: dict[str, float] = defaultdict(float)
    for line in (root / "timings.jsonl").read_text().splitlines():
        row = json.loads(line)
        stage = row["stage"] if row["stage"].startswith("train") else row["stage"].split()[0]
        total[stage] += row["seconds"]
    return dict(total)
