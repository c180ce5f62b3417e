"""The temperature at which one arm has another arm's token entropy (Yue et al. 2025, v5, Fig. 18).

Shapes: S samples.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rlvr_limit import records
from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.rollout import rollout
from rlvr_limit.passk.entropy import Entropy, Sharpened, sharpened, token_entropy
from rlvr_limit.records.progress import Progress
from rlvr_limit.records.storage import Place
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.matched_temperature import EntropyMatching, MatchingRound, read_matching, write_matching
from rlvr_limit.study.prepared import Study
from rlvr_limit.types import Problem, SamplingParams, UserError

ROUNDS = 8
"""Temperatures that are tried at most."""

STEP = 1.5
"""Factor between the first two temperatures; later ones are at most its square apart."""

SHARE = 0.2
"""Standard error that a round aims at, as a share of what the entropies may differ by."""

SHARPER = (2.0, 4.0)
"""Powers that answers are sharpened to on the page; 4 is that of the paper that asked (arXiv 2510.14901)."""

SMALL = 1e-4
"""Smaller entropies are taken for this one, because of the logarithm."""


def match(study: Study, entry: EvaluatedArm, engine: Engine, stream: str) -> float:
    """Finds an arm's temperature, or goes on finding it; `engine` holds its weights, `stream` is this search's own.

    The search ends where the entropies' distance and two of its standard errors together are within match_within. Each
    round is kept in the run folder as it ends. Raises UserError where the target's entropy is too uncertain, or after
    ROUNDS rounds.
    """
    root, arm = study.root, entry.name
    asked = study.settings.arms[entry.arm].sampling
    within = asked.match_within
    matching = read_matching(root, arm)
    if matching is None:
        n = {problem.id: study.first(problem) for problem in study.problems}
        matching = EntropyMatching(asked.match_entropy, recorded_entropy(root, asked.match_entropy, n))
        write_matching(root, arm, matching)
    target = matching.target
    aim = f"{matching.aim} has {target.mean:.4f} ({target.error:.4f})"
    if 2 * target.error > within / 2:
        raise UserError(
            f"arm {arm}: {aim} nats, too uncertain for sampling.match_within = {within}: use a larger sampling.n"
        )
    while matching.temperature is None:
        number = len(matching.rounds) + 1
        if number > ROUNDS:
            raise UserError(
                f"arm {arm}: in {ROUNDS} rounds its entropy came to {matching.nearest.mean:.4f} at best, {aim}; use a "
                "larger sampling.match_within, or match another arm"
            )
        temperature = next_temperature(matching.rounds, target.mean, study.setups[entry.arm].sampling.temperature)
        answers = answers_needed((target, matching.nearest), len(study.problems), SHARE * within)
        entropy = _sampled_entropy(study, entry, engine, temperature, answers, f"{stream}/{number}")
        matching = dataclasses.replace(matching, rounds=(*matching.rounds, MatchingRound(temperature, entropy)))
        if abs(entropy.mean - target.mean) + 2 * math.hypot(entropy.error, target.error) <= within:
            matching = dataclasses.replace(matching, temperature=temperature)
        write_matching(root, arm, matching)
        print(
            f"match {arm}, round {number}: temperature {temperature:.4f}, entropy {entropy.mean:.4f} nats "
            f"(standard error {entropy.error:.4f}, {entropy.tokens:,} tokens), {aim}",
            flush=True,
        )
    return matching.temperature


def next_temperature(rounds: Sequence[MatchingRound], target: float, start: float) -> float:
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


def recorded_entropy(root: Place, arm: str, n: Mapping[str, int]) -> Entropy:
    """The entropy of an arm's first n samples of each problem. UserError where some are not on record yet."""
    stored = records.read(root, "samples", ["problem_id", "index", "logp"], {"arm": arm})
    most = np.array([n.get(name, 0) for name in stored["problem_id"].to_pylist()])
    stored = stored.filter(pa.array(stored["index"].to_numpy() < most))
    if stored.num_rows < sum(n.values()):
        raise UserError(f"arm {arm} has {stored.num_rows} samples of {sum(n.values())}: --config.job=sample draws them")
    entropy = entropy_of(stored)
    if entropy.error is None:
        raise UserError(f"arm {arm}: its entropy has no standard error with one sample a problem; use sampling.n >= 2")
    return entropy


def entropy_of(samples: pa.Table) -> Entropy:
    """The entropy of the rows of a samples table (columns problem_id and logp)."""
    length_S = pc.list_value_length(samples["logp"]).to_numpy()
    ends_S = np.cumsum(length_S)
    sums = np.concatenate([[0.0], np.cumsum(-pc.list_flatten(samples["logp"]).to_numpy().astype(np.float64))])
    return token_entropy(samples["problem_id"].to_pylist(), sums[ends_S] - sums[ends_S - length_S], length_S)


def sharpened_rates(
    study: Study, entry: EvaluatedArm, problem_S: np.ndarray, correct_S: np.ndarray, samples: pa.Table
) -> tuple[Sharpened, ...]:
    """What sharpening would give; () where top-p and its like kept some answers from being drawn, or nobody said how
    likely they are, or they have been sharpened."""
    sampling = study.setups[entry.arm].sampling
    if study.settings.arms[entry.arm].sharpen or not pc.list_value_length(samples["logp"]).to_numpy().all():
        return ()
    if sampling.temperature == 0 or sampling.top_p < 1 or sampling.top_k or sampling.min_p:
        return ()
    whole = (np.array([math.fsum(values) for values in samples[name].to_pylist()]) for name in ("logp_model", "logp"))
    model_S, drawn_S = whole
    return tuple(sharpened(problem_S, correct_S, model_S, drawn_S, alpha) for alpha in SHARPER)


def drawn_tokens(study: Study, entry: EvaluatedArm, n: int, place: Mapping[str, int]) -> np.ndarray | None:
    """[M] tokens that were drawn for one of the first n answers, a mean; None where that is an answer's own length."""
    if not study.settings.arms[entry.arm].sharpen:
        return None
    costs = records.read(study.root, "costs", ["problem_id", "index", "drawn"], {"arm": entry.name}).to_pylist()
    rows = [
        (place[row["problem_id"]], row["drawn"]) for row in costs if row["index"] < n and row["problem_id"] in place
    ]
    problem_R, drawn_R = np.array(rows).T
    return np.bincount(problem_R, drawn_R, len(place)) / np.bincount(problem_R, minlength=len(place))


def _sampled_entropy(
    study: Study, entry: EvaluatedArm, engine: Engine, temperature: float, answers: int, stream: str
) -> Entropy:
    setup = study.setups[entry.arm]

    def sampling(problem: Problem) -> SamplingParams:
        return dataclasses.replace(study.sampling_params(setup, problem), temperature=temperature)

    work = ((problem, range(answers)) for problem in setup.problems)
    problems, totals, lengths = [], [], []
    with Progress(study.root, f"match {entry.name}", answers * len(setup.problems), "samples") as progress:
        decode = setup.tokenizer.decode
        for graded in rollout(engine.generate, work, sampling, study.settings.seed, stream, decode, None):
            problems.append(graded.sample.problem_id)
            totals.append(-sum(graded.sample.logp))
            lengths.append(len(graded.sample.logp))
            progress.update(len(problems), temperature=temperature)
    return token_entropy(problems, np.array(totals), np.array(lengths))
