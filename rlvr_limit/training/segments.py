"""Long answers over several steps, so that no step waits for its longest one: `segment` tokens at most in each.

A step draws the next segment of every unfinished answer and the first one of `prompts` fresh prompts, again under the
same weights until `prompts` groups are whole. It learns from the oldest of those; the others are kept for later steps.
This is the partial rollout of Kimi k1.5 (arXiv 2501.12599, sec. 2.6.2). What it does to the estimator:

* A group is learnt from once, when all of its answers have ended: none is dropped for its length. Only what is
  unfinished at a run's end is never learnt from.
* Which step learns from a group hangs on its longest answer. Summed over steps every group counts the same; the batch
  of one step, least of all the first steps', does not look like a fresh draw.
* Tokens were drawn under the weights of their step. rho = min(pi_before / pi_drawn, importance_cap) weighs each for the
  policy before the step's first update (Espeholt et al. 2018, arXiv 1802.01561; Hilton et al. 2021, arXiv 2110.00641).
  The cap, and weights a token instead of an answer, bias what they keep from exploding.
* kl_sampler, max_delta_logp and ratio of a step's row then tell how old the answers are as well.

The clock is tokens, never time: the same run makes the same choices.
"""

from __future__ import annotations

import io
import itertools
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from rlvr_limit.engine.requests import Request, prompt_key
from rlvr_limit.engine.rollout import Graded
from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.files import publish
from rlvr_limit.training.exchange import from_bytes, to_bytes
from rlvr_limit.training.rollouts import Rollout, RolloutSource, judged_answers, metrics_of, rewarded_groups
from rlvr_limit.types import Problem, Sample, Stop, UserError


@dataclass(frozen=True)
class PartialGroup:
    """Answers to one prompt, some of them unfinished. Those that ended have verdicts, where those are the reward."""

    start: int  # the step that began it
    round: int  # its draw of fresh prompts, from 0
    problem: Problem
    answers: tuple[Graded, ...]
    ended: tuple[bool, ...]

    @property
    def name(self) -> str:
        """What its samples are called instead of their problem."""
        return f"{self.start}/{self.round}/{self.problem.id}"


def draw(source: RolloutSource, number: int) -> Rollout:
    """The groups that step `number` learns from, recipe.prompts of them, under the weights the engine holds now.

    Reads what the step before left unfinished, and writes what this one leaves. UserError where the former is missing.
    """
    recipe, folder = source.recipe, source.folder / "underway"
    groups = _read(folder, number - 1, {problem.id: problem for problem in source.problems}) if number > 1 else []
    rounds = drawn = 0
    while rounds == 0 or sum(all(group.ended) for group in groups) < recipe.prompts:
        rng = random.Random(f"{source.answers.seed}/{source.arm}/{number}" + (f"/{rounds}" if rounds else ""))
        fresh = rng.sample(source.problems, recipe.prompts)
        groups += [PartialGroup(number, rounds, problem, (), (False,) * recipe.answers) for problem in fresh]
        drawn += sum(not ended for group in groups for ended in group.ended)
        groups = _continued(source, groups)
        rounds += 1
    whole = [group for group in groups if all(group.ended)][: recipe.prompts]
    taken = {group.name for group in whole}
    _write(folder, number, [group for group in groups if group.name not in taken])
    rewarded = rewarded_groups(source, [(group.problem, list(group.answers)) for group in whole])
    lengths = [len(graded.sample.tokens) for group in whole for graded in group.answers]
    row = metrics_of(rewarded) | {
        "rounds": rounds,
        "groups": len(rewarded),
        "segments_drawn": drawn,
        "carried": float(np.mean([length > recipe.segment for length in lengths])),
        "age": float(np.mean([number - group.start for group in whole])),
    }
    judged_PG = judged_answers(source, number, rewarded)
    return Rollout(tuple(rewarded), np.ones(len(rewarded), bool), judged_PG, row)


