"""What hosts share of a training step's answers: who is asked for rewards, what is told, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from rlvr_limit.distributed.hosts import Hosts
from rlvr_limit.engine.rollout import Graded
from rlvr_limit.rl.reward_functions import coin
from rlvr_limit.settings import Reinforced, Supervised
from rlvr_limit.training.exchange import drawn_by_all, from_bytes, to_bytes
from rlvr_limit.training.loop import check_rows
from rlvr_limit.training.rollouts import _rewards
from rlvr_limit.types import Problem, Sample, Status, Stop, UserError, Verdict
from tests.support.store_hosts import on_each, several
from tests.support.training_host import drawn

PROBLEMS = [Problem(f"p{i}", "", "", (), None) for i in range(5)]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_answers_are_the_same_after_they_were_sent(count: int) -> None:
    answers = [drawn(PROBLEMS[i % 2], i) for i in range(count)]
    assert list(from_bytes(to_bytes(answers))) == answers
    for graded in from_bytes(to_bytes(answers)):
        assert graded.verdict is None or type(graded.verdict.status) is type(drawn(PROBLEMS[0], 1).verdict.status)


def test_one_host_is_given_answers_as_they_are_drawn() -> None:
    asked = []

    def draw(work):
        for problem, indices in work:
            for index in indices:
                asked.append((problem.id, index))
                yield drawn(problem, index)

    stream = drawn_by_all(Hosts(), "x", PROBLEMS, 2, draw)
    assert next(stream) == drawn(PROBLEMS[0], 0) and len(asked) == 1
    assert len(list(stream)) == 2 * len(PROBLEMS) - 1


def test_a_reward_that_never_says_the_same_twice_is_the_same_on_all_hosts() -> None:
    rng, asked = np.random.default_rng(0), []

    def reward(problem, texts):
        asked.append(problem.id)
        return rng.random(len(texts))

    groups = [(problem, [drawn(problem, i) for i in range(3)]) for problem in PROBLEMS]

    def earned(host: Hosts) -> list[list[float]]:
        source = SimpleNamespace(answers=SimpleNamespace(hosts=host), reward=reward, where="rl")
        return _rewards(source, groups)

    first, second = on_each(several(2), earned)
    assert first == second and sorted(asked) == [problem.id for problem in PROBLEMS]
    assert len({value for values in first for value in values}) == 3 * len(PROBLEMS)


@pytest.mark.parametrize(
    ("name", "earned"),
    [("verdict", [1, 0, 0, 0]), ("inverted", [0, 1, 1, 0]), ("format", [1, 1, 0, 0]), ("likelihood", [-2, -2, -2, 0])],
)
def test_null_rewards_are_what_their_names_say_and_nothing_is_earned_without_a_verdict(name: str, earned: list) -> None:
    verdicts = [Verdict(True, Status.GRADED), Verdict(False, Status.GRADED), Verdict(False, Status.NO_ANSWER)]
    group = [
        Graded(Sample("p", i, (7, 8), (-9.0, -9.0), (-1.0, -3.0), Stop.EOS), "", verdict)
        for i, verdict in enumerate([*verdicts, Verdict(False, Status.TIMEOUT)])
    ]
    source = SimpleNamespace(
        answers=SimpleNamespace(hosts=Hosts(), seed=0), reward=None, recipe=reinforced(reward=name), arm="rl"
    )
    assert _rewards(source, [(PROBLEMS[0], group)]) == [earned]


def test_coin_tosses_are_fair_depend_on_the_answer_alone_and_differ_between_streams() -> None:
    samples = [Sample("p", i, (i, 7), (0.0, 0.0), (0.0, 0.0), Stop.EOS) for i in range(4000)]
    tossed, other = ([coin(stream, PROBLEMS[0], sample) for sample in samples] for stream in ("0/a", "0/b"))
    assert tossed == [coin("0/a", PROBLEMS[0], sample) for sample in samples]
    # Four standard deviations of a fair coin.
    assert all(abs(np.mean(values) - 0.5) < 4 * 0.5 / 4000**0.5 for values in (tossed, np.equal(tossed, other)))


def reinforced(**changes) -> Reinforced:
    given = {"start": "base", "steps": 1, "save_at": (1,), "prompts": 4, "answers": 4, "minibatches": 2, "clip": 0.2}
    return Reinforced(**given | {"optimizer": None} | changes)


def test_segments_are_refused_on_several_hosts_and_on_them_only() -> None:
    with pytest.raises(UserError, match=r"config.arms.long.rl.segment: 64 is not 0, as 2 hosts need"):
        check_rows("long", reinforced(segment=64), hosts=2, devices=2, packed=False)
    check_rows("long", reinforced(segment=64), hosts=1, devices=2, packed=False)
    check_rows("long", reinforced(), hosts=2, devices=2, packed=False)


@pytest.mark.parametrize("recipe", [reinforced(prompts=3), Supervised(steps=1, batch=6, optimizer=None)])
def test_rows_that_devices_cannot_share_are_refused_and_packed_ones_are_not(recipe: Reinforced | Supervised) -> None:
    with pytest.raises(UserError, match=r"4 devices share rows along data and fsdp, but an update of arm a has 6 rows"):
        check_rows("a", recipe, hosts=2, devices=4, packed=False)
    check_rows("a", recipe, hosts=2, devices=4, packed=True)
    check_rows("a", recipe, hosts=2, devices=2, packed=False)
