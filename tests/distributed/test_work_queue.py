"""Rounds: all arms get a small share of their samples first, where that costs little, and no sample is left out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlvr_limit.distributed.work_queue import leased_indices, rounds
from tests.support.store_hosts import on_each, several

COUNTS = st.integers(1, 10**7)


@given(COUNTS, COUNTS, st.integers(1, 4096), st.integers(1, 32_768), st.integers(1, 2048))
def test_rounds_have_every_index_of_a_problem_once_and_in_order(arms, samples, sequences, max_tokens, n):
    drawn = [i for indices in rounds(arms, samples, sequences, max_tokens) for i in indices(n)]
    assert drawn == list(range(n))


def test_the_first_round_is_a_sixteenth_and_four_samples_at_least():
    first, rest = rounds(2, 64_000, 256, 16_384)
    assert [len(first(n)) for n in (1, 4, 5, 64, 128, 1024)] == [1, 4, 4, 4, 8, 64]
    assert [rest(n) for n in (4, 128)] == [range(4, 4), range(8, 128)]


def test_a_study_of_minutes_or_one_whose_share_would_not_fill_the_engine_has_one_round():
    asked = {"arms": 2, "samples": 30 * 1024, "sequences": 256, "max_tokens": 16_384}  # AIME24
    assert len(rounds(**asked)) == 2
    assert len(rounds(**asked | {"arms": 1})) == 1
    assert len(rounds(**asked | {"max_tokens": 200})) == 1  # 2 x 120 x 200 = 48,000 steps
    assert len(rounds(**asked | {"samples": 30 * 128})) == 1  # 15 times as many as are drawn at once
    assert len(rounds(**asked | {"sequences": 4096})) == 1


def test_the_configs_of_countdown_keep_one_round():
    assert len(rounds(arms=6, samples=96 * 128, sequences=512, max_tokens=18)) == 1
    assert len(rounds(arms=6, samples=8 * 32, sequences=64, max_tokens=12)) == 1


def test_hosts_draw_each_index_once_though_one_is_a_round_ahead():
    n = 128
    drawn_in = rounds(2, 64_000, 256, 16_384)

    def draw(host):
        return [i for turn, r in enumerate(drawn_in) for i in leased_indices(host, f"{turn}/p", list(r(n)), n)]

    assert sorted(sum(on_each(several(2), draw), [])) == list(range(n))