def _continued(source: RolloutSource, groups: list[PartialGroup]) -> list[PartialGroup]:
    """Every group with one more segment of each unfinished answer, and the verdicts of those that have ended now."""
    by_name = {group.name: group for group in groups}
    assert len(by_name) == len(groups)
    answers = {(name, i): graded for name, group in by_name.items() for i, graded in enumerate(group.answers)}
    ended = {(name, i): end for name, group in by_name.items() for i, end in enumerate(group.ended)}
    limits = {name: source.sampling(group.problem).max_tokens for name, group in by_name.items()}

    def finished() -> Iterator[Graded]:
        for sample in source.answers.engine.generate(_requests(source, by_name, limits)):
            name, _, at = sample.problem_id.rpartition("+")
            key = name, sample.index
            joined = _joined(answers[key].sample if int(at) else None, replace(sample, problem_id=name))
            ended[key] = sample.stop != Stop.LENGTH or len(joined.tokens) >= limits[name]
            answers[key] = Graded(joined, source.answers.decode(joined.tokens) if ended[key] else "", None)
            if ended[key]:
                yield answers[key]

    for graded in source.answers.graded(finished(), {name: group.problem for name, group in by_name.items()}):
        answers[graded.sample.problem_id, graded.sample.index] = graded
    indices = range(source.recipe.answers)
    return [
        replace(group, answers=tuple(answers[n, i] for i in indices), ended=tuple(ended[n, i] for i in indices))
        for n, group in by_name.items()
    ]


def _requests(source: RolloutSource, groups: dict[str, PartialGroup], limits: dict[str, int]) -> Iterator[Request]:
    """The next segments. An answer's place is in its key: no two of its segments draw the same numbers."""
    for name, group in groups.items():
        stream = f"train/{source.arm}/{group.start}" + (f"/{group.round}" if group.round else "")
        unfinished = [graded.sample for graded, end in zip(group.answers, group.ended, strict=False) if not end]
        wanted = [(sample.tokens, (sample.index,)) for sample in unfinished]
        for tokens, indices in wanted if group.answers else [((), tuple(range(len(group.ended))))]:
            at = len(tokens)
            yield Request(
                f"{name}+{at}",
                (*group.problem.prompt_ids, *tokens),
                prompt_key(source.answers.seed, stream + (f"+{at}" if at else ""), group.problem.identity),
                indices,
                replace(source.sampling(group.problem), max_tokens=min(source.recipe.segment, limits[name] - at)),
                images=group.problem.images,
                drawn=at,
            )


def _joined(before: Sample | None, after: Sample) -> Sample:
    if before is None:
        return after
    return replace(
        after,
        tokens=before.tokens + after.tokens,
        logp=before.logp + after.logp,
        logp_model=before.logp_model + after.logp_model,
    )


def _write(folder: Place, step: int, groups: list[PartialGroup]) -> None:
    """What is unfinished after a step, as <step>.npz; it appears whole. Files that no kept state needs go."""
    folder.mkdir(parents=True, exist_ok=True)
    about = [(group.start, group.round, group.problem.id, group.ended) for group in groups]
    arrays = {
        "groups": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "answers": np.frombuffer(to_bytes([graded for group in groups for graded in group.answers]), np.uint8),
    }
    publish(folder / f"{step}.npz", lambda file: np.savez(file, **arrays))
    states = folder.parent / "states"
    kept = [int(path.name) for path in states.iterdir() if path.name.isdigit()] if states.is_dir() else []
    for path in folder.glob("*.npz"):
        if kept and int(path.stem) < min(kept):
            path.unlink()


def _read(folder: Place, step: int, problems: dict[str, Problem]) -> list[PartialGroup]:
    path = folder / f"{step}.npz"
    if not path.is_file():
        raise UserError(f"{path}: found nothing, but the unfinished answers after step {step} are needed to go on")
    with np.load(io.BytesIO(path.read_bytes())) as stored:
        about, answers = json.loads(stored["groups"].tobytes()), from_bytes(stored["answers"].tobytes())
    return [
        PartialGroup(start, number, problems[name], tuple(itertools.islice(answers, len(ended))), tuple(ended))
        for start, number, name, ended in about
    ]
