"""Draws the samples that the run folder still lacks; what can be graded at once is graded as it finishes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kernels.selfcheck import check
from rlvr_limit import records
from rlvr_limit.distributed.compiled import FirstToken
from rlvr_limit.distributed.host_memory import return_freed
from rlvr_limit.distributed.mesh import abstract_parameters
from rlvr_limit.distributed.work_queue import Round, Work, leased_work, rounds
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.metropolis import sharpened
from rlvr_limit.engine.requests import EngineStats
from rlvr_limit.engine.rollout import Graded, missing, rollout
from rlvr_limit.engine.shapes import halved, segment_engine_config
from rlvr_limit.evaluation import entropy_matching, shared_samples
from rlvr_limit.evaluation.adaptive import samples_wanted
from rlvr_limit.evaluation.grade import verdict_row
from rlvr_limit.evaluation.others.endpoints import ask_endpoint
from rlvr_limit.evaluation.score import answers_to_score
from rlvr_limit.grading.pool.pool import GradingPool
from rlvr_limit.models.decoder import ModelConfig, parameter_specs
from rlvr_limit.records.progress import Outlook, Progress
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.prepared import Study
from rlvr_limit.study.run_folder import stream
from rlvr_limit.study.verdicts import references
from rlvr_limit.study.weights import load_weights
from rlvr_limit.types import Problem, SamplingParams, Stop, Verdict, first_line, is_out_of_memory


class _Turn(NamedTuple):
    """An arm's turn to be drawn, in one of the rounds, as far as it lacks these indices."""

    entry: EvaluatedArm
    name: str  # of the round; "" where there is one only
    indices: Round


def sample_missing(study: Study, stage: str = "sample") -> None:
    """Samples arm by arm, in rounds; several hosts share the work, and once more what a host that died had leased.

    stage is the one of hosts.STAGES: each has leases of its own. Where memory runs out, it goes on once with
    half of the sequences, from what is on record.
    """
    hosts, is_halved = study.hosts, False
    first_token = FirstToken(hosts.is_first and stage == "sample")
    for turn in itertools.count():
        ran_out = False
        with hosts.in_lockstep():
            try:
                _sample_lacking(study, f"{stage}/{turn}", first_token)
            except (MemoryError, RuntimeError) as error:
                if is_halved or hosts.hosts_per_replica > 1 or not is_out_of_memory(error):
                    raise
                ran_out = is_halved = True
                what = first_line(error)
        if ran_out:
            study = dataclasses.replace(study, engine=halved(study.engine))
            print(f"out of memory ({what}): going on with {study.engine.max_num_seqs} sequences", flush=True)
        if hosts.count > 1:
            print(hosts.summary(), flush=True)
        hosts.wait(stage, turn)
        if not ran_out and (hosts.count == 1 or next(_lacking(study), None) is None):
            break
    if hosts.is_first:
        # Of an arm that others have sampled alone, they only have told the hash.
        for fact, digest in hosts.checked_values("arms.").items():
            records.update_manifest(study.root, f"arms.{fact}", digest)


