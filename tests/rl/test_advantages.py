"""Advantages against their papers' equations, written out one number at a time in float64 or exact fractions."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from rlvr_limit import rl
from rlvr_limit.rl import advantages

EPS = 1e-6
LENGTHS, STARTS, PLACES = (3, 1, 5, 2, 4, 5), (1, 4, 2, 1, 3, 2), 8
ANSWER = np.zeros((6, PLACES), bool)
for _row, (_start, _length) in enumerate(zip(STARTS, LENGTHS, strict=True)):
    ANSWER[_row, _start : _start + _length] = True


def rewards(prompts: int, answers: int, seed: int = 0) -> np.ndarray:
    """Random rewards of which the first rows do not differ: all 0, all 1, and all of a number that is no binary one."""
    found = np.random.default_rng(seed).normal(size=(prompts, answers))
    found[:3] = np.array([[0.0], [1.0], [0.1]])
    return found


def spans() -> list[range]:
    """Places of each answer's tokens."""
    return [range(start, start + length) for start, length in zip(STARTS, LENGTHS, strict=True)]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def deviation(values: list[float]) -> float:
    return math.sqrt(mean([(value - mean(values)) ** 2 for value in values]))


def unbiased(values: list[float]) -> float:
    return deviation(values) * (len(values) / (len(values) - 1)) ** 0.5


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, np.asarray(expected, np.float64), rtol=1e-9, atol=1e-9)


def test_group_advantages_are_their_equations_and_exactly_zero_where_rewards_do_not_differ():
    reward = rewards(20, 7)
    for function, of in (
        (advantages.grpo, lambda r, group: (r - mean(group)) / (unbiased(group) + EPS)),
        (advantages.dr_grpo, lambda r, group: r - mean(group)),
        (advantages.rloo, lambda r, group: r - (sum(group) - r) / (len(group) - 1)),
    ):
        found = function(reward)
        close(found, [[of(r, list(group)) for r in group] for group in reward.tolist()])
        assert np.all(found[:3] == 0) and np.all(found[3:] != 0)
        assert np.all(np.sign(found[3:]) == np.sign((reward - reward.mean(axis=1, keepdims=True))[3:]))


def test_pass_at_k_advantage_is_that_of_all_groups_of_k_drawn_from_the_answers():
    """A group's reward is the best of its k; an answer's advantage is the mean over the groups that it is in."""
    for answers, right in itertools.product((2, 5, 6), range(7)):
        for k in range(1, answers + 1):
            if right > answers:
                continue
            is_right = [i < right for i in range(answers)]
            groups = list(itertools.combinations(range(answers), k))
            earned = [Fraction(any(is_right[i] for i in group)) for group in groups]
            rho = sum(earned) / len(groups)
            s = math.sqrt(rho * (1 - rho))
            expected = []
            for i in range(answers):
                mine = [r - rho for group, r in zip(groups, earned, strict=True) if i in group]
                expected.append(float(sum(mine) / len(mine)) / s if s else 0.0)
            close(advantages.pass_at_k(np.array([is_right], np.float64), k)[0], expected)


def test_pass_at_k_advantage_is_the_formula_of_wrong_answers_and_favours_the_rare_right_one():
    right = np.zeros((1, 8))
    right[0, :2] = 1
    for k in (1, 3, 6):
        rho = 1 - Fraction(math.comb(6, k), math.comb(8, k))
        s = math.sqrt(rho * (1 - rho))
        found = advantages.pass_at_k(right, k)[0]
        assert found[0] == pytest.approx(float(1 - rho) / s) and found[0] > 0
        wrong = 1 - rho - Fraction(math.comb(5, k - 1), math.comb(7, k - 1))
        assert found[7] == pytest.approx(float(wrong) / s) and found[7] < 0
    # Seven right ones of eight: every group of two has one of them, so nothing is to be gained any more.
    assert np.all(advantages.pass_at_k(1 - np.eye(8)[:1], 2) == 0)
    for wrong in (right + 0.5, np.zeros((1, 1))):
        with pytest.raises(AssertionError):
            advantages.pass_at_k(wrong, 2)


