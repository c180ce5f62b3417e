"""Countdown's verifier against all right answers written out, its chances against exact fractions over all plays."""

import hashlib
import itertools
import random
import re
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import chisquare

from rlvr_limit.grading.countdown import CountdownAnswer, grade, uses_given
from rlvr_limit.settings import CountdownConfig
from rlvr_limit.tasks.countdown import Game, demonstrations, problems, tokenizer
from rlvr_limit.types import Problem, Status, UserError, Verdict

SMALL = CountdownConfig(
    3, high=6, targets=(6, 8, 12), guess_max=0.1, train_guess_max=0.3, eval_problems=5, train_problems=20, one_in=3
)
CASES = [((3, 4, 2), 10), ((5, 5, 1), 24), ((1, 2, 3, 4), 24), ((6, 6, 2, 1), 12), ((7, 1, 1, 8), 0)]


def problem_of(numbers, target):
    return Problem("p", "", "", (), CountdownAnswer(numbers, target))


def all_chains(numbers):
    """Every chain of right steps that uses up the numbers, as (text, last result); operands in either order."""
    if len(numbers) == 1:
        yield "", numbers[0]
    for i, j in itertools.permutations(range(len(numbers)), 2):
        a, b = numbers[i], numbers[j]
        rest = [x for place, x in enumerate(numbers) if place not in (i, j)]
        for op, c in (("+", a + b), ("*", a * b), ("-", a - b)):
            if c >= 0:
                for tail, last in all_chains([*rest, c]):
                    yield f"{a} {op} {b} = {c}" + (f" , {tail}" if tail else ""), last


def is_step(part):
    word = part.split()
    return len(word) == 5 and word[1] in "+-*" and word[3] == "=" and all(word[i].isdigit() for i in (0, 2, 4))


def corrupted(text, rng):
    """The text with one word changed, dropped, doubled or swapped with another."""
    words = text.split()
    i, j = rng.randrange(len(words)), rng.randrange(len(words))
    change = rng.randrange(4)
    if change == 0:
        words[i] = rng.choice(["+", "-", "*", "=", ",", *map(str, range(30))])
    elif change == 1:
        del words[i]
    elif change == 2:
        words.insert(j, words[i])
    else:
        words[i], words[j] = words[j], words[i]
    return " ".join(words)


@pytest.mark.parametrize(("numbers", "target"), CASES)
def test_verifier_agrees_with_the_list_of_all_right_answers_on_corrupted_chains(numbers, target):
    rng = random.Random(0)
    chains = sorted(all_chains(numbers))
    right = sorted({text for text, last in chains if last == target})
    seen = Counter()
    for _ in range(3000):
        text = rng.choice(right) if rng.random() < 0.5 else rng.choice(chains)[0]
        for _ in range(rng.choice([0, 1, 1, 1, 2])):
            text = corrupted(text, rng) if text else text
        verdict = grade(problem_of(numbers, target), text)
        answered = any(is_step(part) for part in text.split(","))
        assert verdict.correct == (text in right), text
        assert verdict.status == (Status.GRADED if answered else Status.NO_ANSWER), text
        assert (verdict.detail == "") == verdict.correct
        seen[verdict.correct, verdict.status] += 1
    assert seen[True, Status.GRADED] > 100 and seen[False, Status.GRADED] > 1000 and seen[False, Status.NO_ANSWER] > 5


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("3 + 4 = 7 , 7 * 2 = 15", "7 [*] 2 is not 15"),
        ("3 + 4 = 7 , 7 + 3 = 10", "step 2 uses a number that is not there"),
        ("3 + 3 = 6 , 6 + 4 = 10", "step 1 uses"),
        ("3 + 4 = 7", "1 number[(]s[)] left unused"),
        ("3 * 2 = 6 , 6 - 4 = 2", "the result 2 is not the target 14"),
        ("7 * , 3 + 4 = 7", "step 1 is not of the form"),
        ("3 + 4 = 7 7 * 2 = 14", "no step"),
        ("3 + 4 = 7 , 7 * 2 = 14 ,", "step 3 is not of the form"),
        ("3 - 4 = -1 , 7 * 2 = 14", "step 1 is not of the form"),
    ],
)
def test_what_is_wrong_with_an_answer_is_named(text, detail):
    verdict = grade(problem_of((3, 4, 2), 14), text)
    assert not verdict.correct
    assert re.search(detail, verdict.detail), verdict.detail


