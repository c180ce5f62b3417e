"""Demonstrations by another arm: its answers to training problems, those that the grader found right."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from rlvr_limit.models.log_probs import Pair
from rlvr_limit.records.progress import Progress
from rlvr_limit.records.storage import Place
from rlvr_limit.records.storage.files import publish
from rlvr_limit.settings import Supervised
from rlvr_limit.study.prepared import Setup
from rlvr_limit.training.exchange import AnswerSource
from rlvr_limit.types import Problem, SamplingParams, UserError


def demonstrations_file(root: Place, arm: str) -> Place:
    """The file of an arm's demonstrations."""
    return root / "train" / arm / "demonstrations.jsonl"


def draw(
    path: Place,
    arm: str,
    recipe: Supervised,
    source: AnswerSource,
    problems: Sequence[Problem],
    sampling: Callable[[Problem], SamplingParams],
    progress: Progress,
) -> None:
    """Keeps the different right ones of recipe.answers answers to each problem; the teacher is asked in its own way.

    Host 0 writes the file. The random stream is the arm's own. Raises UserError where no answer is right.
    """
    if not problems:
        raise UserError(f"config.arms.{arm}.sft: there are no training problems for {recipe.teacher} to answer")
    done = right = 0
    first: dict[str, dict[str, int]] = {problem.id: {} for problem in problems}  # problem -> text -> first index
    for graded in source.answers(problems, recipe.answers, sampling, f"teach/{arm}"):
        done += 1
        if graded.verdict.correct:
            right += 1
            texts = first[graded.sample.problem_id]
            texts[graded.text] = min(graded.sample.index, texts.get(graded.text, graded.sample.index))
        progress.update(done, right=right)
    if not right:
        raise UserError(f"config.arms.{arm}.sft: none of {done} answers of {recipe.teacher} is right")
    if source.hosts.is_first:
        rows = [
            {"problem_id": name, "index": index, "response": text}
            for name, texts in first.items()
            for text, index in sorted(texts.items(), key=lambda item: item[1])
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(path, lambda file: file.write("".join(json.dumps(row) + "\n" for row in rows).encode()))


def read(path: Place, setup: Setup) -> tuple[Pair, ...]:
    """What draw has kept, as tokens of the student that is set up so: its prompts, an end token behind each answer."""
    prompts = {problem.id: problem for problem in setup.training}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    end = setup.stop_tokens[0]
    asked = (prompts[row["problem_id"]] for row in rows)
    answers = ((*setup.tokenizer.encode(row["response"]), end) for row in rows)
    return tuple((p.prompt_ids, answer, p.images) for p, answer in zip(asked, answers, strict=True))