def test_rewards_of_tokens_are_the_answers_at_its_last_token_less_the_penalty_at_each():
    rng = np.random.default_rng(1)
    reward, log_ratio, kl = rng.normal(size=6), rng.normal(size=ANSWER.shape), 0.3
    expected, plain = np.zeros(ANSWER.shape), np.zeros(ANSWER.shape)
    for row, span in enumerate(spans()):
        plain[row, span[-1]] = reward[row]
        for t in span:
            expected[row, t] = (reward[row] if t == span[-1] else 0.0) - kl * log_ratio[row, t]
    close(advantages.token_rewards(reward, ANSWER, log_ratio, kl), expected)
    close(advantages.token_rewards(reward, ANSWER, None, 0.0), plain)
    # A token that the policy likes better than the reference does costs.
    dearer = advantages.token_rewards(reward, ANSWER, np.ones(ANSWER.shape), kl)
    assert np.all(dearer[ANSWER] < plain[ANSWER]) and np.all(dearer[~ANSWER] == 0)


def test_reward_to_go_sums_what_is_still_to_come():
    reward = np.where(ANSWER, np.random.default_rng(2).normal(size=ANSWER.shape), 0.0)
    expected = np.zeros(ANSWER.shape)
    for row, span in enumerate(spans()):
        for t in span:
            expected[row, t] = sum(reward[row, u] for u in span if u >= t)
    close(advantages.to_go(reward, ANSWER), expected)


def test_remax_holds_an_answer_against_the_greedy_one():
    to_go, greedy = np.random.default_rng(3).normal(size=ANSWER.shape), np.array([0.0, 1.0, 0.5, 0.5, -1.0, 2.0])
    expected = [[to_go[i, t] - greedy[i] if ANSWER[i, t] else 0.0 for t in range(PLACES)] for i in range(6)]
    close(advantages.remax(to_go, greedy, ANSWER), expected)


def test_whitened_advantages_have_mean_zero_and_deviation_one_over_answer_tokens_only():
    x = np.random.default_rng(4).normal(3, 2, size=ANSWER.shape)
    tokens = x[ANSWER].tolist()
    expected = np.where(ANSWER, (x - mean(tokens)) / (deviation(tokens) + EPS), 0.0)
    close(advantages.whitened(x, ANSWER), expected)
    # Padding must not matter, and what does not differ teaches nothing.
    close(advantages.whitened(np.where(ANSWER, x, 1e9), ANSWER), expected)
    assert np.all(advantages.whitened(np.where(ANSWER, 0.1, 5.0), ANSWER) == 0)
    assert np.all(advantages.whitened(x, np.zeros_like(ANSWER)) == 0)


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.8), (1.0, 0.0), (0.7, 1.0)])
def test_gae_is_the_sum_of_discounted_errors_of_the_value(gamma: float, lam: float):
    rng = np.random.default_rng(5)
    reward, value = rng.normal(size=ANSWER.shape), rng.normal(size=ANSWER.shape)
    expected, targets = np.zeros(ANSWER.shape), np.zeros(ANSWER.shape)
    for row, span in enumerate(spans()):
        after = [value[row, t + 1] if t + 1 in span else 0.0 for t in span]
        errors = [reward[row, t] + gamma * a - value[row, t] for t, a in zip(span, after, strict=True)]
        for place, t in enumerate(span):
            expected[row, t] = sum((gamma * lam) ** (u - place) * errors[u] for u in range(place, len(errors)))
            targets[row, t] = expected[row, t] + value[row, t]
    found, found_targets = advantages.gae(reward, value, ANSWER, gamma, lam)
    close(found, expected)
    close(found_targets, targets)


def test_gae_of_a_perfect_value_is_zero_and_of_no_discount_is_reward_to_go_less_the_value():
    reward = advantages.token_rewards(np.array([1.0, 0, 1, 0, 0, 1]), ANSWER, None, 0.0)
    to_go = advantages.to_go(reward, ANSWER)
    for lam in (0.0, 0.5, 1.0):
        assert np.all(np.abs(advantages.gae(reward, to_go, ANSWER, 1.0, lam)[0]) < 1e-12)
    value = np.random.default_rng(6).normal(size=ANSWER.shape)
    found, targets = advantages.gae(reward, value, ANSWER, 1.0, 1.0)
    close(found, np.where(ANSWER, to_go - value, 0.0))
    close(targets, to_go)


