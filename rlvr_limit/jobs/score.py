"""Log-likelihoods of stored samples under the base and under the arm that drew them (Yue et al. 2025, Fig. 6)."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ml_collections import ConfigDict

from rlvr_limit import likelihood, records
from rlvr_limit.jobs.experiment import Evaluated, Experiment, prepare
from rlvr_limit.jobs.progress import Progress
from rlvr_limit.jobs.train import load, train_missing
from rlvr_limit.tasks import countdown

SOLVER = "solver"
"""The name under which right answers of the exact solver are scored: the ground truth Y_GT of the paper's Fig. 6."""


def run(config: ConfigDict) -> None:
    """The score job."""
    experiment = prepare(config)
    train_missing(experiment)
    score_missing(experiment)


def score_missing(experiment: Experiment) -> None:
    """Scores the first `score.answers` answers of every arm, and as many of the solver, where that is still to do."""
    base = experiment.base
    wanted = [(base, entry.name) for entry in experiment.evaluated]
    wanted += [(entry, entry.name) for entry in experiment.evaluated if entry != base]
    wanted += [(entry, SOLVER) for entry in experiment.evaluated]
    n = experiment.settings.score.answers
    work = [(model, arm, _lacking(experiment, model, arm, n)) for model, arm in wanted]
    total, left = n * len(experiment.problems) * len(wanted), sum(len(todo) for _, _, todo in work)
    if not left:
        return
    with (
        records.Writer(experiment.root, "scores") as scores,
        Progress(experiment.root, "score", total, "answers", total - left) as progress,
    ):
        done = total - left
        for model, arm, todo in work:
            for rows in _scored(experiment, model, arm, todo):
                scores.append(rows)
                done += len(rows)
                progress.update(done, model=model.name, answers_of=arm)


Answers = list[tuple[str, int, tuple[int, ...]]]
"""(problem, index, tokens) of answers, in a fixed order."""


def _lacking(experiment: Experiment, model: Evaluated, arm: str, n: int) -> Answers:
    have = records.existing(experiment.root, "scores", arm=arm, model=model.name)
    return [key for key in _texts(experiment, arm, n) if key[1] not in have.get(key[0], set())]


def _scored(experiment: Experiment, model: Evaluated, arm: str, todo: Answers) -> Iterator[list[dict]]:
    """Rows of the scores table, a batch at a time."""
    if not todo:
        return
    params, batch = load(experiment, model), experiment.settings.engine.slots
    prompts = {problem.id: problem.prompt_ids for problem in experiment.problems}
    pairs = [(prompts[problem_id], tokens) for problem_id, _, tokens in todo]
    logps = likelihood.score(params, experiment.model, pairs, experiment.row_places, batch)
    rows = [
        {"arm": arm, "problem_id": problem_id, "index": index, "model": model.name, "logp": logp}
        for (problem_id, index, _), logp in zip(todo, logps, strict=True)
    ]
    for start in range(0, len(rows), batch):
        yield rows[start : start + batch]


def _texts(experiment: Experiment, arm: str, n: int) -> Answers:
    if arm == SOLVER:
        found = []
        for problem in experiment.problems:
            rng = random.Random(f"{experiment.settings.seed}/solver/{problem.id}")
            right = countdown.demonstrations(experiment.rules, [problem], 1.0, rng)
            found += [(problem.id, i, next(right)[1]) for i in range(n)]
        return found
    stored = records.read(experiment.root, "samples", columns=["problem_id", "index", "tokens"], where={"arm": arm})
    return [(r["problem_id"], r["index"], tuple(r["tokens"])) for r in stored.to_pylist() if r["index"] < n]
