"""Draws the samples that the run folder still lacks; each is graded as it finishes."""

from __future__ import annotations

import time

from ml_collections import ConfigDict

from rlvr_limit import records
from rlvr_limit.engine import Engine
from rlvr_limit.grading import countdown as grading
from rlvr_limit.jobs.experiment import Evaluated, Experiment, prepare
from rlvr_limit.jobs.progress import Progress
from rlvr_limit.jobs.train import load, train_missing
from rlvr_limit.rollout import Graded, missing, rollout


def run(config: ConfigDict) -> None:
    """The sample job: n graded samples of every arm and problem are on record when it returns."""
    experiment = prepare(config)
    train_missing(experiment)
    sample_missing(experiment)


def sample_missing(experiment: Experiment) -> None:
    """Samples arm by arm with one engine; only the weights change between them."""
    engine = None
    with records.Writer(experiment.root, "samples") as samples, records.Writer(experiment.root, "verdicts") as verdicts:
        for entry in experiment.evaluated:
            existing = records.existing(experiment.root, "samples", arm=entry.name)
            work = list(missing(experiment.problems, experiment.settings.sampling.n, existing))
            if not work:
                continue
            params = load(experiment, entry)
            if engine is None:
                s = experiment.settings
                engine = Engine(params, experiment.model, s.engine, s.sampling.max_tokens)
            engine.load(params)
            _sample(experiment, entry, engine, work, samples, verdicts)


def _sample(
    experiment: Experiment,
    entry: Evaluated,
    engine: Engine,
    work: list,
    samples: records.Writer,
    verdicts: records.Writer,
) -> None:
    s = experiment.settings
    total = s.sampling.n * len(experiment.problems)
    done = total - sum(len(indices) for _, indices in work)
    stream = f"eval/{entry.name}"
    sampling = experiment.sampling_params()
    solved: set[str] = set()
    waiting: list[Graded] = []
    tokens, began = 0, time.monotonic()
    flushed = began
    with Progress(experiment.root, f"sample {entry.name}", total, "samples", done) as progress:
        for graded in rollout(engine, work, sampling, s.seed, stream, experiment.tokenizer.decode, grading.grade):
            waiting.append(graded)
            done += 1
            tokens += len(graded.sample.tokens)
            if graded.verdict.correct:
                solved.add(graded.sample.problem_id)
            now = time.monotonic()
            if now - flushed > s.flush_seconds:
                _write(entry, waiting, samples, verdicts)
                waiting, flushed = [], now
            speed = tokens / max(now - began, 1e-9)
            progress.update(done, tokens_per_s=round(speed), live=engine.live, solved=len(solved))
        _write(entry, waiting, samples, verdicts)


def _write(entry: Evaluated, graded: list[Graded], samples: records.Writer, verdicts: records.Writer) -> None:
    now = time.time()
    samples.append(
        [
            {
                "arm": entry.name,
                "problem_id": g.sample.problem_id,
                "index": g.sample.index,
                "tokens": g.sample.tokens,
                "logp": g.sample.logp,
                "logp_model": g.sample.logp_model,
                "stop": str(g.sample.stop),
                "text": g.text,
                "time": now,
            }
            for g in graded
        ]
    )
    verdicts.append([verdict_row(entry.name, g.sample.problem_id, g.sample.index, g.verdict) for g in graded])


def verdict_row(arm: str, problem_id: str, index: int, verdict: object) -> dict:
    """A verdict as it stands in the records."""
    return {
        "arm": arm,
        "problem_id": problem_id,
        "index": index,
        "grader": grading.VERSION,
        "correct": verdict.correct,
        "status": str(verdict.status),
        "extracted": verdict.extracted,
        "detail": verdict.detail,
    }