def test_penalty_of_long_answers_falls_from_0_to_minus_1_over_the_cache():
    most, cache = 20, 5
    lengths = np.arange(1, 21)
    expected = []
    for length in lengths.tolist():
        if length <= most - cache:
            expected.append(0.0)
        else:
            expected.append(((most - cache) - length) / cache)
    ended = np.zeros(20, bool)
    close(advantages.overlong_penalty(lengths, ended, most, cache), expected)
    close(advantages.overlong_penalty(lengths, ~ended, most, cache), [-1.0] * 20)
    # Without a cache the last place costs nothing to an answer that ended in it, and all to one that did not.
    close(advantages.overlong_penalty(np.array([20, 20, 3]), np.array([False, True, False]), most, 0), [0, -1, 0])


def outcome(name: str, answers: int = 2, **fields: np.ndarray) -> tuple[rl.Algorithm, rl.Rewards]:
    """The row of that name, and rewards of three groups: one right of two, both right, both wrong."""
    reward = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]).reshape(-1, answers)
    needed = {"greedy_P": np.array([0.0, 1.0, 0.0])} if name == "remax" else {}
    needed |= {"value_BT": np.zeros(ANSWER.shape)} if name == "ppo" else {}
    # A teacher that likes right answers, dislikes wrong ones, and has no word on groups that are all alike.
    liked = np.array([1.0, -1.0, 0, 0, 0, 0])[:, None]
    needed |= {"log_ratio_BT": np.where(ANSWER, -liked, 0.0)} if name == "distill" else {}
    return rl.ALGORITHMS[name], rl.Rewards(reward, ANSWER, **needed | fields)


@pytest.mark.parametrize("name", rl.ALGORITHMS)
def test_right_answers_are_pushed_up_wrong_ones_down_and_only_at_their_own_tokens(name: str):
    row, earned = outcome(name)
    found, targets = rl.advantage(row, earned, pass_k=1)
    assert found.shape == ANSWER.shape and np.all(found[~ANSWER] == 0)
    assert np.all(found[0][ANSWER[0]] > 0) and (name == "remax" or np.all(found[1][ANSWER[1]] < 0))
    if row.compares or name == "remax":
        assert np.all(found[2:] == 0)
    assert (targets is not None) == (name == "ppo")


def test_every_row_takes_the_advantage_that_its_paper_has():
    log_ratio = np.random.default_rng(7).normal(size=ANSWER.shape)
    reward = np.array([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    tokens = advantages.token_rewards(reward.reshape(-1), ANSWER, log_ratio, 0.5)
    to_go = advantages.to_go(tokens, ANSWER)

    def whole(of_PG: np.ndarray) -> np.ndarray:
        return np.where(ANSWER, of_PG.reshape(-1, 1), 0.0)

    expected = {
        "grpo": whole(advantages.grpo(reward)),
        "dapo": whole(advantages.grpo(reward)),
        "dr_grpo": whole(advantages.dr_grpo(reward)),
        "pass_at_k": whole(advantages.pass_at_k(reward, 2)),
        "rloo": whole(advantages.rloo(tokens.sum(axis=1).reshape(3, 2))),
        "reinforcepp": advantages.whitened(to_go, ANSWER),
        "remax": advantages.remax(to_go, np.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0]), ANSWER),
        "gspo": whole(advantages.grpo(reward)),
        "cispo": whole(advantages.grpo(reward)),
        "distill": np.where(ANSWER, -log_ratio, 0.0),
        "ppo": advantages.whitened(advantages.gae(tokens, np.zeros(ANSWER.shape), ANSWER, 1.0, 0.9)[0], ANSWER),
    }
    assert expected.keys() == rl.ALGORITHMS.keys()
    for name, other in expected.items():
        row, earned = outcome(name, **{"log_ratio_BT": log_ratio} if rl.ALGORITHMS[name].kl_in == "reward" else {})
        close(rl.advantage(row, earned, kl=0.5, pass_k=2, lam=0.9)[0], other)