def _sample_lacking(study: Study, lease: str, first_token: FirstToken) -> None:
    """One pass over all arms; arms of one shape share an engine, only the weights change between them."""
    engine: Engine | None = None
    shape: tuple[ModelConfig, bool] | None = None
    loaded: EvaluatedArm | None = None
    outlook = _outlook(study) if study.hosts.is_first else None
    check()
    with records.Writer(study.root, "samples") as samples, records.Writer(study.root, "verdicts") as verdicts:
        for turn in _lacking(study):
            entry, arm = turn.entry, study.settings.arms[turn.entry.arm]
            model, is_sharpened = study.setups[entry.arm].model, bool(arm.sharpen)
            if arm.endpoint:
                lacking = functools.partial(_missing, study, entry, turn.indices)
                ask_endpoint(study, entry, turn.name, lacking, samples, outlook)
                continue
            # The last arm's weights go before the next one's come: two of them may not fit.
            if entry == loaded:
                pass
            elif (model, is_sharpened) == shape:
                engine.load(None)
                return_freed()
                engine.load(first_token.load(load_weights, study, entry), donate=True)
            else:
                engine = None
                return_freed()
                # Made before its weights are there: what it compiles goes on beside loading.
                weights = abstract_parameters(parameter_specs(model), model.dtype, study.mesh)
                config, longest = study.engine, _longest(study, model)
                if is_sharpened:
                    config = segment_engine_config(config, config.max_prompt_len + longest)
                engine, shape = Engine(weights, model, config, longest), (model, is_sharpened)
                lacking = _missing(study, entry, turn.indices)
                images = [image for problem, _ in lacking for image in problem.images]
                lengths = [len(problem.prompt_ids) for problem, _ in lacking]
                engine.expect(lengths, sum(len(i) for _, i in lacking), images)
                engine.load(first_token.load(load_weights, study, entry), donate=True)
            loaded = entry
            _sample_arm(study, turn, engine, lease, samples, verdicts, outlook, first_token)
            # The next arm's temperature may be matched to what was drawn just now.
            samples.flush()
            verdicts.flush()


def _longest(study: Study, model: ModelConfig) -> int:
    """Most new tokens that any arm of this shape may draw; sizes the cache."""
    setups = (setup for setup in study.setups.values() if setup.model == model)
    return max(study.sampling_params(setup, problem).max_tokens for setup in setups for problem in setup.problems)


def _lacking(study: Study) -> Iterator[_Turn]:
    """Whose turn it is, where samples are missing. An arm comes after the one it is matched to."""
    is_matched = {entry: bool(study.settings.arms[entry.arm].sampling.match_entropy) for entry in study.evaluated}
    for entries in ([e for e, matched in is_matched.items() if matched is which] for which in (False, True)):
        drawn_in = _rounds(study, entries)
        for number, indices in enumerate(drawn_in, 1):
            name = f"round {number} of {len(drawn_in)}" if len(drawn_in) > 1 else ""
            # The arm whose weights are there goes on.
            for entry in entries if number % 2 else reversed(entries):
                if _work(study, entry, indices):
                    yield _Turn(entry, name, indices)


def _rounds(study: Study, entries: Sequence[EvaluatedArm]) -> list[Round]:
    """The rounds of these arms: those of what is asked for, so that all hosts have the same ones."""
    samples = sum(study.first(problem) for problem in study.problems)
    sequences = study.engine.max_num_seqs * study.hosts.replicas
    return rounds(len(entries), samples, sequences, study.settings.sampling.max_tokens)


def _work(study: Study, entry: EvaluatedArm, drawn_in: Round) -> Work:
    """What is missing of a round, on all hosts of a replica as the first of them reads it: records may be growing."""
    problems = {problem.id: problem for problem in study.setups[entry.arm].problems}
    ranges = study.hosts.broadcast_in_replica(functools.partial(_missing_ranges, study, entry, drawn_in))
    return [(problems[name], [i for ends in mine for i in range(*ends)]) for name, mine in ranges]


def _missing(study: Study, entry: EvaluatedArm, drawn_in: Round) -> Work:
    """What is missing of a round as this host reads it."""
    existing, n = records.existing(study.root, "samples", arm=entry.name), samples_wanted(study, entry)
    return list(missing(study.setups[entry.arm].problems, lambda p: drawn_in(n(p)), existing))


def _missing_ranges(study: Study, entry: EvaluatedArm, drawn_in: Round) -> list[tuple[str, list]]:
    """(problem, (start, stop) of each range of sample indices that are still to be drawn in a round)."""
    ranges = []
    for problem, indices in _missing(study, entry, drawn_in):
        by_range = itertools.groupby(enumerate(indices), key=lambda pair: pair[1] - pair[0])
        runs = [[i for _, i in pairs] for _, pairs in by_range]
        ranges.append((problem.id, [(run[0], run[-1] + 1) for run in runs]))
    return ranges


