"""Demonstrations by another arm: its answers to training problems, those that the grader found right."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from rlvr_limit.engine.engine import Engine
from rlvr_limit.engine.rollout import Graded, graded_beside, rollout
from rlvr_limit.grading.pool.pool import GradingPool
from rlvr_limit.models.decoder import Params
from rlvr_limit.records.progress import Progress
from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.files import publish
from rlvr_limit.settings import Supervised
from rlvr_limit.study.prepared import Pair, Study
from rlvr_limit.training.exchange import drawn_by_all
from rlvr_limit.types import Problem, SamplingParams, UserError


def kept_in(root: Place, arm: str) -> Place:
    """The file of an arm's demonstrations."""
    return root / "train" / arm / "demonstrations.jsonl"


def draw(study: Study, arm: str, recipe: Supervised, teacher: Params, pool: GradingPool | None) -> None:
    """Draws recipe.answers answers of the teacher to each training problem, keeps the different ones that are right.

    Several hosts share the drawing, and host 0 writes the file.

    The teacher is asked in its own way, the student's file holds the student's prompt. Drawn at the evaluation's
    temperature, on a stream of its own. Raises UserError where no answer is right.
    """
    s, task, hosts = study.settings, study.task, study.hosts
    asked = {problem.id: problem for problem in study.setups[arm].lessons}
    if not asked:
        raise UserError(f"config.arms.{arm}.sft: there are no training problems for {recipe.teacher} to answer")
    setup = study.setups[recipe.teacher]
    engine = Engine(teacher, setup.model, study.engine, s.sampling.max_tokens)
    stream, decode = f"teach/{arm}", setup.tokenizer.decode

    def sampling(problem: Problem) -> SamplingParams:
        return study.sampling_params(setup, problem)

    def drawn(work: Iterable[tuple[Problem, Iterable[int]]]) -> Iterator[Graded]:
        found = rollout(engine.generate, work, sampling, s.seed, stream, decode, task.grade if pool is None else None)
        return graded_beside(found, asked, pool) if pool else found

    found: dict[str, dict[str, int]] = {}
    total, done, right = len(asked) * recipe.answers, 0, 0
    with Progress(study.root, f"teach {arm}", total, "answers", shown=hosts.is_first) as progress:
        for graded in drawn_by_all(hosts, stream, list(asked.values()), recipe.answers, drawn):
            done += 1
            if graded.verdict.correct:
                right += 1
                texts = found.setdefault(graded.sample.problem_id, {})
                texts[graded.text] = min(graded.sample.index, texts.get(graded.text, graded.sample.index))
            progress.update(done, right=right)
    if not found:
        raise UserError(f"config.arms.{arm}.sft: not one of {total} answers of {recipe.teacher} is right")
    if not hosts.is_first:
        return
    rows = [
        {"problem_id": name, "index": index, "response": text}
        for name in asked
        for text, index in sorted(found.get(name, {}).items(), key=lambda item: item[1])
    ]
    path = kept_in(study.root, arm)
    path.parent.mkdir(parents=True, exist_ok=True)
    publish(path, lambda file: file.write("".join(json.dumps(row) + "\n" for row in rows).encode()))


def read(study: Study, arm: str) -> tuple[Pair, ...]:
    """What draw has kept, as the student's tokens, an end token behind each answer."""
    setup = study.setups[arm]
    prompts = {problem.id: problem.prompt_ids for problem in setup.training}
    rows = [json.loads(line) for line in kept_in(study.root, arm).read_text().splitlines()]
    end = setup.stop_tokens[0]
    return tuple((prompts[row["problem_id"]], (*setup.tokenizer.encode(row["response"]), end)) for row in rows)
