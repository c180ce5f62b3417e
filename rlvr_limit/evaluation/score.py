"""Log-likelihoods of stored samples under the base and under the arm that drew them (Yue et al. 2025, Fig. 6)."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

from rlvr_limit import records
from rlvr_limit.evaluation import score_inputs
from rlvr_limit.evaluation.score_inputs import Answer
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import Params
from rlvr_limit.records.progress import Progress
from rlvr_limit.study.prepared import Evaluated, Study
from rlvr_limit.training.loop import load

ROWS = 256
"""Scores are put on record so many at a time."""


def score_missing(study: Study) -> None:
    """Scores the first `score.answers` texts of everybody, where that is still to do.

    Several hosts share what models are to score; what one leaves undone that died is shared once more.
    """
    hosts, file = study.hosts, study.settings.score.references
    if file and hosts.is_first:
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        records.update_manifest(study.root, "score.references_sha256", digest)
    for turn in itertools.count():
        with hosts.in_lockstep():
            _score_lacking(study, turn)
        hosts.wait("score", turn)
        if hosts.count == 1 or not any(todo for _, _, todo in _work(study)):
            return


def _work(study: Study) -> list[tuple[Evaluated, str, list[Answer]]]:
    n = study.settings.score.answers
    return [(model, whose, lacking(study, model, whose, n)) for model, whose in _wanted(study)]


def _score_lacking(study: Study, turn: int) -> None:
    work, hosts = _work(study), study.hosts
    left = sum(len(todo) for _, _, todo in work)
    if not left:
        return
    n = study.settings.score.answers
    total = max(left, sum(min(n, study.first(problem)) for problem in study.problems) * len(work))
    with (
        records.Writer(study.root, "scores") as scores,
        Progress(study.root, "score", total, "answers", total - left, hosts.is_first) as progress,
    ):
        done, before = total - left, hosts.progress_of_others("scored")
        for share in hosts.lease_shares(f"score/{turn}", len(work)):
            model, arm, todo = work[share]
            for rows in scored(study, model, arm, todo):
                if hosts.leads_replica:
                    scores.append(rows)
                    done += len(rows)
                    hosts.report_progress(scored=len(rows))
                    by_all = min(total, done + round(hosts.progress_of_others("scored") - before))
                    progress.update(by_all, model=model.name, answers_of=arm)
                study.notice.raise_if_preempted()


def _wanted(study: Study) -> list[tuple[Evaluated, str]]:
    """(model, whose texts): each arm's under its panel's base and under itself, and the given ones under every arm."""
    wanted = []
    for base, *others in study.panels.values():
        wanted += [(base, entry.name) for entry in (base, *others)]
        wanted += [(entry, entry.name) for entry in others]
    return wanted + [(entry, whose) for whose in score_inputs.given(study) for entry in study.evaluated]


def lacking(study: Study, model: Evaluated, whose: str, n: int) -> list[Answer]:
    """Of the first n texts to each problem those that are not scored under the model."""

    def there() -> dict[str, list[int]]:
        found = records.existing(study.root, "scores", arm=whose, model=model.name)
        return {name: sorted(indices) for name, indices in found.items()}

    # Hosts of one replica score the same, though records grow while each of them reads.
    have = study.hosts.broadcast_in_replica(there)
    answers = score_inputs.of_model(study, whose, model, n)
    return [answer for answer in answers if answer.index not in have.get(answer.problem_id, ())]


def scored(
    study: Study, model: Evaluated, whose: str, todo: list[Answer], params: Params | None = None
) -> Iterator[list[dict]]:
    """Rows of the scores table, some at a time, short answers first. params are the model's; None: to be loaded."""
    if not todo:
        return
    setup, params = study.setups[model.arm], load(study, model) if params is None else params
    pairs = [(answer.prompt, answer.tokens) for answer in todo]
    rows: list[dict] = []
    for i, scored in log_probs.iter_scores(params, setup.model, pairs, study.settings.score.tokens):
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