def test_what_is_given_may_be_used_with_wrong_arithmetic_and_for_another_target():
    given = ("3 + 4 = 7 , 7 * 2 = 14", "3 * 2 = 6 , 6 - 4 = 2", "3 + 4 = 8 , 2 + 8 = 11")
    others = ("", "3 + 4 = 7", "3 + 3 = 6 , 6 + 4 = 10", "5 + 4 = 9 , 9 * 2 = 18", "3 + 4 = 7 , 3 * 2 = 6")
    for text in (*given, *others):
        assert uses_given(problem_of((3, 4, 2), 14), text) == (text in given), text


@pytest.mark.parametrize("text", ["", "   ", ",", ", ,", "14", "3 + 4", "3 + 4 = ", "<pad> 3 + 4 = 7", "３ + ４ = 7"])
def test_without_a_single_step_there_is_no_answer(text):
    verdict = grade(problem_of((3, 4, 2), 14), text)
    assert (verdict.correct, verdict.status, verdict.extracted) == (False, Status.NO_ANSWER, "")


def test_a_number_of_thousands_of_digits_is_part_of_no_step():
    verdict = grade(problem_of((3, 4, 2), 14), f"3 + 4 = 7 , 7 * 2 = {'9' * 5000}")
    assert (verdict.status, verdict.extracted) == (Status.GRADED, "3 + 4 = 7, ?")


def test_spelling_does_not_change_the_verdict_nor_the_extracted_chain():
    expected = Verdict(True, Status.GRADED, "3 + 4 = 7, 7 * 2 = 14", "")
    for text in ("3 + 4 = 7 , 7 * 2 = 14", "3+4=7,7*2=14", "  3 +4= 7,\n7 * 2 =14 "):
        assert grade(problem_of((3, 4, 2), 14), text) == expected


def test_a_truncated_right_answer_is_never_right():
    for numbers, target in CASES:
        for text, last in all_chains(numbers):
            words = text.split()
            if last == target:
                for end in range(len(words)):
                    verdict = grade(problem_of(numbers, target), " ".join(words[:end]))
                    assert not verdict.correct
                    assert verdict.status == (Status.GRADED if end >= 5 else Status.NO_ANSWER)


def test_a_verdict_depends_on_problem_and_text_alone():
    texts = [text for text, _ in itertools.islice(all_chains((1, 2, 3, 4)), 0, None, 97)] + ["", "1 + 2 = 4"]
    asked = [(problem_of((1, 2, 3, 4), target), text) for target in (24, 10) for text in texts]
    first = [grade(*pair) for pair in asked]
    order = random.Random(1).sample(range(len(asked)), len(asked))
    assert [first[i] for i in order] == [grade(*asked[i]) for i in order]
    assert {verdict.correct for verdict in first} == {True, False}


def all_plays(numbers, max_value):
    """(chance, steps, last number) of every way the random legal policy can play, as fractions; a dead end is None."""
    moves = []
    for i, j in itertools.combinations(range(len(numbers)), 2):
        low, high = sorted((numbers[i], numbers[j]))
        rest = [x for place, x in enumerate(numbers) if place not in (i, j)]
        for op, c in (("+", low + high), ("-", high - low), ("*", low * high)):
            if 1 <= c <= max_value:
                moves.append((f"{high} {op} {low} = {c}", [*rest, c]))
    if not moves:
        yield Fraction(1), (), numbers[0] if len(numbers) == 1 else None
    for step, after in moves:
        for chance, steps, last in all_plays(after, max_value):
            yield chance / len(moves), (step, *steps), last


@pytest.mark.parametrize("count", [3, 4])
def test_guess_rates_equal_exact_fractions_over_all_plays(count):
    rng = random.Random(count)
    hands = [tuple(sorted(rng.choices(range(1, 13), k=count))) for _ in range(8)] + [(5,) * count, (30, 40, 50, 60)]
    for max_value, hand in itertools.product((20, 99), hands):
        exact = Counter()
        for chance, _, last in all_plays(hand, max_value):
            exact[last] += chance
        assert sum(exact.values()) == 1
        dead_end = exact.pop(None, 0)
        outcomes = Game(CountdownConfig(max_value=max_value)).outcomes(hand)
        assert outcomes == pytest.approx({last: float(chance) for last, chance in exact.items()}, rel=1e-12)
        assert sum(outcomes.values()) == pytest.approx(float(1 - dead_end), abs=1e-12)