def test_a_teachers_advantages_are_in_expectation_the_way_down_the_reverse_kl_at_every_token():
    """sum_y p(y) A(y) d log p(y) / dz = -d KL(softmax(z) || q) / dz, by enumeration and by finite differences."""
    rng = np.random.default_rng(3)
    z, q = rng.normal(size=5), rng.dirichlet(np.ones(5))

    def kl(z: np.ndarray) -> float:
        p = np.exp(z) / np.exp(z).sum()
        return float(np.sum(p * np.log(p / q)))

    p = np.exp(z) / np.exp(z).sum()
    answer = np.ones((5, 1), bool)
    earned = rl.Rewards(np.zeros((5, 1)), answer, log_ratio_BT=np.log(p / q)[:, None])
    gain, _ = rl.advantage(rl.ALGORITHMS["distill"], earned)
    found = sum(p[y] * gain[y, 0] * (np.eye(5)[y] - p) for y in range(5))
    steps = 1e-6 * np.eye(5)
    np.testing.assert_allclose(found, [-(kl(z + d) - kl(z - d)) / 2e-6 for d in steps], rtol=1e-6, atol=1e-9)


def test_a_penalty_in_the_loss_cannot_be_put_into_the_reward_as_well():
    row, earned = outcome("grpo", log_ratio_BT=np.zeros(ANSWER.shape))
    with pytest.raises(AssertionError):
        rl.advantage(row, earned, kl=0.5)


@pytest.mark.parametrize("wrong", [np.zeros((2, 3), np.float32), np.zeros((2, 3), np.int64), np.zeros(6)])
def test_other_ranks_and_dtypes_are_refused(wrong: np.ndarray):
    for function in (advantages.grpo, advantages.dr_grpo, advantages.rloo):
        with pytest.raises(AssertionError):
            function(wrong)


@pytest.mark.parametrize("name", list(rl.ALGORITHMS))
def test_answers_without_a_verdict_are_as_if_they_had_not_been_drawn(name: str) -> None:
    rng = np.random.default_rng(1)
    judged = np.array([[True, False, True], [False, True, True]])
    reward = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    value, ratio = (np.where(ANSWER, rng.normal(size=ANSWER.shape), 0.0) for _ in range(2))
    row = rl.ALGORITHMS[name]
    more = {"greedy_P": np.array([0.5, 0.25]), "value_BT": value}
    more["log_ratio_BT"] = ratio if row.kl_in == "reward" else None

    def found(reward: np.ndarray, rows: np.ndarray, judged: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        own = {key: x[rows] if key.endswith("BT") and x is not None else x for key, x in more.items()}
        given = rl.Rewards(reward, ANSWER[rows], **own, judged_PG=judged)
        return rl.advantage(row, given, kl=0.1, pass_k=1, lam=0.9)

    kept = np.flatnonzero(judged)
    mine, returns = found(reward, np.arange(6), judged)
    alone, returns_alone = found(reward[judged].reshape(2, 2), kept, None)
    close(mine[kept], alone)
    assert np.all(mine[~judged.reshape(-1)] == 0) and np.any(mine[kept] != 0)
    if returns is not None:
        close(returns[kept], returns_alone)
    # Whatever a missing verdict is written down as changes nothing.
    other, _ = found(np.where(judged, reward, 1.0), np.arange(6), judged)
    np.testing.assert_array_equal(other, mine)


def test_a_group_with_fewer_verdicts_than_are_compared_teaches_nothing() -> None:
    judged, reward = np.array([[True, False, False], [True, True, True]]), np.array([[1.0, 0, 0], [1.0, 0, 0]])
    for name, least in (("grpo", 2), ("dr_grpo", 2), ("rloo", 2), ("pass_at_k", 3)):
        given = rl.Rewards(reward, ANSWER, judged_PG=judged if least == 2 else judged & ~np.eye(3, dtype=bool)[:2])
        found, _ = rl.advantage(rl.ALGORITHMS[name], given, pass_k=3)
        assert np.all(found[:3] == 0) and np.any(found[3:] != 0) == (least == 2)
