"""Long answers over several steps, so that no step waits for its longest one: `segment` tokens at most in each.

A step draws the next segment of every answer that is under way, and the first one of `prompts` fresh prompts' answers;
again, under the same weights, until `prompts` groups are whole. It learns from the oldest of those; the others, whole
or not, are kept for later steps. What this does to the estimator:

* A group is learnt from once all of its answers have ended, with all of them: none is dropped for its length, so means
  and deviations of groups are those of the policy's own answers. (To draw more prompts than needed and to learn from
  the first whole groups would leave out the long answers: a biased estimator, which there is no option for.) Only what
  is under way at a run's end is never learnt from.
* Which step learns from a group hangs on the group's longest answer. Summed over steps every group that was started
  counts the same; the batch of one step does not look like a fresh draw, least of all the first steps'.
* Tokens were drawn under the weights of the step that drew them, their log-probs recorded then. The ratio is to the
  policy before the step's first update, and rho = min(pi_before / pi_drawn, importance_cap) weighs the token for the
  rest (Espeholt et al. 2018, arXiv 1802.01561; Hilton et al. 2021, arXiv 2110.00641): hence importance_cap is needed.
  The cap, and weights a token instead of an answer, bias what they keep from exploding.
* kl_sampler, max_delta_logp and ratio of a step's row then tell how old the answers are, not only how the sampler
  rounds.

The clock is tokens, never time: the same run makes the same choices. A fixed budget of tokens for an answer in an
iteration is the partial rollout of Kimi k1.5 (arXiv 2501.12599, sec. 2.6.2). What a segment is depends on arm, step of
its start, prompt, index and place, as its random key says.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from rlvr_limit.engine.requests import Request, prompt_key
from rlvr_limit.engine.rollout import Graded, graded_beside
from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.files import publish
from rlvr_limit.settings import EngineConfig
from rlvr_limit.training.rollouts import Drawn, Source, earned, group_of, unjudged, watched
from rlvr_limit.types import Problem, Sample, Status, Stop, UserError, Verdict


@dataclass(frozen=True)
class UnderWay:
    """Answers to one prompt, first drawn in step `start` (its round-th draw); those that ended have verdicts, where
    the verdict is the reward, and verdicts of the others are None."""

    start: int
    round: int
    problem: Problem
    answers: tuple[Graded, ...]
    ended: tuple[bool, ...]


def engine_config(config: EngineConfig, row_places: int) -> EngineConfig:
    """The engine's shapes where a prompt may be a prompt with most of its answer, and no two are the same."""
    return replace(config, max_prompt_len=row_places, prefix_rows=max(config.prefix_rows, config.max_num_seqs))


def draw(source: Source, number: int) -> Drawn:
    """The groups that step `number` learns from, `prompts` of them, under the weights the engine holds now.

    Reads what the step before left under way, and writes what this one leaves. UserError where the former is missing.
    """
    study, recipe = source.study, source.recipe
    training = study.setups[source.arm].training
    folder = study.root / "train" / source.arm / "underway"
    groups = _read(folder, number - 1, {problem.id: problem for problem in training}) if number > 1 else []
    rounds = drawn = 0
    while rounds == 0 or sum(all(group.ended) for group in groups) < recipe.prompts:
        rng = random.Random(f"{study.settings.seed}/{source.arm}/{number}" + (f"/{rounds}" if rounds else ""))
        fresh = rng.sample(training, recipe.prompts)
        groups += [UnderWay(number, rounds, problem, (), (False,) * recipe.answers) for problem in fresh]
        drawn += sum(not ended for group in groups for ended in group.ended)
        groups = _continued(source, groups)
        rounds += 1
    whole = [group for group in groups if all(group.ended)][: recipe.prompts]
    taken = {id(group) for group in whole}
    _write(folder, number, [group for group in groups if id(group) not in taken])
    answers = [(group.problem, list(group.answers)) for group in whole]
    found = [group_of(source, *group, earned(source, *group)) for group in answers]
    lengths = [len(g.sample.tokens) for group in whole for g in group.answers]
    row = watched(found) | {
        "rounds": rounds,
        "groups": len(found),
        "segments_drawn": drawn,
        "carried": float(np.mean([length > recipe.segment for length in lengths])),
        "age": float(np.mean([number - group.start for group in whole])),
    }
    judged_PG = np.stack([group.judged_G for group in found])
    if not judged_PG.any():
        raise unjudged(source, number, judged_PG.size)
    return Drawn(tuple(found), np.ones(len(found), bool), judged_PG, None, row)


