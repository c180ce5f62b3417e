"""The progress line: what a stage still takes, and what the whole study does."""

from __future__ import annotations

import functools

import pytest

from rlvr_limit.records import progress
from rlvr_limit.records.progress import Outlook, Progress, duration


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (250, "4 min 10 s"), (3600, "1 h 00 min"), (7500, "2 h 05 min"),
     (100_000, "1 d 3 h")],
)  # fmt: skip
def test_a_duration_is_said_in_its_two_largest_units(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_an_arm_not_seen_yet_is_as_slow_as_the_others_and_scoring_no_faster() -> None:
    outlook = Outlook({"a": 100, "b": 50, "c": 10}, to_score=20)
    # 90 more of a at 2 s, and as long each for what nobody has drawn.
    assert outlook.seconds_left("a", 10, 2.0) == 90 * 2 + 50 * 2 + 10 * 2 + 20 * 2
    outlook.drew("a", 40, 2.0)
    # 60 of a at 2 s are left for its next round, 45 of b at 4 s; c and the scores at their mean.
    assert outlook.seconds_left("b", 5, 4.0) == 60 * 2 + 45 * 4 + 10 * 3 + 20 * 3


def test_asking_for_the_time_left_changes_nothing() -> None:
    outlook = Outlook({"a": 100}, to_score=0)
    assert outlook.seconds_left("a", 50, 1.0) == outlook.seconds_left("a", 50, 1.0) == 50


def test_a_plain_line_tells_the_stages_and_the_studys_time(tmp_path, monkeypatch, capsys) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    outlook = Outlook({"a": 90, "b": 270}, to_score=0)
    left = functools.partial(outlook.seconds_left, "a")
    with Progress(tmp_path, "sample a", 100, "samples", 10, study_left=left) as shown:
        now[0] += 60
        shown.update(40, live=3)
    line = "sample a: 40/100 samples, 1 min 00 s, 2 min 00 s left, study 11 min 00 s left  0.5 samples/s  live 3"
    assert line in capsys.readouterr().out


def test_no_pace_is_told_before_one_fill_is_done_and_compiling_is_no_part_of_it(tmp_path, monkeypatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    with Progress(tmp_path, "sample a", 100, "samples", 10, shown=False, at_once=16) as shown:
        now[0] += 60
        shown.begin_pace()
        now[0] += 8
        shown.begin_pace()
        shown.update(25)
        assert shown.seconds_each is None
        shown.update(26)
        assert shown.seconds_each == 0.5
