"""Draws the samples that the run folder still lacks; what can be graded at once is graded as it finishes."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator

from ml_collections import ConfigDict

from kernels.selfcheck import check
from rlvr_limit import records
from rlvr_limit.engine import Engine, Moment
from rlvr_limit.grading.pool import GradingPool
from rlvr_limit.jobs.experiment import Evaluated, Experiment
from rlvr_limit.jobs.prepare import prepare
from rlvr_limit.jobs.progress import Progress
from rlvr_limit.jobs.stages import wanted
from rlvr_limit.jobs.train import load, train_missing
from rlvr_limit.model import ModelConfig
from rlvr_limit.rollout import Graded, missing, rollout
from rlvr_limit.types import Stop, Verdict

Work = list[tuple]
"""(problem, sample indices that are still to be drawn)."""


def run(config: ConfigDict) -> None:
    """The sample job: n samples of every arm and problem are on record when it returns.

    With sampling.adaptive it draws what is known to be wanted: the second stage only where the first one is graded.
    """
    experiment = prepare(config)
    train_missing(experiment)
    sample_missing(experiment)


def sample_missing(experiment: Experiment) -> None:
    """Samples arm by arm; arms of one shape share an engine, only the weights change between them."""
    engine: Engine | None = None
    shape: ModelConfig | None = None
    check()
    with records.Writer(experiment.root, "samples") as samples, records.Writer(experiment.root, "verdicts") as verdicts:
        for entry, work in _lacking(experiment):
            model = experiment.setups[entry.arm].model
            # The last arm's weights must be gone before the next one's come: two of them may not fit.
            if model == shape:
                engine.load(None)
                engine.load(load(experiment, entry))
            else:
                engine = None
                params = load(experiment, entry)
                engine, shape = Engine(params, model, experiment.engine, _longest(experiment, model)), model
                del params
            _sample(experiment, entry, engine, work, samples, verdicts)


def _longest(experiment: Experiment, model: ModelConfig) -> int:
    """Most new tokens that any arm of this shape may draw; sizes the cache."""
    limits = [
        experiment.sampling_params(setup, problem).max_tokens
        for setup in experiment.setups.values()
        if setup.model == model
        for problem in setup.problems
    ]
    return max(limits)


def _lacking(experiment: Experiment) -> Iterator[tuple[Evaluated, Work]]:
    for entry in experiment.evaluated:
        existing = records.existing(experiment.root, "samples", arm=entry.name)
        work = list(missing(experiment.setups[entry.arm].problems, wanted(experiment, entry), existing))
        if work:
            yield entry, work


def _sample(
    experiment: Experiment,
    entry: Evaluated,
    engine: Engine,
    work: Work,
    samples: records.Writer,
    verdicts: records.Writer,
) -> None:
    s, task, setup = experiment.settings, experiment.task, experiment.setups[entry.arm]
    total = sum(map(wanted(experiment, entry), setup.problems))
    done = total - sum(len(indices) for _, indices in work)
    moments: deque[Moment] = deque(maxlen=1)
    drawn = rollout(
        engine,
        work,
        lambda problem: experiment.sampling_params(setup, problem),
        s.seed,
        f"eval/{entry.name}",
        setup.tokenizer.decode,
        task.grade if task.inline else None,
        moments.append,
    )
    pages = engine.shapes.shards * (engine.shapes.pages - 1)
    solved: set[str] = set()
    waiting: list[Graded] = []
    tokens, truncated, began = 0, 0, time.monotonic()
    flushed = began
    known = {problem.id: problem for problem in setup.problems}
    late: list[dict] = []

    def take(wait: bool = False) -> None:
        for (name, index), verdict in pool.finished(wait) if pool else ():
            late.append(verdict_row(entry.name, name, index, task.version, verdict))
            if verdict.correct:
                solved.add(name)

    progress = Progress(experiment.root, f"sample {entry.name}", total, "samples", done)
    with _grading(experiment) as pool, progress:
        for graded in drawn:
            waiting.append(graded)
            if pool:
                name = graded.sample.problem_id
                pool.submit((name, graded.sample.index), known[name], graded.text)
                take()
            done += 1
            tokens += len(graded.sample.tokens)
            truncated += graded.sample.stop == Stop.LENGTH
            if graded.verdict and graded.verdict.correct:
                solved.add(graded.sample.problem_id)
            now = time.monotonic()
            if now - flushed > s.flush_seconds:
                _write(entry, task.version, waiting, late, samples, verdicts)
                waiting, late, flushed = [], [], now
            speed = round(tokens / max(now - began, 1e-9))
            now_live, held = moments[-1].live, f"{moments[-1].pages}/{pages}"
            found = {"solved": len(solved), "truncated": truncated}
            progress.update(done, tokens_per_s=speed, live=now_live, pages=held, **found)
        _write(entry, task.version, waiting, late, samples, verdicts)
        late = []
        take(wait=True)
        _write(entry, task.version, [], late, samples, verdicts)


def _grading(experiment: Experiment) -> GradingPool | contextlib.nullcontext:
    """Workers that grade beside the token loop, or nothing where the grader is called inline."""
    task, grading = experiment.task, experiment.settings.grading
    if task.inline:
        return contextlib.nullcontext()
    return GradingPool(task.grade, grading.workers, grading.seconds, task.shorten)


def _write(
    entry: Evaluated,
    version: str,
    graded: list[Graded],
    late: list[dict],
    samples: records.Writer,
    verdicts: records.Writer,
) -> None:
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
    verdicts.append(
        late
        + [
            verdict_row(entry.name, g.sample.problem_id, g.sample.index, version, g.verdict)
            for g in graded
            if g.verdict
        ]
    )


def verdict_row(arm: str, problem_id: str, index: int, version: str, verdict: Verdict) -> dict:
    """A verdict as it stands in the records."""
    return {
        "arm": arm,
        "problem_id": problem_id,
        "index": index,
        "grader": version,
        "correct": verdict.correct,
        "status": str(verdict.status),
        "extracted": verdict.extracted,
        "detail": verdict.detail,
    }