def _continued(source: Source, groups: list[UnderWay]) -> list[UnderWay]:
    """Every group with one more segment of each answer that had not ended, and verdicts of those that have now."""
    by_name = {f"{group.start}/{group.round}/{group.problem.id}": group for group in groups}
    assert len(by_name) == len(groups)
    found = {(name, i): graded for name, group in by_name.items() for i, graded in enumerate(group.answers)}
    ended = {(name, i): end for name, group in by_name.items() for i, end in enumerate(group.ended)}
    setup, decode = source.study.setups[source.arm], source.study.setups[source.arm].tokenizer.decode
    limits = {n: source.study.sampling_params(setup, group.problem).max_tokens for n, group in by_name.items()}

    def finished() -> Iterator[Graded]:
        for sample in source.engine.generate(_requests(source, by_name, limits)):
            name, _, at = sample.problem_id.rpartition("+")
            key = name, sample.index
            joined = _joined(found[key].sample if int(at) else None, replace(sample, problem_id=name))
            ended[key] = sample.stop != Stop.LENGTH or len(joined.tokens) >= limits[name]
            found[key] = Graded(joined, decode(joined.tokens) if ended[key] else "", None)
            if ended[key]:
                yield found[key]

    drawn = finished()
    if source.reward is None and source.pool:
        drawn = graded_beside(drawn, {name: group.problem for name, group in by_name.items()}, source.pool)
    for graded in drawn:
        name, index = graded.sample.problem_id, graded.sample.index
        if source.reward is None and not source.pool:
            graded = replace(graded, verdict=source.study.task.grade(by_name[name].problem, graded.text))
        found[name, index] = graded
    everyone = range(source.recipe.answers)
    return [
        replace(group, answers=tuple(found[n, i] for i in everyone), ended=tuple(ended[n, i] for i in everyone))
        for n, group in by_name.items()
    ]


def _requests(source: Source, groups: dict[str, UnderWay], limits: dict[str, int]) -> Iterator[Request]:
    """The next segments. An answer's place is in its key: no two of its segments draw the same numbers."""
    study, setup = source.study, source.study.setups[source.arm]
    for name, group in groups.items():
        sampling = replace(study.sampling_params(setup, group.problem), temperature=1.0, top_p=1.0, top_k=0, min_p=0.0)
        stream = f"train/{source.arm}/{group.start}" + (f"/{group.round}" if group.round else "")
        answers = [graded.sample for graded, ended in zip(group.answers, group.ended, strict=False) if not ended]
        wanted = [(sample.tokens, (sample.index,)) for sample in answers]
        for tokens, indices in wanted if group.answers else [((), tuple(range(len(group.ended))))]:
            at = len(tokens)
            yield Request(
                f"{name}+{at}",
                (*group.problem.prompt_ids, *tokens),
                prompt_key(study.settings.seed, stream + (f"+{at}" if at else ""), group.problem.prompt),
                indices,
                replace(sampling, max_tokens=min(source.recipe.segment, limits[name] - at)),
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


def _write(folder: Place, step: int, groups: list[UnderWay]) -> None:
    """What is under way after a step, as underway/<step>.npz; it appears whole. Files that no kept state needs go."""
    folder.mkdir(parents=True, exist_ok=True)
    answers = [graded for group in groups for graded in group.answers]
    samples = [graded.sample for graded in answers]
    verdicts = [graded.verdict and (graded.verdict.correct, graded.verdict.status.value) for graded in answers]
    about = {
        "groups": [(group.start, group.round, group.problem.id, group.ended) for group in groups],
        "stops": [sample.stop.value for sample in samples],
        "texts": [graded.text for graded in answers],
        "verdicts": verdicts,
    }

    def flat(name: str, dtype: type) -> np.ndarray:
        return np.array([x for sample in samples for x in getattr(sample, name)], dtype)

    arrays = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "lengths": np.array([len(sample.tokens) for sample in samples], np.int64),
        "tokens": flat("tokens", np.int32),
        "logp": flat("logp", np.float64),
        "logp_model": flat("logp_model", np.float64),
    }
    publish(folder / f"{step}.npz", lambda file: np.savez(file, **arrays))
    states = folder.parent / "states"
    kept = [int(path.name) for path in states.iterdir() if path.name.isdigit()] if states.is_dir() else []
    for path in folder.glob("*.npz"):
        if kept and int(path.stem) < min(kept):
            path.unlink()


def _read(folder: Place, step: int, problems: dict[str, Problem]) -> list[UnderWay]:
    path = folder / f"{step}.npz"
    if not path.is_file():
        raise UserError(f"{path}: found nothing, but the answers under way after step {step} are needed to go on")
    with np.load(io.BytesIO(path.read_bytes())) as held:
        about = json.loads(held["about"].tobytes())
        ends = np.cumsum(held["lengths"])[:-1]
        tokens, logp, logp_model = (np.split(held[name], ends) for name in ("tokens", "logp", "logp_model"))
    found, at = [], 0
    for start, number, problem, ended in about["groups"]:
        answers = []
        for index in range(len(ended)):
            name = f"{start}/{number}/{problem}"
            lists = (tuple(x[at].tolist()) for x in (tokens, logp, logp_model))
            sample = Sample(name, index, *lists, Stop(about["stops"][at]))
            judged = about["verdicts"][at]
            verdict = Verdict(judged[0], Status(judged[1])) if judged else None
            answers.append(Graded(sample, about["texts"][at], verdict))
            at += 1
        found.append(UnderWay(start, number, problems[problem], tuple(answers), tuple(ended)))
    return found
