"""What an 8-bit cache does to what is sampled: answers of an arm as they were drawn, and without such a cache."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rlvr_limit import records
from rlvr_limit.evaluation.score import score, unscored
from rlvr_limit.models.decoder import Params
from rlvr_limit.passk.entropy import token_entropy
from rlvr_limit.records.storage import Place
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.prepared import Study
from rlvr_limit.types import CacheError

ANSWERS = 256
"""Answers of an arm that are scored as soon as it is sampled; the score stage scores the others."""

EACH = 2
"""Answers to a problem of those, at least: one of a problem says nothing of the error."""


def measure(study: Study, entry: EvaluatedArm, params: Params) -> None:
    """Scores some answers of an arm under itself, into the records, and says in one line how far off they are."""
    hosts, arm = study.hosts, entry.name
    each = min(study.settings.score.answers, max(EACH, -(-ANSWERS // len(study.problems))))

    def first() -> list[tuple[str, int]]:
        drawn = records.existing(study.root, "samples", arm=arm)
        return [(name, i) for name in sorted(drawn) for i in sorted(drawn[name]) if i < each][:ANSWERS]

    # One replica does it, with the answers that are on record by then; its hosts take the same ones.
    for _ in hosts.lease_shares(f"cache_error/{arm}", 1):
        chosen = {(name, i) for name, i in hosts.broadcast_in_replica(first)}
        todo = [a for a in unscored(study, entry, arm, each) if (a.problem_id, a.index) in chosen]
        with records.Writer(study.root, "scores") as scores:
            for rows in score(study, entry, arm, todo, params):
                if hosts.leads_replica:
                    scores.append(rows)
        error = recorded_error(study.root, arm)
        if hosts.leads_replica and error:
            print(f"cache error of {arm}: {error.in_words()}", flush=True)


def recorded_error(root: Place, arm: str) -> CacheError | None:
    """The error over all answers of an arm that are scored under it; None where there are none.

    The KL of a token is k3 (Schulman 2020), r - 1 - log r with r = P(model) / P(sampler), a mean over draws from the
    sampler at temperature 1: where tokens were drawn otherwise, each counts as often as it would have been drawn so.
    """
    keys = ["problem_id", "index"]
    scores = records.read(root, "scores", [*keys, "logp"], {"arm": arm, "model": arm}).to_pylist()
    under_model = {(row["problem_id"], row["index"]): row["logp"] for row in scores if row["logp"]}
    drawn = records.read(root, "samples", [*keys, "logp", "logp_model"], {"arm": arm})
    is_scored = [(row["problem_id"], row["index"]) in under_model for row in drawn.select(keys).to_pylist()]
    problems, deltas, kls = [], [], []
    for row in drawn.filter(pa.array(is_scored, pa.bool_())).to_pylist():
        three = (under_model[row["problem_id"], row["index"]], row["logp_model"], row["logp"])
        model, own, sampled = (np.asarray(logp, np.float64) for logp in three)
        delta = model - own
        problems.append(row["problem_id"])
        deltas.append(np.abs(delta))
        kls.append(np.sum(np.exp(own - sampled) * (np.expm1(delta) - delta)))
    if not problems:
        return None
    # The error of a mean over tokens, whatever is summed over them.
    kl = token_entropy(problems, np.array(kls), np.array([len(delta) for delta in deltas]))
    every = np.concatenate(deltas)
    return CacheError(len(problems), len(every), float(every.mean()), float(every.max()), kl.mean, kl.error)