@pytest.mark.parametrize(("hand", "target"), [((1, 2, 3), 6), ((1, 1, 2, 6), 12), ((1, 2, 2, 3), None)])
def test_plays_follow_the_policy_and_given_a_target_the_policy_given_that_it_gets_there(hand, target):
    rng, game, exact = random.Random(7), Game(CountdownConfig(max_value=30)), Counter()
    for chance, steps, last in all_plays(hand, 30):
        if target in (None, last):
            exact[steps] += chance
    total, draws = sum(exact.values()), 6000
    drawn = Counter(tuple(move.text() for move in game.play(hand, target, rng)) for _ in range(draws))
    assert set(drawn) <= set(exact)
    expected = np.array([float(exact[steps] / total) * draws for steps in exact])
    observed = np.array([drawn[steps] for steps in exact])
    assert len(set(expected.round(6))) > 1 and expected.min() > 1
    assert chisquare(observed, expected).pvalue > 1e-3


def eligible(config):
    """{problem id: (held out by its hash, exact guess rate)} over every hand and target, guess rate in (0, limit]."""
    found = {}
    for hand in itertools.combinations_with_replacement(range(config.low, config.high + 1), config.numbers):
        for target in config.targets:
            chance = sum(chance for chance, _, last in all_plays(hand, config.max_value) if last == target)
            name = f"{'-'.join(map(str, hand))}={target}"
            held = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % config.one_in == 0
            if 0 < chance <= (config.guess_max if held else config.train_guess_max):
                found[name] = held, float(chance)
    return found


def test_the_problems_are_all_eligible_ones_split_by_their_hash_with_their_guess_rates():
    found = eligible(SMALL)
    held = sum(is_held for is_held, _ in found.values())
    assert 5 < held < len(found) / 2
    config = replace(SMALL, eval_problems=held, train_problems=len(found) - held)
    for seed in (0, 1):
        sides = problems(Game(config), seed)
        assert sum(map(len, sides)) == len(found)
        tight = replace(config, guess_max=max(p.guess_rate for p in sides[0]))
        assert problems(Game(tight), seed) == sides
        listed = {p.id: (side == 0, p.guess_rate) for side in (0, 1) for p in sides[side]}
        assert listed == {name: (is_held, pytest.approx(rate, rel=1e-12)) for name, (is_held, rate) in found.items()}


def test_seeds_choose_among_the_problems_but_move_none_across_the_split():
    chosen = [problems(Game(SMALL), seed) for seed in range(6)]
    ids = [[{p.id for p in side} for side in pair] for pair in chosen]
    assert not set.union(*(pair[0] for pair in ids)) & set.union(*(pair[1] for pair in ids))
    assert all((len(held), len(trained)) == (5, 20) for held, trained in ids)
    assert len({frozenset(held) for held, _ in ids}) > 1 and len({frozenset(trained) for _, trained in ids}) > 1
    assert problems(Game(SMALL), 3) == chosen[3]


def test_a_problem_says_in_its_prompt_what_its_verifier_holds():
    for problem in itertools.chain(*problems(Game(SMALL), 0)):
        *numbers, arrow, target, colon = problem.prompt.split()
        assert (arrow, colon) == ("->", ":")
        assert problem.answer == CountdownAnswer(tuple(map(int, numbers)), int(target))
        assert tokenizer(SMALL).decode(problem.prompt_ids) == problem.prompt


@pytest.mark.parametrize(("side", "field"), [(0, "task.eval_problems"), (1, "task.train_problems")])
def test_one_problem_more_than_there_are_is_refused_by_the_fields_name(side, field):
    held = Counter(is_held for is_held, _ in eligible(SMALL).values())
    counts = held[True] + (side == 0), held[False] + (side == 1)
    config = replace(SMALL, eval_problems=counts[0], train_problems=counts[1])
    with pytest.raises(UserError, match=f"{field} is {counts[side]}, but only {counts[side] - 1} "):
        problems(Game(config), 0)


@pytest.mark.parametrize("right", [0.0, 0.4, 1.0])
def test_demonstrations_hold_the_share_of_right_answers_asked_for(right):
    game, words, draws = Game(SMALL), tokenizer(SMALL), 2000
    training = problems(game, 0)[1]
    by_prompt = {p.prompt_ids: p for p in training}
    drawn = list(itertools.islice(demonstrations(game, training, right, random.Random(3)), draws))
    assert drawn == list(itertools.islice(demonstrations(game, training, right, random.Random(3)), draws))
    assert {prompt for prompt, *_ in drawn} == set(by_prompt)
    assert all(answer[-1] == words.eos_id and words.eos_id not in answer[:-1] for _, answer, _ in drawn)
    verdicts = [grade(by_prompt[prompt], words.decode(answer)) for prompt, answer, _ in drawn]
    share = right + (1 - right) * np.mean([p.guess_rate for p in training])
    assert np.mean([v.correct for v in verdicts]) == pytest.approx(share, abs=4 * (share * (1 - share) / draws) ** 0.5)
