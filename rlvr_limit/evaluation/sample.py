"""Draws the samples that the run folder still lacks; what can be graded at once is graded as it finishes."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import time
from collections import deque
from collections.abc import Iterator

from kernels.selfcheck import check
from rlvr_limit import records
from rlvr_limit.distributed.work_queue import Work, leased_work
from rlvr_limit.engine.engine import Engine, Moment
from rlvr_limit.engine.rollout import Graded, missing, rollout
from rlvr_limit.evaluation import cache_error, entropy_matching
from rlvr_limit.evaluation.adaptive import wanted
from rlvr_limit.grading.pool.pool import GradingPool
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.records.progress import Progress
from rlvr_limit.study import schema
from rlvr_limit.study.conditions import weights_sha256
from rlvr_limit.study.prepared import Evaluated, Study
from rlvr_limit.training.loop import load
from rlvr_limit.types import Problem, SamplingParams, Stop, Verdict


def sample_missing(study: Study, stage: str = "sample") -> None:
    """Samples arm by arm; several hosts share the work, and once more what a host that died had leased.

    stage is the one of hosts.STAGES: each has leases of its own.
    """
    hosts = study.hosts
    for turn in itertools.count():
        with hosts.in_lockstep():
            _sample_lacking(study, f"{stage}/{turn}")
        if hosts.count > 1:
            print(hosts.summary(), flush=True)
        hosts.wait(stage, turn)
        if hosts.count == 1 or next(_lacking(study), None) is None:
            break
    if hosts.is_first:
        # Of an arm that others have sampled alone, they only have told the hash.
        for fact, digest in hosts.checked_values("arms.").items():
            records.update_manifest(study.root, f"arms.{fact}", digest)


def _sample_lacking(study: Study, lease: str) -> None:
    """One pass over all arms; arms of one shape share an engine, only the weights change between them."""
    engine: Engine | None = None
    shape: ModelConfig | None = None
    check()
    with records.Writer(study.root, "samples") as samples, records.Writer(study.root, "verdicts") as verdicts:
        for entry, work in _lacking(study):
            model = study.setups[entry.arm].model
            # The last arm's weights must be gone before the next one's come: two of them may not fit.
            if model == shape:
                engine.load(None)
                engine.load(load(study, entry))
            else:
                engine = None
                params = load(study, entry)
                engine, shape = Engine(params, model, study.engine, _longest(study, model)), model
                del params
            _sample(study, entry, engine, work, lease, samples, verdicts)
            # The next arm's temperature may be matched to what was drawn just now.
            samples.flush()
            verdicts.flush()
            if study.engine.cache_dtype:
                cache_error.measure(study, entry, engine.params)


def _longest(study: Study, model: ModelConfig) -> int:
    """Most new tokens that any arm of this shape may draw; sizes the cache."""
    limits = [
        study.sampling_params(setup, problem).max_tokens
        for setup in study.setups.values()
        if setup.model == model
        for problem in setup.problems
    ]
    return max(limits)


def _lacking(study: Study) -> Iterator[tuple[Evaluated, Work]]:
    def is_matched(entry: Evaluated) -> bool:
        return bool(study.settings.arms[entry.arm].sampling.match_entropy)

    # The samples that an entropy is matched to must be there first.
    for entry in sorted(study.evaluated, key=is_matched):
        by_id = {problem.id: problem for problem in study.setups[entry.arm].problems}
        # Hosts of one replica draw the same, though records grow while each of them reads.
        lacking = study.hosts.broadcast_in_replica(lambda entry=entry, by_id=by_id: _runs_lacking(study, entry, by_id))
        if lacking:
            yield entry, [(by_id[name], [i for run in runs for i in range(*run)]) for name, runs in lacking]


def _runs_lacking(study: Study, entry: Evaluated, by_id: dict[str, Problem]) -> list[tuple[str, list]]:
    """(problem, the (first, behind the last) of each run of sample indices that are still to be drawn)."""
    existing = records.existing(study.root, "samples", arm=entry.name)
    found = []
    for problem, indices in missing(by_id.values(), wanted(study, entry), existing):
        by_run = itertools.groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0])
        runs = [[i for _, i in pairs] for _, pairs in by_run]
        found.append((problem.id, [(run[0], run[-1] + 1) for run in runs]))
    return found


def identity(study: Study, entry: Evaluated, temperature: float) -> str:
    """What an arm's random numbers derive from: its weights and how they are sampled, whatever the arm is called."""
    setup, weights = study.setups[entry.arm], weights_sha256(study, entry)
    assert weights, f"the weights of {entry.name} were not loaded before they are sampled"
    s = dataclasses.replace(setup.sampling, n=0, n_of={}, adaptive=0, temperature=temperature)
    return schema.digest([weights, schema.to_jsonable(s), sorted(setup.stop_tokens)])


