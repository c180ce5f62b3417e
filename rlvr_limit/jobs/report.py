"""From the records of a run to its pages. Needs no accelerator and no weights."""

from __future__ import annotations

import functools
import json
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ml_collections import ConfigDict

from rlvr_limit import passk, records, report
from rlvr_limit.engine import EngineConfig
from rlvr_limit.grading import strict
from rlvr_limit.jobs.experiment import Evaluated, Experiment, benchmark_of
from rlvr_limit.jobs.metrics import training_rows
from rlvr_limit.jobs.prepare import prepare
from rlvr_limit.jobs.review import Judged, judged_chains, reference
from rlvr_limit.jobs.score import SOLVER
from rlvr_limit.jobs.stages import second_stage
from rlvr_limit.likelihood import perplexity
from rlvr_limit.tasks.prompts import ANSWER_ONLY
from rlvr_limit.types import Problem, Status, Stop, UserError

PAPERS_K = 256
"""The k of Delta_SE in Yue et al. 2025, Fig. 8."""

EVERY_FIELD = "Fields that were changed on the command line: manifest.json in the run folder holds the whole config."

EXAMPLES = 64
"""Stored samples kept for the page per problem and arm, right and other ones in turns."""

ANSWERS = 12
"""Answers listed per problem and arm, those that were read most often."""


def run(config: ConfigDict) -> None:
    """The report job."""
    print(f"report: {write_report(prepare(config)).absolute()}")


def write_report(experiment: Experiment) -> Path:
    """Draws pages, figures and tables into the run folder and returns the page to open first.

    Several benchmarks get a folder each, and a page that leads to them.
    """
    root = experiment.root / "report"
    by_benchmark: dict[str, list[Problem]] = defaultdict(list)
    for problem in experiment.problems:
        by_benchmark[benchmark_of(problem.id)].append(problem)
    studies = {name: study_of(experiment, name, problems) for name, problems in by_benchmark.items()}
    if len(studies) == 1:
        return report.write(next(iter(studies.values())), root)
    s = experiment.settings
    return report.write_all(s.title, s.purpose, s.caveat, studies, root)


def study_of(experiment: Experiment, benchmark: str, problems: list[Problem]) -> report.Study:
    """Everything the page of one benchmark shows. UserError naming an arm that has fewer than n graded samples."""
    s = experiment.settings
    arms, examples = [], []
    judged = judged_chains(experiment)
    for entry in experiment.evaluated:
        arm, shown = _arm(experiment, entry, problems, judged)
        arms.append(arm)
        examples += shown
    asked = [e.name for e in experiment.evaluated if s.arms[e.arm].prompt == ANSWER_ONLY.name]
    session = records.read_manifest(experiment.root)["sessions"][-1]
    controls = [e.name for e in experiment.evaluated if e.group == "control"]
    distilled = [e.name for e in experiment.evaluated if e.group == "distilled"]
    return report.Study(
        title=f"{s.title}: {benchmark}" if benchmark else s.title,
        purpose=s.purpose,
        caveat=s.caveat,
        command=f"python main.py --config=configs/{s.name}.py --config.seed={s.seed}",
        problems=tuple((p.id, p.question, p.guess_rate) for p in problems),
        arms=tuple(arms),
        base=experiment.base.name,
        control_of={name: controls[0] for name in distilled if controls},
        examples=tuple(examples),
        perplexity=_perplexities(experiment, {p.id for p in problems}),
        training={name: training_rows(experiment.root, name) for name in s.arms},
        versions={**session["versions"], "device": session["device"]},
        timings=_timings(experiment.root),
        seed=s.seed,
        notes=(*experiment.task.notes, EVERY_FIELD),
        delta_se_k=min(s.report.k or PAPERS_K, experiment.n(problems[0])),
        answer_only=asked[0] if asked else "",
    )


def _arm(
    experiment: Experiment, entry: Evaluated, problems: list[Problem], judged: Judged
) -> tuple[report.Arm, list[report.Example]]:
    n, place = experiment.first(problems[0]), {problem.id: i for i, problem in enumerate(problems)}
    wanted = ["problem_id", "index", "stop", "text", "logp_model", "logp"]
    samples = records.read(experiment.root, "samples", columns=wanted, where={"arm": entry.name})
    samples = _of(samples, n, place)
    by = {"arm": entry.name, "grader": experiment.task.version}
    columns = ["problem_id", "index", "correct", "status", "extracted"]
    verdicts = _of(records.read(experiment.root, "verdicts", columns=columns, where=by), n, place)
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
    logp = pc.list_flatten(samples["logp_model"]).to_numpy()
    chains_right_M, chains_wrong_M = _chains(entry.name, verdicts, judged, place)
    distinct = len(set(zip(row.tolist(), texts, strict=True)))
    arm = report.Arm(
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
        entropy=float(-logp.mean()),
        conditions=_conditions(experiment, entry, n),
        weights_sha256=records.read_manifest(experiment.root)["facts"][f"arms.{entry.name}.weights_sha256"],
        marginal_M=_marginal(problems, row, verdicts),
        answers_M=_answers(row, verdicts, len(problems)),
        votes_M=_votes(problems, row, verdicts),
        tokens_M=np.bincount(row, weights=lengths, minlength=len(place)) / count(np.ones(len(row), bool)),
        chains_right_M=chains_right_M,
        chains_wrong_M=chains_wrong_M,
        second=second_stage(experiment, entry, problems),
    )
    return arm, _examples(entry.name, row, samples, verdicts)