def _outlook(study: Study) -> Outlook:
    """What is to be drawn by now, of all arms and rounds, and scored after that. The host that shows progress asks."""
    lacking = {
        entry.name: sum(len(indices) for _, indices in _missing(study, entry, range)) for entry in study.evaluated
    }
    return Outlook(lacking, answers_to_score(study) if study.settings.job == "compare" else 0)


def temperature_of(study: Study, entry: EvaluatedArm, engine: Engine) -> float:
    """The temperature of an arm; where it is to be matched, it is found with the engine, which holds its weights."""
    own, arm = study.setups[entry.arm].sampling.temperature, study.settings.arms[entry.arm]
    if arm.sharpen:
        return 1 / arm.sharpen.alpha
    if not arm.sampling.match_entropy:
        return own
    return entropy_matching.match(study, entry, engine, f"match/{stream(study, entry, own)}")


class _ArmWriter:
    """An arm's samples and verdicts on their way into the records, and counts of what came by."""

    def __init__(
        self, study: Study, arm: str, samples: records.Writer, verdicts: records.Writer, costs: records.Writer | None
    ) -> None:
        self._arm, self._grader, self._against = arm, study.task.version, references(study, study.task)
        self._samples, self._verdicts, self._costs = samples, verdicts, costs
        self._sample_rows: list[dict] = []
        self._cost_rows: list[dict] = []
        self._verdict_rows: list[dict] = []
        self._flushed = time.monotonic()
        self.drawn = self.tokens = self.truncated = 0
        self.solved: set[str] = set()

    def add(self, graded: Graded) -> None:
        """Takes a sample, and its verdict where it has one."""
        sample = graded.sample
        key = {"arm": self._arm, "problem_id": sample.problem_id, "index": sample.index}
        what = {"tokens": sample.tokens, "logp": sample.logp, "logp_model": sample.logp_model}
        self._sample_rows.append(key | what | {"stop": str(sample.stop), "text": graded.text})
        if self._costs:
            self._cost_rows.append(key | {"drawn": sample.drawn})
        self.drawn += 1
        self.tokens += sample.drawn or len(sample.tokens)
        self.truncated += sample.stop == Stop.LENGTH
        if graded.verdict:
            self.add_verdicts([((sample.problem_id, sample.index), graded.verdict)])

    def add_verdicts(self, verdicts: Iterable[tuple[tuple[str, int], Verdict]]) -> None:
        """Takes verdicts by (problem, sample index)."""
        for (name, index), verdict in verdicts:
            row = verdict_row(self._arm, name, index, self._grader, self._against[name], verdict)
            self._verdict_rows.append(row)
            if verdict.correct:
                self.solved.add(name)

    def flush(self, older_than: float = 0.0) -> None:
        """Puts on record what is waiting, unless that was done in the last `older_than` seconds."""
        if older_than and time.monotonic() - self._flushed <= older_than:
            return
        now = time.time()
        if self._costs:
            self._costs.append(self._cost_rows)
            self._costs.flush()  # no sample stands without its cost
        self._samples.append([row | {"time": now} for row in self._sample_rows])
        self._verdicts.append(self._verdict_rows)
        self._sample_rows, self._verdict_rows, self._cost_rows, self._flushed = [], [], [], time.monotonic()


