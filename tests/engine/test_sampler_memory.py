"""The promise about memory holds for other windows and pages, and what the scheduler says is what the engine holds."""

from __future__ import annotations

import pytest

from tests.benchmarks.sampler_memory import Workload, drawn, excess, lengths, line, schedule

SMALL = Workload(prompts=3, samples=20, long=21, cap=200, mean=40, slots=8, window=4, page=16, cache=272, buckets=())


@pytest.mark.parametrize("shape", [(4, 16), (8, 8), (32, 128)], ids=str)
def test_beyond_the_live_tokens_a_slot_holds_two_windows_and_a_page_at_most(shape: tuple[int, int]):
    w = Workload(window=shape[0], page=shape[1])
    found = line(w, also_engine=False)
    assert found["mean_tokens"] == pytest.approx(300, abs=1) and lengths(w).max() == w.cap
    assert found["pages_over_live"] < 1.35
    assert found["preempted"] == 0 < found["smallest_pool"]["preempted"]


def test_the_engine_holds_at_each_window_what_the_scheduler_alone_says():
    found = list(schedule(SMALL))
    assert drawn(SMALL) == found
    assert max(held.pages for held in found) <= SMALL.cache // SMALL.page - 1
    assert max(excess(SMALL, held) for held in found) <= SMALL.slots * (2 * SMALL.window + SMALL.page)
    assert found[-1].preempted > 0
