"""Log-likelihoods of stored samples under the base and under the arm that drew them (Yue et al. 2025, Fig. 6)."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rlvr_limit import records
from rlvr_limit.distributed.host_memory import return_freed
from rlvr_limit.evaluation import score_inputs
from rlvr_limit.evaluation.score_inputs import ScoreInput
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import Params, for_inference
from rlvr_limit.records.progress import Progress
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.prepared import Study
from rlvr_limit.study.weights import load_weights

ROWS, SECONDS = 256, 10.0
"""Scores are put on record so many at a time, or those of so long: then progress is shown, and a run can end."""


class _Scoring(NamedTuple):
    """Texts of `arm` that `model` is to score still."""

    model: EvaluatedArm
    arm: str
    todo: list[ScoreInput]


def score_missing(study: Study) -> None:
    """Scores the first `score.answers` texts of every arm, where that is still to do.

    Several hosts share what models are to score; what a host that died leaves undone is shared once more.
    """
    hosts, file = study.hosts, study.settings.score.references
    if file and hosts.is_first:
        digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
        records.update_manifest(study.root, "score.references_sha256", digest)
    for turn in itertools.count():
        with hosts.in_lockstep():
            _score_once(study, turn)
        hosts.wait("score", turn)
        if hosts.count == 1 or not any(scoring.todo for scoring in _scorings(study)):
            return


def answers_to_score(study: Study) -> int:
    """Answers that are not scored yet, whether or not they are drawn."""
    per_pair = sum(min(study.settings.score.answers, study.first(problem)) for problem in study.problems)
    scored = records.read(study.root, "scores", ["index"]).num_rows
    return max(0, per_pair * len(_pairs(study)) - scored)


def _pairs(study: Study) -> list[tuple[EvaluatedArm, str]]:
    """(model, whose texts): each arm's under its panel's base and under itself, and the given ones under every arm."""
    pairs = []
    for base, *others in study.panels.values():
        pairs += [(base, entry.name) for entry in (base, *others)]
        pairs += [(entry, entry.name) for entry in others]
    pairs += [(entry, whose) for whose in score_inputs.given_texts(study) for entry in study.evaluated]
    # An endpoint tells no log-likelihoods, and its texts have no tokens.
    there = {entry.name for entry in study.evaluated if not study.setups[entry.arm].model}
    return [(model, whose) for model, whose in pairs if not {model.name, whose} & there]


def _scorings(study: Study) -> list[_Scoring]:
    """What is to be scored still of each pair."""
    n = study.settings.score.answers
    return [_Scoring(model, whose, unscored(study, model, whose, n)) for model, whose in _pairs(study)]


def _score_once(study: Study, turn: int) -> None:
    scorings, hosts, n = _scorings(study), study.hosts, study.settings.score.answers
    left = sum(len(scoring.todo) for scoring in scorings)
    if not left:
        return
    total = max(left, sum(min(n, study.first(problem)) for problem in study.problems) * len(scorings))
    done, before = total - left, hosts.progress_of_others("scored")
    progress = Progress(study.root, "score", total, "answers", done, hosts.is_first)
    return_freed()
    with records.Writer(study.root, "scores") as scores, progress:
        for share in hosts.lease_shares(f"score/{turn}", len(scorings)):
            model, arm, todo = scorings[share]
            for rows in score(study, model, arm, todo):
                if hosts.leads_replica:
                    scores.append(rows)
                    done += len(rows)
                    hosts.report_progress(scored=len(rows))
                    by_others = round(hosts.progress_of_others("scored") - before)
                    progress.update(min(total, done + by_others), model=model.name, answers_of=arm)
                study.notice.raise_if_preempted()


def unscored(study: Study, model: EvaluatedArm, whose: str, n: int) -> list[ScoreInput]:
    """Of the first n texts to each problem those that are not scored under the model."""

    def on_record() -> dict[str, list[int]]:
        existing = records.existing(study.root, "scores", arm=whose, model=model.name)
        return {name: sorted(indices) for name, indices in existing.items()}

    # Hosts of one replica score the same, though records grow while each of them reads.
    have = study.hosts.broadcast_in_replica(on_record)
    inputs = score_inputs.texts_for(study, whose, model, n)
    return [text for text in inputs if text.index not in have.get(text.problem_id, ())]


def score(
    study: Study, model: EvaluatedArm, whose: str, todo: Sequence[ScoreInput], params: Params | None = None
) -> Iterator[list[dict]]:
    """Rows of the scores table, some at a time, short answers first. params are the model's; None: to be loaded."""
    if not todo:
        return
    setup = study.setups[model.arm]
    if params is None:
        params = for_inference(load_weights(study, model), donate=True)

    def row(text: ScoreInput, scored: log_probs.Scored) -> dict:
        key = {"arm": whose, "problem_id": text.problem_id, "index": text.index, "model": model.name}
        return key | scored._asdict()

    pairs = [(text.prompt, text.tokens, text.images) for text in todo]
    rows, begun = list[dict](), time.monotonic()
    for i, scored in log_probs.iter_scores(params, setup.model, pairs, study.settings.score.tokens):
        rows.append(row(todo[i], scored))
        if len(rows) == ROWS or time.monotonic() - begun > SECONDS:
            yield rows
            rows, begun = [], time.monotonic()
    # Of a text without tokens there is nothing to compute.
    yield rows + [row(text, log_probs.Scored((), ())) for text in todo if not text.tokens]
