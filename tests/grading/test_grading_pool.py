"""The pool of graders: order, timeouts, dead workers, memory, what is graded once, and what is left behind."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from rlvr_limit.grading.math import grade as mathematics
from rlvr_limit.grading.pool.pool import AHEAD, GradingPool, map_verdicts
from rlvr_limit.grading.pool.workers import GradingWorkers
from rlvr_limit.types import Status, Verdict
from tests.support.pool_graders import broken, end_the_server, play, problem

NO_LIMIT = 60.0


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
    texts = ["5", "die", "1", "raise", "exit", "5", "eat", "5", "nothing"]
    verdicts = run(texts)
    assert [v.correct for v in verdicts] == [text == "5" for text in texts]
    status = {text: (v.status, v.detail) for text, v in zip(texts, verdicts, strict=True)}
    assert status["5"] == (Status.GRADED, "")
    assert status["die"] == (Status.ERROR, "the worker died with exit code -9, twice")
    assert status["exit"] == (Status.ERROR, "the worker died with exit code 3, twice")
    assert status["raise"] == (Status.ERROR, "ValueError: no such luck")
    assert status["nothing"] == (Status.ERROR, "the grader gave a str")
    assert status["eat"][0] is Status.ERROR and "MemoryError" in status["eat"][1]


def test_a_hanging_verdict_times_out_and_does_not_stop_the_pool():
    verdicts = run(["5", "hang", "5", "hang 2", *["5"] * 20], timeout=1.0)
    assert [v.status for v in verdicts] == [Status.GRADED, Status.TIMEOUT, Status.GRADED, Status.TIMEOUT] + [
        Status.GRADED
    ] * 20
    assert verdicts[1] == Verdict(False, Status.TIMEOUT, detail="no verdict in 1 s of CPU time")


def test_the_limit_counts_cpu_time_and_a_sleeping_worker_is_tried_twice(tmp_path):
    sleeps, hangs = f"report {tmp_path / 'sleeps'}", f"count_and_hang {tmp_path / 'hangs'}"
    slow, late, used_up, again = run([sleeps, "sleep 60", hangs, hangs], workers=1, timeout=0.4)
    assert slow.status is Status.GRADED
    assert (late.status, late.detail) == (Status.TIMEOUT, "no verdict in 2 s on a busy machine, twice")
    assert used_up == again and used_up.status is Status.TIMEOUT
    assert (tmp_path / "hangs").read_text() == "x"


def pids(path, count):
    """The process ids that graders have written to a file, once there are so many."""
    while not path.exists() or path.read_text().count("\n") < count:
        time.sleep(0.02)
    return [int(line) for line in path.read_text().split()]


def gone(pid):
    """Whether a process ends within 30 s."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("who", ["worker", "server"])
def test_a_verdict_whose_worker_or_server_is_killed_from_outside_is_not_lost(tmp_path, who):
    path = tmp_path / "pids"

    def kill():
        worker = pids(path, 1)[0]
        os.kill(worker if who == "worker" else children()[0].pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    verdicts = run(["5", f"report {path}", "1"], workers=1)
    killer.join()
    assert [v.status for v in verdicts] == [Status.GRADED] * 3 and [v.correct for v in verdicts] == [True, False, False]
    first, second = pids(path, 2)
    assert first != second
    assert gone(first) and gone(second)


@pytest.mark.parametrize("who", ["worker", "server"])
def test_verdicts_go_on_when_an_idle_worker_or_the_server_is_killed(tmp_path, who):
    path = tmp_path / "pids"
    with GradingPool(play, 1, NO_LIMIT) as pool:
        pool.submit("a", problem(), f"report {path}")
        assert [tag for tag, _ in pool.finished(wait=True)] == ["a"]
        killed = pids(path, 1)[0] if who == "worker" else children()[0].pid
        os.kill(killed, signal.SIGKILL)
        assert gone(killed)
        pool.submit("b", problem("q"), "5")
        assert list(pool.finished(wait=True)) == [("b", Verdict(True, Status.GRADED, "5"))]


def test_a_scheduler_s_notice_to_all_processes_ends_no_grading(tmp_path):
    path = tmp_path / "pids"
    with GradingPool(play, 1, NO_LIMIT) as pool:
        pool.submit("a", problem(), f"report {path}")
        worker, server = pids(path, 1)[0], children()[0].pid
        for pid in (worker, server):
            os.kill(pid, signal.SIGTERM)
        assert [(tag, verdict.status) for tag, verdict in pool.finished(wait=True)] == [("a", Status.GRADED)]
        assert [child.pid for child in children()] == [server]


def test_a_server_that_ends_again_and_again_is_said():
    with GradingPool(play, 1, NO_LIMIT, shorten=end_the_server) as pool:
        pool.submit(0, problem(), "5")
        with pytest.raises(RuntimeError, match="process that watches the graders ended 4 times"):
            list(pool.finished(wait=True))


def test_an_answer_longer_than_the_socket_holds_comes_through():
    long = "7" * (3 << 20)
    with GradingPool(play, 1, NO_LIMIT) as pool:
        for tag in range(3):
            pool.submit(tag, problem(), long + str(tag))
        assert sorted(pool.finished(wait=True)) == [
            (tag, Verdict(False, Status.GRADED, long + str(tag))) for tag in range(3)
        ]


def test_submitting_and_asking_never_wait():
    with GradingPool(play, 1, NO_LIMIT) as pool:
        for i in range(1000):
            pool.submit(i, problem(), f"hang {i}")
        assert list(pool.finished()) == [] and pool.unfinished == 1000


def test_a_worker_that_cannot_start_is_said():
    with GradingPool(play, 1, NO_LIMIT, memory_bytes=1 << 70) as pool:
        pool.submit(0, problem(), "5")
        with pytest.raises(RuntimeError, match="grading workers ended"):
            list(pool.finished(wait=True))


def test_a_response_that_a_breaking_pool_lost_is_graded_by_the_next_one(monkeypatch):
    """As when a worker ends while the pool takes a response: no future of it ever comes."""
    pools = [SimpleNamespace(schedule=lambda *_, **__: Future(), active=False, stop=int, join=int)]
    start_pool = GradingWorkers._new_pool
    monkeypatch.setattr(GradingWorkers, "_new_pool", lambda workers: pools.pop() if pools else start_pool(workers))
    told = threading.Event()
    with contextlib.closing(GradingWorkers(play, 1, NO_LIMIT, None, 2 << 30, told.set)) as workers:
        workers.submit("tag", problem(), "5")
        assert list(workers.finished()) == []
        assert told.wait(NO_LIMIT) and [tag for tag, _ in workers.finished()] == ["tag"]


def session_of(process):
    """The processes of the session that this one leads, zombies left out."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, session = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == process.pid and state != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_behind_when_the_run_is_ended_from_outside(tmp_path, how):
    path = tmp_path / "pids"
    code = f"""
from rlvr_limit.grading.pool.pool import map_verdicts
from tests.support.pool_graders import play, problem
if __name__ == "__main__":
    items = [(problem(), f"report {path}"), *((problem(), f"hang {{i}}") for i in range(50))]
    list(map_verdicts(play, items, 2, 3.0))
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen(
        [sys.executable, script], cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, start_new_session=True,
        stderr=subprocess.DEVNULL,
        # Whoever started these tests in the background of a shell has them ignore Ctrl-C.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    pids(path, 1)
    assert len(session_of(process)) > 2
    os.killpg(process.pid, how) if how == signal.SIGINT else process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while session_of(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert session_of(process) == []


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
