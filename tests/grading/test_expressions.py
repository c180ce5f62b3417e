"""Countdown in words: what is right, what is wrong and what is no answer."""

import itertools
import json
from pathlib import Path

import pytest

from configs.lib import countdown_words
from rlvr_limit.grading.expressions import grade
from rlvr_limit.tasks.countdown import Game
from rlvr_limit.types import Problem, Status

PROBLEM = Problem("p", "", "", (), "3 5 8 -> 64")


@pytest.mark.parametrize("text", ["(3+5)*8=64", " 8 * (5 + 3)", "3*8+5*8=64", "64", "(3+5)*8*1", "(3+5)*3", "3+5+8=64"])
def test_an_answer_is_right_if_it_uses_each_number_once_and_has_the_value(text: str) -> None:
    verdict = grade(PROBLEM, text)
    assert (verdict.status, verdict.correct) == (Status.GRADED, text in ("(3+5)*8=64", " 8 * (5 + 3)"))
    assert bool(verdict.detail) != verdict.correct


@pytest.mark.parametrize(
    "text", ["", "= 64", "(3+5", "3**5", "-3+5*8", "3/5", "[3]", "x", "3 5", "(" * 59, "9" * 70, "\u0663+5"]
)
def test_what_is_no_expression_is_no_answer(text: str) -> None:
    assert grade(PROBLEM, text).status is Status.NO_ANSWER


def test_the_files_are_what_their_maker_makes_and_every_problem_can_be_solved() -> None:
    for name, made in zip(("test", "train"), countdown_words.rows(), strict=True):
        path = Path(countdown_words.FOLDER) / f"countdown_words_{name}.jsonl"
        assert [json.loads(line) for line in path.read_text().splitlines()] == made
    game = Game(countdown_words.TASK)
    for row in countdown_words.rows()[0]:
        given, _, target = row["answer"].partition("->")
        numbers = tuple(map(int, given.split()))
        assert row["guess_rate"] == game.outcomes(numbers)[int(target)]
        written = (
            text
            for a, b, c in itertools.permutations(numbers)
            for p, q in itertools.product("+-*", repeat=2)
            for text in (f"({a}{p}{b}){q}{c}", f"{a}{p}({b}{q}{c})")
        )
        assert any(grade(Problem("p", "", "", (), row["answer"]), text).correct for text in written)
