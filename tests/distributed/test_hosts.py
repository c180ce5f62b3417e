"""Hosts that share a run: leases, agreement, waiting, death. A store in memory stands for the coordination service."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from rlvr_limit.distributed.hosts import Hosts
from rlvr_limit.distributed.joining import start
from rlvr_limit.distributed.work_queue import leased_indices
from rlvr_limit.settings import HostsConfig
from rlvr_limit.types import UserError
from tests.support.store_hosts import Store, on_each, several


def test_every_share_is_leased_once_though_all_ask_at_once():
    taken = on_each(several(3), lambda host: list(host.lease_shares("x", 60)))
    assert sorted(sum(taken, [])) == list(range(60))


def test_a_host_that_asks_five_times_as_often_gets_five_times_as_much():
    first, second = several(2)
    fast, slow = first.lease_shares("x", 60), second.lease_shares("x", 60)
    turns = [(list(itertools.islice(fast, 5)), list(itertools.islice(slow, 1))) for _ in range(12)]
    assert sum(len(mine) for mine, _ in turns) == 50 and (first.leases, second.leases) == (50, 10)
    assert sorted(share for turn in turns for mine in turn for share in mine) == list(range(60))


def test_hosts_of_one_replica_are_given_the_same_shares_and_no_other_replica_those():
    hosts = several(6, hosts_per_replica=2)
    assert [(h.replica, h.leads_replica, list(h.replica_hosts)) for h in hosts[2:4]] == [
        (1, True, [2, 3]),
        (1, False, [2, 3]),
    ]
    taken = on_each(hosts, lambda host: list(host.lease_shares("x", 60)))
    assert taken[::2] == taken[1::2]
    assert sorted(sum(taken[::2], [])) == list(range(60))


def test_the_first_host_of_a_replica_alone_looks_and_all_of_them_are_told():
    looked = []

    def find(host):
        looked.append(host.index)
        return [host.index, len(looked)]

    hosts = several(4, hosts_per_replica=2)
    told = on_each(hosts, lambda host: [host.broadcast_in_replica(lambda: find(host)) for _ in range(3)])
    assert sorted(looked) == [0, 0, 0, 2, 2, 2] and told[0] == told[1] and told[2] == told[3]
    assert [index for index, _ in told[0] + told[2]] == [0, 0, 0, 2, 2, 2]


def test_what_is_to_be_done_once_is_done_by_one_replica_while_the_others_wait_for_it():
    done = []

    def act(host):
        time.sleep(0.2)
        done.append(host.index)
        return [host.index, len(done)]

    hosts = several(6, hosts_per_replica=2)
    told = [on_each(hosts, lambda host, name=name: host.do_once(name, lambda: act(host))) for name in ("x", "y")]
    assert len(done) == 2 and all(index % 2 == 0 for index in done)
    assert told == [[[done[0], 1]] * 6, [[done[1], 2]] * 6]
    alone = Hosts()
    assert [alone.do_once("x", lambda: act(alone)) for _ in range(2)] == [[0, 3], [0, 4]]


def test_what_a_host_was_to_do_once_is_done_by_another_where_it_dies():
    first, second, third = several(3)
    with pytest.raises(ValueError):
        first.do_once("x", lambda: int("killed"))
    told = []

    def wait(host):
        told.append(host.do_once("x", lambda: host.index))

    waiting = [threading.Thread(target=wait, args=(host,)) for host in (second, third)]
    for thread in waiting:
        thread.start()
    time.sleep(0.3)
    assert not told
    for host in (second, third):
        host._dead.add(0)
    for thread in waiting:
        thread.join(5)
    assert len(told) == 2 and told[0] == told[1] in (1, 2)


def test_what_breaks_off_between_hosts_of_a_replica_is_a_line_and_another_error_is_not():
    gone = ValueError("UNKNOWN: Gloo all-reduce failed: Connection reset by peer\nmore")
    _, second = several(2, hosts_per_replica=2)
    with pytest.raises(UserError, match=r"^host 1: what hosts 0 and 1 compute together broke off \(UNKNOWN: .*peer\)"):
        with second.in_lockstep():
            raise gone
    for host, error in ((Hosts(), gone), (second, ValueError("shapes differ"))):
        with pytest.raises(ValueError, match=str(error).splitlines()[0]), host.in_lockstep():
            raise error


def test_hosts_that_cannot_be_put_together_evenly_are_refused():
    with pytest.raises(UserError, match="config.hosts.hosts_per_replica: 2 is not a divisor of 1 hosts"):
        start(HostsConfig(hosts_per_replica=2))


def test_a_host_alone_gets_every_share_and_waits_for_nobody():
    host = Hosts()
    host.check_started_alike({"seed": 1})
    host.wait("sample", 3)
    assert list(host.lease_shares("x", 4)) == [0, 1, 2, 3]
    assert not list(host.lease_shares("x", 4)) and list(host.lease_shares("y", 1)) == [0]
    host.close()


@pytest.mark.parametrize("n", [1, 7, 128, 130])
def test_shares_of_a_problem_hold_all_that_is_lacking_though_hosts_have_read_different_records(n):
    early, late = set(range(0, n, 2)), set(range(0, n, 2)) - set(range(n // 2))
    first, second = several(2)
    mine, theirs = on_each(
        [first, second], lambda h: list(leased_indices(h, "p", sorted(late if h.index else early), n))
    )
    assert not set(mine) & set(theirs)
    assert late <= set(mine) | set(theirs) <= early


def test_hosts_that_differ_are_refused_on_every_host_by_a_line_that_names_host_and_difference():
    hosts = several(3)
    said = on_each(
        hosts, lambda h: h.check_started_alike({"seed": 0, "asked": {"base": {"stop": 3 if h.index == 1 else 2}}})
    )
    assert [str(error) for error in said] == [
        "host 1 was started with asked.base.stop = 3, host 0 with 2: every host must be started alike"
    ] * 3


def test_hosts_that_are_alike_agree():
    assert on_each(several(3), lambda h: h.check_started_alike({"seed": 0, "code": "abc"})) == [None] * 3


def test_other_weights_are_refused_by_a_line_that_names_both_hosts():
    first, second, third = several(3)
    second.check_equal("arms.base.weights_sha256", "aa")
    first.check_equal("arms.base.weights_sha256", "aa")
    with pytest.raises(UserError, match=r"host 2: arms.base.weights_sha256 is bb, on host 1 it is aa"):
        third.check_equal("arms.base.weights_sha256", "bb")
    assert first.checked_values("arms.") == {"base.weights_sha256": "aa"}


def test_waiting_ends_when_the_last_living_host_has_come_and_not_before():
    first, second = several(2)
    done = threading.Event()
    waiting = threading.Thread(target=lambda: (first.wait("sample", 1), done.set()))
    waiting.start()
    second.wait("train")
    assert not done.wait(0.3)
    threading.Thread(target=second.wait, args=("score",)).start()
    assert done.wait(5)
    waiting.join()
    first.wait("score")


def test_a_silent_host_is_not_waited_for(capsys):
    store = Store()
    here = Hosts(0, 2, store, patience=0.5)
    began = time.monotonic()
    here.wait("sample")
    assert 0.4 < time.monotonic() - began < 5
    assert "host 1 has not been heard of for 0.5 s" in capsys.readouterr().out


def test_every_host_hears_what_all_say_and_what_was_said_before_is_forgotten():
    hosts = several(3)
    said = on_each(hosts, lambda h: [h.exchange(f"{h.index} {turn}") for turn in range(20)])
    assert said == [[[f"{index} {turn}" for index in range(3)] for turn in range(20)]] * 3
    assert on_each(hosts, lambda h: h.broadcast_from_first(h.index == 0)) == [True] * 3
    assert on_each(hosts, lambda h: h.broadcast_from_first(h.index != 0)) == [False] * 3
    left = hosts[0]._client.key_value_dir_get("said/")
    assert len(left) <= 2 * 3
    assert Hosts().exchange("alone") == ["alone"] and Hosts().broadcast_from_first(True)


def test_an_exchange_waits_for_the_last_host():
    first, second = several(2)
    heard = []
    waiting = threading.Thread(target=lambda: heard.extend(first.exchange("a")))
    waiting.start()
    time.sleep(0.3)
    assert not heard
    second.exchange("b")
    waiting.join()
    assert heard == ["a", "b"]


def test_where_no_host_can_be_spared_a_silent_one_ends_the_process_by_a_line_that_names_it(monkeypatch, capsys):
    codes = []

    def leave(code: int) -> None:
        codes.append(code)
        threading.Event().wait()

    monkeypatch.setattr("rlvr_limit.distributed.hosts.os._exit", leave)
    here = Hosts(0, 2, Store(), patience=0.5)
    with here.all_needed():
        end = time.monotonic() + 5
        while not codes and time.monotonic() < end:
            time.sleep(0.05)
    assert codes == [3]
    said = capsys.readouterr()
    assert said.err.startswith("error: host 1 has not been heard of for 0.5 s, and training needs every host: host 0")
    assert "others take over" not in said.out
    with pytest.raises(UserError, match="host 1 has not been heard of"):
        with here.all_needed():
            pytest.fail("begun without host 1")


@pytest.mark.parametrize(
    ("error", "waits"), [(ValueError("Connection reset by peer"), True), (UserError("rl.limits"), False)]
)
def test_an_error_that_may_be_a_broken_connection_waits_for_the_silent_hosts_name(monkeypatch, error, waits):
    monkeypatch.setattr("rlvr_limit.distributed.hosts.GRACE_SECONDS", 0)
    here = several(1, patience=1.0)[0]
    began = time.monotonic()
    with pytest.raises(type(error)):
        with here.all_needed():
            raise error
    assert (time.monotonic() - began >= 1.0) == waits


def test_what_others_have_done_is_heard():
    first, second = several(2, patience=0.5)
    second.report_progress(samples=3)
    second.report_progress(samples=2, tokens=40)
    end = time.monotonic() + 5
    while first.progress_of_others("samples") != 5 and time.monotonic() < end:
        time.sleep(0.05)
    assert (
        first.progress_of_others("samples"),
        first.progress_of_others("tokens"),
        second.progress_of_others("samples"),
    ) == (5, 40, 0)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (HostsConfig(count=2), "hosts.coordinator, hosts.index not given"),
        (HostsConfig(coordinator="a:1", index=0), "hosts.count not given"),
        (HostsConfig("a:1", 2, 2), r"hosts.index: 2 is not in \[0, 1\]"),
        (HostsConfig("10.0.0.1", 2, 1), "hosts.coordinator: '10.0.0.1' is not an address"),
    ],
)
def test_half_a_configuration_of_hosts_is_refused(config, said):
    with pytest.raises(UserError, match=said):
        start(config)


def test_nobody_at_the_address_is_one_line(monkeypatch):
    monkeypatch.setattr("rlvr_limit.distributed.joining.START_SECONDS", 0)
    with pytest.raises(UserError, match=r"hosts.coordinator: host 1 found nobody at 127.0.0.1:9 within 0 s"):
        start(HostsConfig("127.0.0.1:9", 2, 1))