def temperature_of(study: Study, entry: Evaluated, engine: Engine) -> float:
    """The temperature of an arm; where it is to be matched, it is found with the engine, which holds its weights."""
    own = study.setups[entry.arm].sampling.temperature
    if not study.settings.arms[entry.arm].sampling.match_entropy:
        return own
    return entropy_matching.match(study, entry, engine, f"match/{identity(study, entry, own)}")


def _sample(
    study: Study,
    entry: Evaluated,
    engine: Engine,
    work: Work,
    lease: str,
    samples: records.Writer,
    verdicts: records.Writer,
) -> None:
    s, task, setup = study.settings, study.task, study.setups[entry.arm]
    total = sum(map(wanted(study, entry), setup.problems))
    done = total - sum(len(indices) for _, indices in work)
    moments: deque[Moment] = deque(maxlen=1)
    temperature = temperature_of(study, entry, engine)

    def sampling(problem: Problem) -> SamplingParams:
        return dataclasses.replace(study.sampling_params(setup, problem), temperature=temperature)

    drawn = rollout(
        engine,
        leased_work(study.hosts, f"{lease}/{entry.name}", work, study.n),
        sampling,
        s.seed,
        f"eval/{identity(study, entry, temperature)}",
        setup.tokenizer.decode,
        task.grade if task.inline and study.hosts.leads_replica else None,
        moments.append,
    )
    if not study.hosts.leads_replica:
        for _ in drawn:
            study.notice.raise_if_preempted()
        return
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

    hosts = study.hosts
    samples_before, tokens_before = hosts.progress_of_others("samples"), hosts.progress_of_others("tokens")
    progress = Progress(study.root, f"sample {entry.name}", total, "samples", done, hosts.is_first)
    with _grading(study) as pool, progress:
        for graded in drawn:
            waiting.append(graded)
            if pool:
                name = graded.sample.problem_id
                pool.submit((name, graded.sample.index), known[name], graded.text)
                take()
            done += 1
            tokens += len(graded.sample.tokens)
            hosts.report_progress(samples=1, tokens=len(graded.sample.tokens))
            truncated += graded.sample.stop == Stop.LENGTH
            if graded.verdict and graded.verdict.correct:
                solved.add(graded.sample.problem_id)
            now = time.monotonic()
            if now - flushed > s.flush_seconds:
                _write(entry, task.version, waiting, late, samples, verdicts)
                waiting, late, flushed = [], [], now
            speed = round((tokens + hosts.progress_of_others("tokens") - tokens_before) / max(now - began, 1e-9))
            now_live, held = moments[-1].live, f"{moments[-1].pages}/{pages}"
            found = {"solved": len(solved), "truncated": truncated}
            by_all = min(total, done + round(hosts.progress_of_others("samples") - samples_before))
            progress.update(by_all, tokens_per_s=speed, live=now_live, pages=held, **found)
            if study.notice:
                break
        _write(entry, task.version, waiting, late, samples, verdicts)
        late = []
        take(wait=True)
        _write(entry, task.version, [], late, samples, verdicts)
    study.notice.raise_if_preempted()


def _grading(study: Study) -> GradingPool | contextlib.nullcontext:
    """Workers that grade beside the token loop, or nothing where the grader is called inline."""
    task, grading = study.task, study.settings.grading
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