def _marginal(problems: list[Problem], row: np.ndarray, verdicts: pa.Table) -> np.ndarray | None:
    """Guess rates from the arm's answers to other problems.

    Right for a problem are its reference and whatever the grader has accepted for it, so that other spellings count.
    None where the task has rates of its own, or where references are no texts (tests of programs).
    """
    if all(p.guess_rate is not None for p in problems) or any(reference(p) is None for p in problems):
        return None
    normal_form = functools.cache(strict.normal_form)
    answers = [normal_form(text) for text in verdicts["extracted"].to_pylist()]
    accepted = [{normal_form(reference(problem) or "")} for problem in problems]
    for i in np.flatnonzero(verdicts["correct"].to_numpy()):
        accepted[row[i]].add(answers[i])
    return passk.marginal_rates(accepted, row.tolist(), answers)


def _votes(problems: list[Problem], row: np.ndarray, verdicts: pa.Table) -> tuple[passk.Votes, ...] | None:
    """Samples by answer, equal where their normal forms are; None where answers are programs, which have none."""
    if any(reference(p) is None for p in problems):
        return None
    normal_form = functools.cache(strict.normal_form)
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


def _conditions(experiment: Experiment, entry: Evaluated, n: int) -> dict[str, str]:
    s, engine, setup = experiment.settings, experiment.engine, experiment.setups[entry.arm]
    arm = s.arms[entry.arm]
    asked = records.read_manifest(experiment.root)["conditions"]["asked"][entry.arm]
    conditions = {
        "samples per problem": str(n) if not s.sampling.adaptive else f"{n}, and more where none is right",
        "temperature": str(s.sampling.temperature),
        "top-p": str(s.sampling.top_p),
        **({"top-k": str(s.sampling.top_k)} if s.sampling.top_k else {}),
        **({"min-p": str(s.sampling.min_p)} if s.sampling.min_p else {}),
        "max new tokens": str(s.sampling.max_tokens),
        "stop tokens": " ".join(map(str, setup.stop_tokens)),
        "prompts": asked["prompts_sha256"][:12],
        "grader": experiment.task.version,
        "engine": "reference" if engine.reference else _engine(engine),
        "dtype": setup.model.dtype,
    }
    if setup.model.context:
        conditions["context"] = str(setup.model.context)
        conditions["most new tokens of the longest prompt"] = str(asked["shortest_limit"])
    if setup.folder:
        conditions["prompt template"] = arm.prompt
        # A folder is what it is, whatever revision a hub name would have been fetched at.
        local = Path(arm.weights).expanduser().is_dir()
        conditions["weights"] = arm.weights if local else f"{arm.weights} {arm.revision}".strip()
    return conditions


def _engine(engine: EngineConfig) -> str:
    cache = f", {engine.cache_tokens:,} tokens of cache" if engine.cache_tokens else ""
    return f"{engine.slots} slots, windows of {engine.window}, pages of {engine.page}{cache}"


def _perplexities(experiment: Experiment, problems: set[str]) -> dict[tuple[str, str], np.ndarray]:
    found = {}
    names = [entry.name for entry in experiment.evaluated]
    place = {name: i for i, name in enumerate(problems)}
    for model in names:
        for arm in (*names, SOLVER):
            where = {"arm": arm, "model": model}
            stored = records.read(experiment.root, "scores", columns=["problem_id", "index", "logp"], where=where)
            logps = _of(stored, experiment.settings.score.answers, place)["logp"].to_pylist()
            if logps:
                found[model, arm] = np.array([perplexity(logp) for logp in logps])
    return found


def _timings(root: Path) -> dict[str, float]:
    """Seconds by stage, summed over the sessions that a run took."""
    total: dict[str, float] = defaultdict(float)
    for line in (root / "timings.jsonl").read_text().splitlines():
        row = json.loads(line)
        stage = row["stage"] if row["stage"].startswith("train") else row["stage"].split()[0]
        total[stage] += row["seconds"]
    return dict(total)
