"""Problems of reasoning-gym: drawn with a seed, known by their ids, judged by the package's own verifiers."""

import importlib.metadata
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from rlvr_limit.grading import reasoning_gym
from rlvr_limit.study.checks import check
from rlvr_limit.tasks import benchmarks
from rlvr_limit.types import Problem, Status, UserError
from tests.support.studies import settings_of


class _Sums(list):
    """i plus the seed; half right for a sum that is one off. Every fourth problem is the first in the same words."""

    def __init__(self, seed, size):
        asked = ((i if i % 4 else 0, seed) for i in range(size))
        super().__init__({"question": f"{a}+{b}?", "answer": str(a + b) if a != 1 else None} for a, b in asked)

    def score_answer(self, answer, entry):
        a, b = map(int, entry["question"].strip("?").split("+"))
        return {0: 1.0, 1: 0.5}.get(abs(int(answer) - a - b), 0.0)


@pytest.fixture
def package(monkeypatch):
    def create_dataset(name, seed, size):
        if name != "sums":
            raise ValueError(f"Dataset '{name}' not registered")
        return _Sums(seed, size)

    monkeypatch.setitem(sys.modules, "reasoning_gym", SimpleNamespace(create_dataset=create_dataset))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: f"{name} 1")
    reasoning_gym.entries.cache_clear()
    yield
    reasoning_gym.entries.cache_clear()


def test_problems_are_drawn_with_a_seed_and_named_by_it(package):
    questions, notes = benchmarks.load("reasoning_gym_sums", None, 5)
    assert len(questions) == 97 and questions[1].id == "reasoning_gym_sums/5-1"
    assert [q.question for q in questions[:3]] == ["0+5?", "1+5?", "2+5?"]
    assert [q.answer for q in questions[:3]] == ["5", "any that is right", "7"]
    assert notes == ("reasoning_gym_sums: 97 problems drawn by reasoning-gym reasoning-gym 1.",)
    assert benchmarks.load("reasoning_gym_sums", None, 6)[0][0].question == "0+6?"


@pytest.mark.parametrize(
    ("text", "correct", "status", "detail"),
    [
        ("It is <answer>3</answer>, no: <answer> 7\n</answer>.", True, Status.GRADED, ""),
        (r"So it is \boxed{7}.", True, Status.GRADED, ""),
        ("<answer>8</answer>", False, Status.GRADED, "score 0.5"),
        ("<answer>70</answer>", False, Status.GRADED, ""),
        ("Seven.", False, Status.NO_ANSWER, "no <answer>"),
    ],
)
def test_only_the_full_score_of_the_package_is_right(package, text, correct, status, detail):
    verdict = reasoning_gym.grade(Problem("reasoning_gym_sums/5-2", "2+5?", "", (), "7"), text)
    assert (verdict.correct, verdict.status) == (correct, status) and verdict.detail.startswith(detail)
    assert bool(verdict.detail) == bool(detail)


def test_what_cannot_be_drawn_is_said_in_a_line(package, monkeypatch):
    with pytest.raises(UserError, match="^benchmark 'reasoning_gym_no': reasoning-gym says: Dataset 'no' not reg"):
        benchmarks.load("reasoning_gym_no")
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(UserError, match=r"needs the reasoning-gym package: pip install 'rlvr_limit\[reasoning-gym\]'"):
        benchmarks.load("reasoning_gym_sums", None, 1)


def test_another_grader_is_refused_beside_it():
    s = settings_of("real/reasoning_gym")
    check(s)
    with pytest.raises(
        UserError, match="config.grading.grader: 'math' is not 'rlvr_limit.grading.reasoning_gym:grade'"
    ):
        check(replace(s, grading=replace(s.grading, grader="math")))


def test_the_package_itself_judges_its_own_answers_right_and_draws_them_again():
    pytest.importorskip("reasoning_gym")
    for name in ("chain_sum", "spell_backward"):
        reasoning_gym.entries.cache_clear()
        q = benchmarks.load(f"reasoning_gym_{name}", None, 3)[0][7]
        reasoning_gym.entries.cache_clear()
        asked = Problem(q.id, q.question, "", (), q.answer)
        assert reasoning_gym.grade(asked, f"<answer>{q.answer}</answer>").correct
        assert not reasoning_gym.grade(asked, "<answer>no</answer>").correct
