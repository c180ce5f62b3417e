"""The pool of graders: order, timeouts, dead workers, memory, what is graded once, and what is left behind."""

import multiprocessing
import os
import signal
import sys
import time

import pytest

from rlvr_limit.grading import math as mathematics
from rlvr_limit.grading.pool import AHEAD, map_verdicts
from rlvr_limit.types import Problem, Status, Verdict

NO_LIMIT = 60.0


def problem(name="p", answer="5"):
    return Problem(name, "", "", (), answer)


def play(given, text):
    """A grader that does what the response says."""
    match text.partition(" ")[0]:
        case "hang":
            while True:
                pass
        case "sleep":
            time.sleep(float(text.split()[1]))
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "raise":
            raise ValueError("no such luck")
        case "eat":
            return Verdict(bytearray(8 << 30) is None, Status.GRADED)
        case "modules":
            return Verdict("jax" in sys.modules, Status.GRADED, detail=multiprocessing.get_start_method())
        case "count":
            with open(text.split()[1], "a") as file:
                file.write("x")
    return Verdict(text == given.answer, Status.GRADED, text)


def run(texts, workers=2, timeout=NO_LIMIT, grade=play, **more):
    return list(map_verdicts(grade, [(problem(), text) for text in texts], workers, timeout, **more))


def children():
    return [child for child in multiprocessing.active_children() if child.is_alive()]


def test_verdicts_come_in_order_and_none_is_lost():
    texts = [f"{i % 7}" if i % 5 else f"sleep 0.0{i % 4}" for i in range(300)]
    verdicts = run(texts)
    assert [v.extracted for v in verdicts] == texts
    assert [v.correct for v in verdicts] == [text == "5" for text in texts]


def test_what_goes_wrong_is_named_and_the_others_go_on():
    texts = ["5", "die", "1", "raise", "exit", "5", "eat", "5"]
    verdicts = run(texts)
    assert [v.correct for v in verdicts] == [text == "5" for text in texts]
    status = {text: (v.status, v.detail) for text, v in zip(texts, verdicts, strict=True)}
    assert status["5"] == (Status.GRADED, "")
    assert status["die"] == (Status.ERROR, "the worker died with exit code -9")
    assert status["exit"] == (Status.ERROR, "the worker died with exit code 3")
    assert status["raise"] == (Status.ERROR, "ValueError: no such luck")
    assert status["eat"][0] is Status.ERROR and "MemoryError" in status["eat"][1]


def test_a_hanging_verdict_times_out_and_does_not_stop_the_pool():
    started = time.monotonic()
    verdicts = run(["5", "hang", "5", "hang 2", *["5"] * 20], timeout=1.0)
    assert [v.status for v in verdicts] == [Status.GRADED, Status.TIMEOUT, Status.GRADED, Status.TIMEOUT] + [
        Status.GRADED
    ] * 20
    assert verdicts[1] == Verdict(False, Status.TIMEOUT, detail="no verdict in 1 s")
    assert time.monotonic() - started < 20


def test_a_power_tower_neither_hangs_nor_counts_as_wrong():
    tower = r"e^{e^{e^{e^{e^{e^{10}}}}}}"
    items = [(problem(answer="2"), rf"\boxed{{{text}}}") for text in (tower, "2", r"\sqrt{4}", r"9^{9^{9^{9}}}", "3")]
    verdicts = list(map_verdicts(mathematics.grade, items, 1, 2.0, mathematics.shorten))
    assert verdicts[0].status in (Status.TIMEOUT, Status.ERROR) and verdicts[3].status is Status.ERROR
    assert [v.correct for v in verdicts] == [False, True, True, False, False]
    assert [v.status for v in verdicts[1:3]] == [Status.GRADED] * 2


def test_workers_hold_no_jax_though_the_parent_does():
    import jax  # noqa: F401

    assert run(["modules"], workers=1)[0].correct is False


def test_equal_responses_of_a_problem_are_graded_once(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    items = [(problem("p"), f"count {one}")] * 50 + [(problem("q"), f"count {one}"), (problem("p"), f"count {two}")]
    assert len(list(map_verdicts(play, items, 2, NO_LIMIT))) == 52
    assert one.read_text() == "xx" and two.read_text() == "x"


def test_an_error_is_not_remembered(tmp_path):
    verdicts = run(["die", *["5"] * (2 * AHEAD), "die", "5"], workers=1)
    assert [v.status for v in verdicts].count(Status.ERROR) == 2


def test_shortened_responses_are_judged_alike_and_cost_no_worker():
    texts = [r"\boxed{5}", r"\boxed{7}", "nothing", r"\boxed{\sqrt{25}}", "much text " * 99 + r"\boxed{\frac{15}{3}}"]
    items = [(problem(), text) for text in texts]
    short = list(map_verdicts(mathematics.grade, items, 1, NO_LIMIT, mathematics.shorten))
    assert short == list(map_verdicts(mathematics.grade, items, 1, NO_LIMIT))
    assert [v.correct for v in short] == [True, False, False, True, True]
    assert short[2].status is Status.NO_ANSWER


def test_a_bad_response_met_while_shortening_is_an_error():
    def broken(given, text):
        raise KeyError("lost")

    assert run(["5"], shorten=broken) == [Verdict(False, Status.ERROR, detail="KeyError: 'lost'")]


def test_items_are_taken_no_further_ahead_than_promised():
    taken = []

    def items():
        for i in range(500):
            taken.append(i)
            yield problem(), "5"

    verdicts = map_verdicts(play, items(), 1, NO_LIMIT)
    for done in range(100):
        next(verdicts)
        assert len(taken) <= done + 1 + AHEAD
    verdicts.close()


def test_no_process_is_left_behind_when_the_stream_is_closed():
    verdicts = map_verdicts(play, ((problem(), text) for text in ["5", *["hang"] * (4 * AHEAD)]), 2, NO_LIMIT)
    assert next(verdicts).correct
    assert children()
    verdicts.close()
    assert not children()


def test_no_process_is_left_behind_when_the_sampler_fails():
    def items():
        yield problem(), "5"
        yield problem(), "hang"
        time.sleep(0.5)
        raise RuntimeError("the sampler failed")

    with pytest.raises(RuntimeError, match="the sampler failed"):
        list(map_verdicts(play, items(), 2, NO_LIMIT))
    assert not children()
