"""Log-likelihoods of stored samples under the base and under the arm that drew them (Yue et al. 2025, Fig. 6)."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from rlvr_limit import likelihood, records
from rlvr_limit.jobs import texts
from rlvr_limit.jobs.experiment import Evaluated, Experiment
from rlvr_limit.jobs.prepare import prepare
from rlvr_limit.jobs.progress import Progress
from rlvr_limit.jobs.texts import Answer
from rlvr_limit.jobs.train import load, train_missing
from rlvr_limit.model import Params

ROWS = 256
"""Scores are put on record so many at a time."""


def run(config: ConfigDict) -> None:
    """The score job."""
    experiment = prepare(config)
    train_missing(experiment)
    score_missing(experiment)
    experiment.hosts.close()


def score_missing(experiment: Experiment) -> None:
    """Scores the first `score.answers` texts of everybody, where that is still to do.

    Several hosts share what models are to score; what one leaves undone that died is shared once more.
    """
    hosts, file = experiment.hosts, experiment.settings.score.references
    if file and hosts.is_first:
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        records.update_manifest(experiment.root, "score.references_sha256", digest)
    for turn in itertools.count():
        with hosts.in_step():
            _score_lacking(experiment, turn)
        hosts.wait("score", turn)
        if hosts.count == 1 or not any(todo for _, _, todo in _work(experiment)):
            return


def _work(experiment: Experiment) -> list[tuple[Evaluated, str, list[Answer]]]:
    n = experiment.settings.score.answers
    return [(model, whose, lacking(experiment, model, whose, n)) for model, whose in _wanted(experiment)]


def _score_lacking(experiment: Experiment, turn: int) -> None:
    work, hosts = _work(experiment), experiment.hosts
    left = sum(len(todo) for _, _, todo in work)
    if not left:
        return
    n = experiment.settings.score.answers
    total = max(left, sum(min(n, experiment.first(problem)) for problem in experiment.problems) * len(work))
    with (
        records.Writer(experiment.root, "scores") as scores,
        Progress(experiment.root, "score", total, "answers", total - left, hosts.is_first) as progress,
    ):
        done, before = total - left, hosts.told("scored")
        for share in hosts.shares(f"score/{turn}", len(work)):
            model, arm, todo = work[share]
            for rows in scored(experiment, model, arm, todo):
                if hosts.leads:
                    scores.append(rows)
                    done += len(rows)
                    hosts.tell(scored=len(rows))
                    by_all = min(total, done + round(hosts.told("scored") - before))
                    progress.update(by_all, model=model.name, answers_of=arm)
                experiment.notice.heed()


def _wanted(experiment: Experiment) -> list[tuple[Evaluated, str]]:
    """(model, whose texts): each arm's under its panel's base and under itself, and the given ones under every arm."""
    wanted = []
    for base, *others in experiment.panels.values():
        wanted += [(base, entry.name) for entry in (base, *others)]
        wanted += [(entry, entry.name) for entry in others]
    return wanted + [(entry, whose) for whose in texts.given(experiment) for entry in experiment.evaluated]


def lacking(experiment: Experiment, model: Evaluated, whose: str, n: int) -> list[Answer]:
    """Of the first n texts to each problem those that are not scored under the model."""

    def there() -> dict[str, list[int]]:
        found = records.existing(experiment.root, "scores", arm=whose, model=model.name)
        return {name: sorted(indices) for name, indices in found.items()}

    # Hosts of one replica score the same, though records grow while each of them reads.
    have = experiment.hosts.same(there)
    answers = texts.of_model(experiment, whose, model, n)
    return [answer for answer in answers if answer.index not in have.get(answer.problem_id, ())]


def scored(
    experiment: Experiment, model: Evaluated, whose: str, todo: list[Answer], params: Params | None = None
) -> Iterator[list[dict]]:
    """Rows of the scores table, some at a time, short answers first. params are the model's; None: to be loaded."""
    if not todo:
        return
    setup, params = experiment.setups[model.arm], load(experiment, model) if params is None else params
    pairs = [(answer.prompt, answer.tokens) for answer in todo]
    rows: list[dict] = []
    for i, scored in likelihood.score_batches(params, setup.model, pairs, experiment.settings.score.tokens):
        key = {"arm": whose, "problem_id": todo[i].problem_id, "index": todo[i].index, "model": model.name}
        rows.append(key | scored._asdict())
        if len(rows) == ROWS:
            yield rows
            rows = []
    # Of an answer without tokens there is nothing to compute.
    empty = [answer for answer in todo if not answer.tokens]
    yield rows + [
        {"arm": whose, "problem_id": a.problem_id, "index": a.index, "model": model.name, "logp": (), "entropy": ()}
        for a in empty
    ]
