"""The temperature at which one arm has another arm's token entropy (Yue et al. 2025, Fig. 17)."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlvr_limit import records
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.rollout import rollout
from rlvr_limit.passk.entropy import Entropy, token_entropy
from rlvr_limit.records.progress import Progress
from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.files import publish
from rlvr_limit.study.prepared import Evaluated, Study
from rlvr_limit.types import Problem, SamplingParams, UserError

ROUNDS = 8
"""Temperatures that are tried at most."""

STEP = 1.5
"""Factor between the first two temperatures; later ones are at most its square apart."""

SHARE = 0.2
"""Standard error that a round aims at, as a share of what the entropies may differ by."""

SMALL = 1e-4
"""What an entropy of less is taken for, whose logarithm might not be there."""


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

    @property
    def nearest(self) -> Entropy:
        """The entropy that came closest to the one aimed at; that one itself before the first round."""
        found = (r.entropy for r in self.rounds)
        return min(found, key=lambda entropy: abs(entropy.mean - self.target.mean), default=self.target)


def matched_temperature(root: Place, arm: str) -> float | None:
    """The temperature that was found for an arm of this run folder; None before that."""
    kept = read(root, arm)
    return kept.temperature if kept else None


def match(study: Study, entry: Evaluated, engine: Engine, stream: str) -> float:
    """Finds an arm's temperature, or goes on finding it; `engine` holds its weights, `stream` is this search's own.

    The search ends where the entropies' distance and two of its standard errors together are within match_within. Each
    round is kept in the run folder as it ends. Raises UserError where the aim is not known well enough, or ROUNDS are
    not enough.
    """
    wanted = study.settings.arms[entry.arm].sampling
    within = wanted.match_within
    kept = read(study.root, entry.name)
    if kept is None:
        kept = Matching(wanted.match_entropy, recorded_entropy(study, wanted.match_entropy))
        _write(study.root, entry.name, kept)
    aim = f"{kept.aim} has {kept.target.mean:.4f} ({kept.target.error:.4f})"
    if 2 * kept.target.error > within / 2:
        raise UserError(
            f"arm {entry.name}: {aim} nats, too uncertain for sampling.match_within = {within}: a larger sampling.n is "
            "right"
        )
    while kept.temperature is None:
        number = len(kept.rounds) + 1
        if number > ROUNDS:
            raise UserError(
                f"arm {entry.name}: in {ROUNDS} rounds its entropy came to {kept.nearest.mean:.4f} at best, {aim}; a "
                "larger sampling.match_within, or another arm to match, is right"
            )
        temperature = next_temperature(kept.rounds, kept.target.mean, study.setups[entry.arm].sampling.temperature)
        answers = answers_needed((kept.target, kept.nearest), len(study.problems), SHARE * within)
        found = _drawn(study, entry, engine, temperature, answers, f"{stream}/{number}")
        distance, error = found.mean - kept.target.mean, math.hypot(found.error, kept.target.error)
        kept = dataclasses.replace(kept, rounds=(*kept.rounds, Round(temperature, found)))
        if abs(distance) + 2 * error <= within:
            kept = dataclasses.replace(kept, temperature=temperature)
        _write(study.root, entry.name, kept)
        print(
            f"match {entry.name}, round {number}: temperature {temperature:.4f}, entropy {found.mean:.4f} nats "
            f"(standard error {found.error:.4f}, {found.tokens:,} tokens), {aim}",
            flush=True,
        )
    return kept.temperature


def next_temperature(rounds: Sequence[Round], target: float, start: float) -> float:
    """Where to look next; the entropy's logarithm is taken as linear in the temperature, and rising.

    Between two that enclose the target by false position, where an end that stays while the other one moves counts
    half, a quarter and so on of its distance (the Illinois algorithm; Dowell and Jarratt 1971). Before that along the
    line through the two outermost.
    """
    if not rounds:
        return start
    off = {r.temperature: math.log(max(r.entropy.mean, SMALL) / target) for r in rounds}
    below, above = sorted(t for t in off if off[t] < 0), sorted(t for t in off if off[t] >= 0)
    if not (below and above):
        return _beyond(below[-2:] or above[1::-1], off)
    sides = [off[r.temperature] < 0 for r in reversed(rounds)]
    weight = 0.5 ** (sides.index(not sides[0]) - 1)
    low, high = below[-1], above[0]
    lacking, over = (-off[low], weight * off[high]) if sides[0] else (-weight * off[low], off[high])
    return low + lacking / (lacking + over) * (high - low)


def _beyond(outermost: Sequence[float], off: Mapping[float, float]) -> float:
    """The temperature on the line through these (the outermost last), but at least 2 % further and not too far."""
    last, factor = outermost[-1], STEP
    upwards = off[last] < 0
    if len(outermost) > 1:
        slope = (off[last] - off[outermost[0]]) / (last - outermost[0])
        goal = last - off[last] / slope if slope > 0 else 0.0
        factor = goal / last if upwards else last / max(goal, SMALL)
        factor = min(max(factor, 1.02), STEP**2) if slope > 0 else STEP
    return last * factor if upwards else last / factor


def answers_needed(known: Sequence[Entropy], problems: int, error: float) -> int:
    """Answers to each problem at which an arm as noisy as the noisiest known has this standard error; 2 or more."""
    return max(2, *(math.ceil(k.samples * (k.error / error) ** 2 / problems) for k in known))


def recorded_entropy(study: Study, arm: str) -> Entropy:
    """The entropy of what an evaluated arm has on record. UserError where it has not all its samples yet."""
    n = {problem.id: study.first(problem) for problem in study.problems}
    stored = records.read(study.root, "samples", ["problem_id", "index", "logp"], {"arm": arm})
    most = np.array([n.get(name, 0) for name in stored["problem_id"].to_pylist()])
    stored = stored.filter(pa.array(stored["index"].to_numpy() < most))
    if stored.num_rows < sum(n.values()):
        raise UserError(f"arm {arm} has {stored.num_rows} samples of {sum(n.values())}: --config.job=sample draws them")
    found = entropy_of(stored)
    if found.error is None:
        raise UserError(
            f"arm {arm}: one sample of a problem says nothing of its entropy's error, sampling.n >= 2 is right"
        )
    return found


def entropy_of(samples: pa.Table) -> Entropy:
    """The entropy of the rows of a samples table (columns problem_id and logp)."""
    length_S = pc.list_value_length(samples["logp"]).to_numpy()
    ends_S = np.cumsum(length_S)
    sums = np.concatenate([[0.0], np.cumsum(-pc.list_flatten(samples["logp"]).to_numpy().astype(np.float64))])
    return token_entropy(samples["problem_id"].to_pylist(), sums[ends_S] - sums[ends_S - length_S], length_S)


def _drawn(study: Study, entry: Evaluated, engine: Engine, temperature: float, answers: int, stream: str) -> Entropy:
    setup = study.setups[entry.arm]

    def sampling(problem: Problem) -> SamplingParams:
        return dataclasses.replace(study.sampling_params(setup, problem), temperature=temperature)

    work = ((problem, range(answers)) for problem in setup.problems)
    drawn = rollout(engine, work, sampling, study.settings.seed, stream, setup.tokenizer.decode, None)
    problems, totals, lengths = [], [], []
    total = answers * len(setup.problems)
    with Progress(study.root, f"match {entry.name}", total, "samples") as progress:
        for graded in drawn:
            problems.append(graded.sample.problem_id)
            totals.append(-sum(graded.sample.logp))
            lengths.append(len(graded.sample.logp))
            progress.update(len(problems), temperature=temperature)
    return token_entropy(problems, np.array(totals), np.array(lengths))


def read(root: Place, arm: str) -> Matching | None:
    """What is on record of an arm's search; None where none was begun."""
    path = _path(root, arm)
    if not path.exists():
        return None
    kept = json.loads(path.read_text())
    rounds = tuple(Round(r["temperature"], Entropy(**r["entropy"])) for r in kept["rounds"])
    return Matching(kept["aim"], Entropy(**kept["target"]), rounds, kept["temperature"])


def _write(root: Place, arm: str, kept: Matching) -> None:
    path = _path(root, arm)
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(path, lambda file: file.write(json.dumps(dataclasses.asdict(kept), indent=1).encode()))


def _path(root: Place, arm: str) -> Place:
    return root / "matching" / f"{arm}.json"
