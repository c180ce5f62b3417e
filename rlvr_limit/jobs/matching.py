"""The temperature at which one arm has another arm's token entropy (Yue et al. 2025, Fig. 17)."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlvr_limit import records
from rlvr_limit.engine import Engine
from rlvr_limit.jobs.entropy import Entropy, token_entropy
from rlvr_limit.jobs.experiment import Evaluated, Experiment
from rlvr_limit.jobs.progress import Progress
from rlvr_limit.rollout import rollout
from rlvr_limit.types import Problem, SamplingParams, UserError

ROUNDS = 8
"""Temperatures that are tried at most."""

STEP = 1.5
"""Factor between temperatures until two of them enclose the wanted entropy."""

SHARE = 0.2
"""Standard error that a round aims at, as a share of what the entropies may differ by."""


@dataclass(frozen=True)
class Round:
    """One temperature that was tried, and the entropy that a small sample had at it."""

    temperature: float
    entropy: Entropy


@dataclass(frozen=True)
class Matching:
    """How a temperature was found: the arm and the entropy aimed at, the rounds, and the result once there is one."""

    aim: str
    target: Entropy
    rounds: tuple[Round, ...] = ()
    temperature: float | None = None


def matched_temperature(root: Path, arm: str) -> float | None:
    """The temperature that was found for an arm of this run folder; None before that."""
    kept = read(root, arm)
    return kept.temperature if kept else None


def match(experiment: Experiment, entry: Evaluated, engine: Engine, stream: str) -> float:
    """Finds an arm's temperature, or goes on finding it; `engine` holds its weights, `stream` is this search's own.

    A round draws so many answers that its standard error should be a fifth of what the entropies may differ by; the
    search ends where their distance and two standard errors together are within that. Each round is kept in the run
    folder as it ends. Raises UserError where ROUNDS are not enough, or the errors are too large.
    """
    wanted = experiment.settings.arms[entry.arm].sampling
    kept = read(experiment.root, entry.name)
    if kept is None:
        kept = Matching(wanted.match_entropy, recorded_entropy(experiment, wanted.match_entropy))
        _write(experiment.root, entry.name, kept)
    answers = answers_needed(kept.target, len(experiment.problems), SHARE * wanted.match_within)
    while kept.temperature is None:
        temperature = next_temperature(kept.rounds, kept.target.mean, experiment.setups[entry.arm].sampling.temperature)
        number = len(kept.rounds) + 1
        found = _drawn(experiment, entry, engine, temperature, answers, f"{stream}/{number}")
        kept = dataclasses.replace(kept, rounds=(*kept.rounds, Round(temperature, found)))
        distance = found.mean - kept.target.mean
        noise = 2 * math.hypot(found.error, kept.target.error)
        if abs(distance) + noise <= wanted.match_within:
            kept = dataclasses.replace(kept, temperature=temperature)
        _write(experiment.root, entry.name, kept)
        print(
            f"match {entry.name}, round {number}: temperature {temperature:.4f}, entropy {found.mean:.4f} "
            f"(standard error {found.error:.4f}), {kept.aim} has {kept.target.mean:.4f} ({kept.target.error:.4f})",
            flush=True,
        )
        if noise > wanted.match_within:
            raise UserError(
                f"arm {entry.name}: two standard errors of the entropies' distance are {noise:.4f}, above "
                f"sampling.match_within = {wanted.match_within}: a larger sampling.n is right"
            )
        if kept.temperature is None and number >= ROUNDS:
            raise UserError(
                f"arm {entry.name}: after {number} rounds its entropy is {found.mean:.4f} at temperature "
                f"{temperature:.4f}, that of {kept.aim} is {kept.target.mean:.4f}; a larger sampling.match_within, or "
                "another arm to match, is right"
            )
    return kept.temperature


def next_temperature(rounds: Sequence[Round], target: float, start: float) -> float:
    """Where to look next: between the nearest temperatures of less and of more entropy, or a STEP beyond the last.

    Within a bracket the entropy is taken as linear, but the guess keeps a tenth of the bracket away from its ends.
    """
    if not rounds:
        return start
    below = [r for r in rounds if r.entropy.mean < target]
    above = [r for r in rounds if r.entropy.mean >= target]
    if not above:
        return max(r.temperature for r in rounds) * STEP
    if not below:
        return min(r.temperature for r in rounds) / STEP
    low, high = max(below, key=lambda r: r.temperature), min(above, key=lambda r: r.temperature)
    share = (target - low.entropy.mean) / (high.entropy.mean - low.entropy.mean)
    return low.temperature + min(max(share, 0.1), 0.9) * (high.temperature - low.temperature)


def answers_needed(known: Entropy, problems: int, error: float) -> int:
    """Answers to each problem at which an arm as noisy as the known one has this standard error; 2 or more."""
    return max(2, math.ceil(known.samples * (known.error / error) ** 2 / problems))


def recorded_entropy(experiment: Experiment, arm: str) -> Entropy:
    """The entropy of what an evaluated arm has on record. UserError where it has not all its samples yet."""
    n = {problem.id: experiment.n(problem) for problem in experiment.problems}
    stored = records.read(experiment.root, "samples", ["problem_id", "index", "logp"], {"arm": arm})
    most = np.array([n.get(name, 0) for name in stored["problem_id"].to_pylist()])
    stored = stored.filter(pa.array(stored["index"].to_numpy() < most))
    if stored.num_rows < sum(n.values()):
        raise UserError(f"arm {arm} has {stored.num_rows} samples of {sum(n.values())}: --config.job=sample draws them")
    return entropy_of(stored)


def entropy_of(samples: pa.Table) -> Entropy:
    """The entropy of the rows of a samples table (columns problem_id and logp)."""
    length_S = pc.list_value_length(samples["logp"]).to_numpy()
    ends_S = np.cumsum(length_S)
    sums = np.concatenate([[0.0], np.cumsum(-pc.list_flatten(samples["logp"]).to_numpy().astype(np.float64))])
    return token_entropy(samples["problem_id"].to_pylist(), sums[ends_S] - sums[ends_S - length_S], length_S)


def _drawn(
    experiment: Experiment, entry: Evaluated, engine: Engine, temperature: float, answers: int, stream: str
) -> Entropy:
    setup = experiment.setups[entry.arm]

    def sampling(problem: Problem) -> SamplingParams:
        return dataclasses.replace(experiment.sampling_params(setup, problem), temperature=temperature)

    work = ((problem, range(answers)) for problem in setup.problems)
    drawn = rollout(engine, work, sampling, experiment.settings.seed, stream, setup.tokenizer.decode, None)
    problems, totals, lengths = [], [], []
    total = answers * len(setup.problems)
    with Progress(experiment.root, f"match {entry.name}", total, "samples") as progress:
        for graded in drawn:
            problems.append(graded.sample.problem_id)
            totals.append(-sum(graded.sample.logp))
            lengths.append(len(graded.sample.logp))
            progress.update(len(problems), temperature=temperature)
    return token_entropy(problems, np.array(totals), np.array(lengths))


def read(root: Path, arm: str) -> Matching | None:
    """What is on record of an arm's search; None where none was begun."""
    path = _path(root, arm)
    if not path.exists():
        return None
    kept = json.loads(path.read_text())
    rounds = tuple(Round(r["temperature"], Entropy(**r["entropy"])) for r in kept["rounds"])
    return Matching(kept["aim"], Entropy(**kept["target"]), rounds, kept["temperature"])


def _write(root: Path, arm: str, kept: Matching) -> None:
    path = _path(root, arm)
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(dataclasses.asdict(kept), indent=1))
    os.replace(fresh, path)


def _path(root: Path, arm: str) -> Path:
    return root / "matching" / f"{arm}.json"
