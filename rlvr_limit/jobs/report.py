"""From the records of a run to its page. Needs no accelerator and no weights."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from ml_collections import ConfigDict

from rlvr_limit import records, report
from rlvr_limit.grading import countdown as grading
from rlvr_limit.jobs.experiment import Evaluated, Experiment, prepare
from rlvr_limit.jobs.score import SOLVER
from rlvr_limit.jobs.train import training_rows
from rlvr_limit.likelihood import perplexity
from rlvr_limit.types import Status, Stop, UserError

EXAMPLES = 2
"""Stored samples shown per problem and arm, right ones first."""


def run(config: ConfigDict) -> None:
    """The report job."""
    print(f"report: {write_report(prepare(config)).absolute()}")


def write_report(experiment: Experiment) -> Path:
    """Draws the page, figures and tables into the run folder and returns the page's path."""
    return report.write(study_of(experiment), experiment.root / "report")


def study_of(experiment: Experiment) -> report.Study:
    """Everything the page shows. Raises UserError naming an arm that has fewer than n graded samples."""
    s = experiment.settings
    arms, examples = [], []
    for entry in experiment.evaluated:
        arm, shown = _arm(experiment, entry)
        arms.append(arm)
        examples += shown
    session = records.read_manifest(experiment.root)["sessions"][-1]
    controls = [e.name for e in experiment.evaluated if e.group == "control"]
    distilled = [e.name for e in experiment.evaluated if e.group == "distilled"]
    return report.Study(
        title=s.title,
        purpose=s.purpose,
        caveat=s.caveat,
        command=f"python main.py --config=configs/{s.name}.py --config.seed={s.seed}",
        problems=tuple((p.id, p.question, p.guess_rate) for p in experiment.problems),
        arms=tuple(arms),
        base=experiment.base.name,
        control_of={name: controls[0] for name in distilled if controls},
        examples=tuple(examples),
        perplexity=_perplexities(experiment),
        training={name: training_rows(experiment.root, name) for name in s.arms},
        versions={**session["versions"], "device": session["device"]},
        timings=_timings(experiment.root),
        seed=s.seed,
        delta_se_k=s.report.k,
    )


def _arm(experiment: Experiment, entry: Evaluated) -> tuple[report.Arm, list[report.Example]]:
    s = experiment.settings
    wanted = ["problem_id", "index", "stop", "text", "logp_model", "logp"]
    samples = records.read(experiment.root, "samples", columns=wanted, where={"arm": entry.name})
    samples = _below_n(samples, s.sampling.n)
    judged = {"arm": entry.name, "grader": grading.VERSION}
    columns = ["problem_id", "index", "correct", "status", "extracted"]
    verdicts = _below_n(records.read(experiment.root, "verdicts", columns=columns, where=judged), s.sampling.n)
    expected = s.sampling.n * len(experiment.problems)
    for what, found in (("samples", samples.num_rows), ("verdicts", verdicts.num_rows)):
        if found != expected:
            raise UserError(f"arm {entry.name} has {found} {what}, the report needs {expected}: --config.job=compare")
    place = {problem.id: i for i, problem in enumerate(experiment.problems)}
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
    distinct = len(set(zip(row.tolist(), texts, strict=True)))
    arm = report.Arm(
        name=entry.name,
        label=entry.label,
        group=entry.group,
        n_M=count(np.ones(len(row), bool)),
        c_M=count(correct),
        truncated_M=count(stops == Stop.LENGTH),
        no_answer_M=count(statuses == Status.NO_ANSWER),
        mean_tokens=float(lengths.mean()),
        duplicate_rate=1 - distinct / len(row),
        entropy=float(-logp.mean()),
        conditions=_conditions(experiment),
        weights_sha256=records.read_manifest(experiment.root)["facts"][f"arms.{entry.name}.weights_sha256"],
    )
    return arm, _examples(entry.name, samples, verdicts, texts)


def _below_n(table: Any, n: int) -> Any:
    """A folder may hold more samples than this config asks for; the first n of each problem are a sample of size n."""
    return table.filter(pc.less(table["index"], n))


def _examples(arm: str, samples: Any, verdicts: Any, texts: list[str]) -> list[report.Example]:
    """The first samples of each problem, right ones before wrong ones."""
    by_problem: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(samples["problem_id"].to_pylist()):
        by_problem[name].append(i)
    correct = verdicts["correct"].to_pylist()
    shown = []
    for name, rows in by_problem.items():
        for i in sorted(rows, key=lambda i: not correct[i])[:EXAMPLES]:
            shown.append(
                report.Example(
                    problem_id=name,
                    arm=arm,
                    index=samples["index"][i].as_py(),
                    text=texts[i],
                    correct=correct[i],
                    stop=samples["stop"][i].as_py(),
                    extracted=verdicts["extracted"][i].as_py(),
                    logp=float(np.sum(samples["logp"][i].as_py())),
                )
            )
    return shown


def _conditions(experiment: Experiment) -> dict[str, str]:
    s = experiment.settings
    mode = "reference" if s.engine.reference else f"{s.engine.slots} slots, windows of {s.engine.window}"
    return {
        "samples per problem": str(s.sampling.n),
        "temperature": str(s.sampling.temperature),
        "top-p": str(s.sampling.top_p),
        "max new tokens": str(s.sampling.max_tokens),
        "stop": "end of sequence",
        "prompts": records.read_manifest(experiment.root)["conditions"]["prompts_sha256"][:12],
        "grader": grading.VERSION,
        "engine": mode,
        "dtype": experiment.model.dtype,
    }


def _perplexities(experiment: Experiment) -> dict[tuple[str, str], np.ndarray]:
    found = {}
    names = [entry.name for entry in experiment.evaluated]
    for model in names:
        for arm in (*names, SOLVER):
            where = {"arm": arm, "model": model}
            stored = records.read(experiment.root, "scores", columns=["index", "logp"], where=where)
            logps = _below_n(stored, experiment.settings.score.answers)["logp"].to_pylist()
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
