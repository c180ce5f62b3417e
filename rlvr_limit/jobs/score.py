"""Log-likelihoods of stored samples under the base and under the arm that drew them (Yue et al. 2025, Fig. 6)."""

from __future__ import annotations

import logging
import random
from collections import defaultdict
from collections.abc import Iterator

from ml_collections import ConfigDict

from rlvr_limit import likelihood, records
from rlvr_limit.jobs.experiment import Evaluated, Experiment, Setup
from rlvr_limit.jobs.prepare import prepare
from rlvr_limit.jobs.progress import Progress
from rlvr_limit.jobs.train import load, train_missing

SOLVER = "solver"
"""The name under which right answers of the exact solver are scored: the ground truth Y_GT of the paper's Fig. 6."""

SHORTEST = 64
"""Rows are padded to the next power of two from here on, so that few shapes are compiled and little is padding."""

Answers = list[tuple[str, int, tuple[int, ...]]]
"""(problem, index, tokens) of answers, in a fixed order."""


def run(config: ConfigDict) -> None:
    """The score job."""
    experiment = prepare(config)
    train_missing(experiment)
    score_missing(experiment)


def score_missing(experiment: Experiment) -> None:
    """Scores the first `score.answers` answers of every arm, and as many of the solver, where that is still to do."""
    n = experiment.settings.score.answers
    work = [(model, arm, _lacking(experiment, model, arm, n)) for model, arm in _wanted(experiment)]
    total = sum(min(n, experiment.first(problem)) for problem in experiment.problems) * len(work)
    left = sum(len(todo) for _, _, todo in work)
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


def _wanted(experiment: Experiment) -> list[tuple[Evaluated, str]]:
    """(model, whose answers): each arm's under the base and under itself, and the solver's where there is one.

    The tokens of an arm with another vocabulary than the base's mean nothing to the base.
    """
    base = experiment.base
    vocabulary = experiment.setups[base.arm].vocabulary
    alike = [entry for entry in experiment.evaluated if experiment.setups[entry.arm].vocabulary == vocabulary]
    for entry in experiment.evaluated:
        if entry not in alike:
            logging.warning("arm %s has another vocabulary than %s, which does not score it", entry.name, base.name)
    wanted = [(base, entry.name) for entry in alike]
    wanted += [(entry, entry.name) for entry in experiment.evaluated if entry != base]
    if experiment.task.demonstrate:
        wanted += [(entry, SOLVER) for entry in experiment.evaluated]
    return wanted


def _lacking(experiment: Experiment, model: Evaluated, arm: str, n: int) -> Answers:
    have = records.existing(experiment.root, "scores", arm=arm, model=model.name)
    return [key for key in answers_of(experiment, arm, n) if key[1] not in have.get(key[0], set())]


def _scored(experiment: Experiment, model: Evaluated, arm: str, todo: Answers) -> Iterator[list[dict]]:
    """Rows of the scores table, a batch at a time, short answers first."""
    if not todo:
        return
    setup, params = experiment.setups[model.arm], load(experiment, model)
    # An answer is scored after the prompt that it was drawn with, whoever scores it.
    asked = setup if arm == SOLVER else _setup_of(experiment, arm)
    prompts = {problem.id: problem.prompt_ids for problem in asked.problems}
    by_places: dict[int, Answers] = defaultdict(list)
    for key in todo:
        by_places[_places(len(prompts[key[0]]) + len(key[2]), experiment.row_places)].append(key)
    for places, keys in sorted(by_places.items()):
        batch = max(1, experiment.settings.score.tokens // places)
        for start in range(0, len(keys), batch):
            part = keys[start : start + batch]
            pairs = [(prompts[problem_id], tokens) for problem_id, _, tokens in part]
            logps = likelihood.score(params, setup.model, pairs, places, batch)
            yield [
                {"arm": arm, "problem_id": problem_id, "index": index, "model": model.name, "logp": logp}
                for (problem_id, index, _), logp in zip(part, logps, strict=True)
            ]


def _setup_of(experiment: Experiment, arm: str) -> Setup:
    return experiment.setups[next(entry.arm for entry in experiment.evaluated if entry.name == arm)]


def _places(tokens: int, most: int) -> int:
    places = SHORTEST
    while places < tokens:
        places *= 2
    return min(places, most)


def answers_of(experiment: Experiment, arm: str, n: int) -> Answers:
    """The first n answers of an arm or the solver to each problem; fewer where the config asks for fewer samples."""
    if arm == SOLVER:
        found = []
        for problem in experiment.problems:
            rng = random.Random(f"{experiment.settings.seed}/solver/{problem.id}")
            right = experiment.task.demonstrate([problem], 1.0, rng)
            found += [(problem.id, i, next(right)[1]) for i in range(min(n, experiment.first(problem)))]
        return found
    # A folder may hold more samples than this config asks for.
    most = {problem.id: min(n, experiment.first(problem)) for problem in experiment.problems}
    stored = records.read(experiment.root, "samples", columns=["problem_id", "index", "tokens"], where={"arm": arm})
    rows = (r for r in stored.to_pylist() if r["index"] < most[r["problem_id"]])
    return [(r["problem_id"], r["index"], tuple(r["tokens"])) for r in rows]
