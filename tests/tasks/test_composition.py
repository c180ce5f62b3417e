"""Composed functions: problems, demonstrations and verdicts against functions applied by hand."""

import itertools
import random

import pytest

from rlvr_limit.grading.composition import grade
from rlvr_limit.settings import CompositionConfig
from rlvr_limit.tasks.composition import demonstrations, functions, problems, tokenizer
from rlvr_limit.types import Status, UserError

SMALL = CompositionConfig(
    depths=(1, 2, 3), functions=3, length=2, symbols=3, shared=1, eval_problems=2, train_problems=6, one_in=3
)
BY_NAME = {function.name: function for function in functions(SMALL, 0)}
STRINGS = list(itertools.product(range(3), repeat=2))


def applied(name, string):
    """A function by its definition, symbol by symbol."""
    f = BY_NAME[name]
    return tuple(f.table[string[f.places[i]]] for i in range(len(string)))


def asked(problem):
    """(names of the functions in the order in which they are applied, string) as the prompt has them."""
    *names, first, second, colon = problem.prompt.split()
    assert colon == ":" and problem.id.startswith(f"depth{len(names)}/")
    return names[::-1], (int(first), int(second))


def by_hand(problem, steps):
    """(the last string is right, every step follows from the string before it), for steps [(name, string)]."""
    names, string = asked(problem)
    wanted, before, follows = string, string, [name for name, _ in steps] == names
    for name in names:
        wanted = applied(name, wanted)
    for name, written in steps:
        follows &= written == applied(name, before)
        before = written
    return steps[-1][1] == wanted, follows


def text(steps):
    return " , ".join(f"{name} {a} {b}" for name, (a, b) in steps)


def test_verdicts_agree_with_every_answer_of_up_to_two_steps_and_many_of_three():
    rng, seen = random.Random(0), set()
    every = list(itertools.product("abc", STRINGS))
    for problem in problems(SMALL, 0)[0]:
        three = [tuple(rng.choices(every, k=3)) for _ in range(60)]
        right = asked(problem)[0]
        three += [tuple(zip(right, strings, strict=True)) for strings in itertools.product(STRINGS, repeat=len(right))]
        for steps in itertools.chain(zip(every), itertools.product(every, repeat=2), three):
            verdict = grade(problem, text(steps))
            said = verdict.correct, verdict.detail == ""
            assert said == by_hand(problem, steps) and verdict.status == Status.GRADED, (problem.prompt, steps)
            seen.add(said)
    # Right for wrong reasons is there, and a right chain with a wrong end is not.
    assert seen == {(True, True), (True, False), (False, False)}


@pytest.mark.parametrize("said", ["", ",", "a 1 2 , ", "a", "1 2", "a 1 2 b", "a 1 2 , b 2 : 1"])
def test_what_does_not_end_in_a_step_is_no_answer(said):
    assert grade(problems(SMALL, 0)[0][0], said).status == Status.NO_ANSWER


def test_problems_are_apart_of_all_depths_and_follow_from_the_seed():
    held_out, training = problems(SMALL, 0)
    assert not {p.id for p in held_out} & {p.id for p in training}
    for found, count in ((held_out, 2), (training, 6)):
        assert [len(asked(p)[0]) for p in found] == [depth for depth in (1, 2, 3) for _ in range(count)]
        assert all(len(set(asked(p)[0])) == len(asked(p)[0]) for p in found)
        assert len({p.id for p in found}) == len(found)
    assert problems(SMALL, 0) == (held_out, training) != problems(SMALL, 1)


def test_the_guess_rate_is_the_share_of_strings_that_are_right():
    for problem in problems(SMALL, 0)[0]:
        right = [grade(problem, f"a {a} {b}").correct for a, b in STRINGS]
        assert problem.guess_rate == pytest.approx(sum(right) / len(right))


def test_a_demonstration_is_right_or_has_one_step_that_does_not_follow():
    training, words = problems(SMALL, 0)[1], tokenizer(SMALL)
    by_prompt, right, lucky = {p.prompt_ids: p for p in training}, 0, 0
    shown = itertools.islice(demonstrations(SMALL, 0, training, 0.6, random.Random(1)), 1000)
    for prompt_ids, answer_ids, _ in shown:
        problem = by_prompt[prompt_ids]
        names, before = asked(problem)
        wrong = 0
        for name, step in zip(names, words.decode(answer_ids[:-1]).split(" , "), strict=True):
            written = tuple(map(int, step.split()[1:]))
            assert step[0] == name
            wrong += written != applied(name, before)
            before = written
        assert wrong <= 1 and answer_ids[-1] == words.eos_id
        verdict = grade(problem, words.decode(answer_ids[:-1]))
        assert (verdict.detail == "") == (not wrong)
        right, lucky = right + (not wrong), lucky + (verdict.correct and wrong)
    assert 540 < right < 660 and lucky > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"depths": (4,)}, "task.depths: 4 is not at most 3"),
        ({"depths": (1,), "train_problems": 90}, "task.train_problems: 90 is not"),
    ],
)
def test_what_cannot_be_made_is_refused(changes, said):
    with pytest.raises(UserError, match=said):
        problems(CompositionConfig(**{**vars(SMALL), **changes}), 0)


def test_functions_share_images_only_where_they_are_to():
    for shared in (0, 2):
        config = CompositionConfig(shared=shared)
        for function in functions(config, 3):
            assert sorted(function.places) == list(range(4))
            assert (len(set(function.table)) == 10) == (shared == 0)
