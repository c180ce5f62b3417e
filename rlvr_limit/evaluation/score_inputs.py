"""Whose texts are scored, as the tokens of the model that scores them: an arm's, the exact solver's, a file's."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, NamedTuple

from rlvr_limit import records
from rlvr_limit.study.arms import EvaluatedArm
from rlvr_limit.study.prepared import Setup, Study
from rlvr_limit.tasks import references
from rlvr_limit.types import Stop

SOLVER = "solver"
"""The name under which right answers of the exact solver are scored: the ground truth Y_GT of the paper's Fig. 6."""

REFERENCES = "references"
"""The name under which the texts of the file score.references are scored: an external Y_GT."""


class ScoreInput(NamedTuple):
    """A text as tokens of the model that scores it, and the prompt before it."""

    problem_id: str
    index: int
    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    images: tuple[Any, ...] = ()  # of the prompt


def given_texts(study: Study) -> tuple[str, ...]:
    """Whose texts there are beside those of the arms."""
    solver = (SOLVER,) if study.task.demonstrate else ()
    return solver + ((REFERENCES,) if study.settings.score.references else ())


def texts_for(study: Study, whose: str, model: EvaluatedArm, n: int) -> list[ScoreInput]:
    """The first n texts to each problem, fewer where there are fewer, in a fixed order.

    Where text and model have one vocabulary, tokens and prompt are those that the text was drawn with. Else it is
    encoded again, and stands behind the model's own prompt. A text that was drawn ends in the model's end token where
    it ended in one; a given text ends in none.
    """
    asked = study.setups[model.arm]
    most = {problem.id: min(n, study.first(problem)) for problem in study.problems}
    if whose == SOLVER:
        return _solutions(study, asked, most)
    own = {problem.id: problem for problem in asked.problems}
    if whose == REFERENCES:
        texts = references.load(study.settings.score.references, asked.problems)
        return [
            ScoreInput(name, i, own[name].prompt_ids, asked.tokenizer.encode(text), own[name].images)
            for name, mine in texts.items()
            for i, text in enumerate(mine[:n])
        ]
    drawn = study.setups[study.named(whose).arm]
    is_same = drawn.vocabulary == asked.vocabulary
    prompts = {problem.id: problem for problem in drawn.problems} if is_same else own
    stored = records.read(study.root, "samples", ["problem_id", "index", "tokens", "stop"], {"arm": whose})
    return [
        ScoreInput(
            row["problem_id"],
            row["index"],
            prompts[row["problem_id"]].prompt_ids,
            tuple(row["tokens"]) if is_same else encoded_again(row["tokens"], row["stop"] == Stop.EOS, drawn, asked),
            prompts[row["problem_id"]].images,
        )
        for row in stored.to_pylist()
        # A folder may hold more samples than this config asks for.
        if row["index"] < most[row["problem_id"]]
    ]


def encoded_again(tokens: list[int], ended: bool, drawn: Setup, asked: Setup) -> tuple[int, ...]:
    """An answer in another vocabulary; where it ended in an end token, in the other model's first one."""
    body = tokens[:-1] if ended else tokens
    end = asked.stop_tokens[:1] if ended else ()
    return (*asked.tokenizer.encode(drawn.tokenizer.decode(body)), *end)


def _solutions(study: Study, asked: Setup, most: Mapping[str, int]) -> list[ScoreInput]:
    inputs = []
    for problem in asked.problems:
        rng = random.Random(f"{study.settings.seed}/solver/{problem.id}")
        right = study.task.demonstrate([problem], 1.0, rng)
        mine = ((problem.prompt_ids, next(right)[1], problem.images) for _ in range(most[problem.id]))
        inputs += [ScoreInput(problem.id, i, *answer) for i, answer in enumerate(mine)]
    return inputs
