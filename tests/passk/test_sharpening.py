"""Sharpening, answer entropy, halves and transitions, against what can be counted out."""

import itertools

import numpy as np
import pytest

from rlvr_limit.passk import Votes, answer_entropy, halves, transitions
from rlvr_limit.passk.entropy import sharpened

ANSWERS = {"a": 0.5, "b": 0.3, "c": 0.2}
RIGHT = {"a": False, "b": True, "c": False}


@pytest.mark.parametrize("temperature", [1.0, 1.5])
@pytest.mark.parametrize("alpha", [0.5, 2.0, 4.0])
def test_a_sharpened_rate_is_that_of_the_powers_of_whole_answers(alpha: float, temperature: float) -> None:
    heat = {y: p ** (1 / temperature) for y, p in ANSWERS.items()}
    drawn = {y: x / sum(heat.values()) for y, x in heat.items()}
    rng = np.random.default_rng(0)
    y_S = rng.choice(list(ANSWERS), 400_000, p=list(drawn.values()))
    model_S, drawn_S = (np.log([table[y] for y in y_S]) for table in (ANSWERS, drawn))
    right_S = np.array([RIGHT[y] for y in y_S])
    # One problem in many, the same in all: the mean over them has an error of about 0.001.
    found = sharpened(np.arange(len(y_S)) % 40, right_S, model_S, drawn_S, alpha)
    exact = ANSWERS["b"] ** alpha / sum(p**alpha for p in ANSWERS.values())
    assert found.rate_M.mean() == pytest.approx(exact, abs=0.004)
    weight = {y: ANSWERS[y] ** alpha / drawn[y] for y in ANSWERS}
    first, second = (sum(drawn[y] * weight[y] ** k for y in ANSWERS) for k in (1, 2))
    assert found.effective_M.mean() == pytest.approx(10_000 * first**2 / second, rel=0.01)


def test_sharpening_by_one_leaves_the_rates_and_every_sample_whole() -> None:
    problem_S, right_S = np.array([0, 0, 1, 1]), np.array([True, False, True, True])
    found = sharpened(problem_S, right_S, np.full(4, -500.0), np.full(4, -500.0), 1.0)
    assert (found.rate_M.tolist(), found.effective_M.tolist()) == ([0.5, 1.0], [2.0, 2.0])
    # Log-probabilities of long answers, whose powers are no floats.
    found = sharpened(problem_S, right_S, np.array([-2e5, -1e5, -3e5, -4e5]), np.full(4, -1e5), 4.0)
    assert found.rate_M.tolist() == [0.0, 1.0]


def test_the_entropy_of_answers_comes_close_to_the_true_one_with_few_samples() -> None:
    rng, share_C = np.random.default_rng(0), np.array([0.4, 0.3, 0.2, 0.1])
    drawn = rng.multinomial(40, share_C, size=2000)
    votes = [Votes(int(right), tuple(int(x) for x in (b, c) if x), int(silent)) for right, b, c, silent in drawn]
    exact = -(share_C * np.log(share_C)).sum()
    assert answer_entropy(votes).mean() == pytest.approx(exact, abs=0.006)
    assert answer_entropy([Votes(5, (), 0)]).tolist() == [0.0]


def test_halves_share_out_the_samples_of_a_problem_as_a_shuffle_does() -> None:
    (n_M, first_M), (_, second_M) = halves(np.full(20_000, 8), np.full(20_000, 4))
    assert set(n_M) == {4} and np.all(first_M + second_M == 4)
    share = np.bincount(first_M, minlength=5) / 20_000
    ways = [sum(chosen) for chosen in itertools.combinations([1] * 4 + [0] * 4, 4)]
    assert share == pytest.approx(np.bincount(ways, minlength=5) / len(ways), abs=0.012)
    (odd_M, _), (rest_M, some_M) = halves([9, 9], [9, 0])
    assert odd_M.tolist() == rest_M.tolist() == [4, 4] and some_M.tolist() == [4, 0]


def test_transitions_count_problems_by_both_bins_with_their_edges_closed_above() -> None:
    n_M = np.full(9, 40)
    table = transitions((n_M, [0, 1, 2, 3, 8, 9, 20, 21, 40]), (n_M, np.zeros(9, int)))
    assert table[:, 0].tolist() == [1, 2, 2, 2, 2] and table[:, 1:].sum() == 0
    assert transitions(([40], [20]), ([40], [21]))[3, 4] == 1