def _sample_arm(
    study: Study,
    turn: _Turn,
    engine: Engine,
    lease: str,
    samples: records.Writer,
    verdicts: records.Writer,
    outlook: Outlook | None,
    first_token: FirstToken,
) -> None:
    """Draws what is missing of an arm, as far as this host's replica leases it."""
    entry, seen = turn.entry, deque[EngineStats](maxlen=1)
    lease = "/".join(filter(None, (lease, turn.name, entry.name)))
    s, task, setup, hosts = study.settings, study.task, study.setups[entry.arm], study.hosts
    how, generate = s.arms[entry.arm].sharpen, engine.generate
    if how:
        generate = sharpened(generate, how, engine.config.max_num_seqs)
    temperature = temperature_of(study, entry, engine)
    lacking = functools.partial(_missing, study, entry, turn.indices)
    # What answers of p^alpha have cost is on record in their own folder only.
    taken = 0 if how else shared_samples.take(study, entry, temperature, lease, lacking, samples, verdicts)
    if outlook:
        outlook.need_not_draw(entry.name, taken)
    work = _work(study, entry, turn.indices)
    if not work:
        return

    progress: Progress | None = None
    kept: _ArmWriter | None = None

    def watch(stats: EngineStats) -> None:
        if how and kept:
            # No sample may come for long.
            kept.flush(older_than=0.0 if study.notice else s.flush_seconds)
            study.notice.raise_if_preempted()
        if seen and progress:
            progress.begin_pace()
        seen.append(stats)
        first_token.window_begins()
        if progress:
            show(progress)

    def show(progress: Progress) -> None:
        by_others = round(hosts.progress_of_others("samples") - samples_before)
        tokens = kept.tokens + hosts.progress_of_others("tokens") - tokens_before
        progress.update(
            min(total, on_record + kept.drawn + by_others),
            tokens_per_s=round(tokens / max(time.monotonic() - began, 1e-9)),
            live=seen[-1].running,
            pages=f"{seen[-1].pages}/{pages}",
            solved=len(kept.solved),
            truncated=kept.truncated,
        )

    def sampling(problem: Problem) -> SamplingParams:
        return dataclasses.replace(study.sampling_params(setup, problem), temperature=temperature)

    drawn = rollout(
        generate,
        leased_work(hosts, lease, work, study.n),
        sampling,
        s.seed,
        f"eval/{stream(study, entry, temperature)}",
        setup.tokenizer.decode,
        task.grade if task.inline and hosts.leads_replica else None,
        watch,
    )
    if not hosts.leads_replica:
        for _ in drawn:
            study.notice.raise_if_preempted()
        return
    problems = {problem.id: problem for problem in setup.problems}
    n = samples_wanted(study, entry)
    total = sum(turn.indices(n(problem)).stop for problem in setup.problems)
    on_record = total - sum(len(indices) for _, indices in work)
    samples_before, tokens_before = hosts.progress_of_others("samples"), hosts.progress_of_others("tokens")
    stage = ", ".join(filter(None, (f"sample {entry.name}", turn.name)))
    left = functools.partial(outlook.seconds_left, entry.name) if outlook else None
    progress = Progress(
        study.root, stage, total, "samples", on_record, hosts.is_first, left, engine.config.max_num_seqs
    )
    pages, began = engine.shapes.shards * (engine.shapes.pages - 1), time.monotonic()
    with contextlib.ExitStack() as stack:
        costs = stack.enter_context(records.Writer(study.root, "costs")) if how else None
        kept = _ArmWriter(study, entry.name, samples, verdicts, costs)
        pool = stack.enter_context(_grading(study))
        stack.enter_context(progress)
        for graded in drawn:
            first_token.is_here()
            kept.add(graded)
            if pool:
                name = graded.sample.problem_id
                pool.submit((name, graded.sample.index), problems[name], graded.text)
                kept.add_verdicts(pool.finished())
            hosts.report_progress(samples=1, tokens=graded.sample.drawn or len(graded.sample.tokens))
            kept.flush(older_than=s.flush_seconds)
            show(progress)
            if study.notice:
                break
        kept.flush()
        if pool:
            kept.add_verdicts(pool.finished(wait=True))
            kept.flush()
    if outlook:
        outlook.drew(entry.name, progress.done - on_record, progress.seconds_each)
    study.notice.raise_if_preempted()


def _grading(study: Study) -> GradingPool | contextlib.nullcontext:
    """Workers that grade beside the token loop, or nothing where the grader is called inline."""
    task, grading = study.task, study.settings.grading
    if task.inline:
        return contextlib.nullcontext()
    return GradingPool(task.grade, grading.workers, grading.seconds, task.shorten)
