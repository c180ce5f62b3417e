"""This host among those of a run: its leases, what hosts tell one another, and which of them live."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import jax

from rlvr_limit.types import UserError, first_line

START_SECONDS = 60
"""How long a host waits for the others at the start; hosts of one launch come up together."""

GRACE_SECONDS = 5.0
"""Beyond patience: how long a collective's error waits for the host to be named that fell silent."""

GOODBYE_SECONDS = 1.0
"""Seconds that host 0 stays when all others have said goodbye, so that they leave before the service does."""

MAX_DIFFERENCES = 3
"""Differences between hosts that an error names."""

STAGES = ("prepare", "train", "sample", "grade", "second stage", "second grade", "score", "second opinion", "end")
"""Where hosts wait for one another, in this order."""


class Hosts:
    """This host among those of a run; alone where there is no client. watchdog is what joining.start began.

    Each replica of the sampler lies on hosts_per_replica hosts. The first of them leases and writes; the others must do
    everything that runs on the replica's devices in the same order, with the same values.
    """

    def __init__(
        self,
        index: int = 0,
        count: int = 1,
        client: Any = None,
        patience: float = 30.0,
        hosts_per_replica: int = 1,
        watchdog: subprocess.Popen | None = None,
    ):
        self.index, self.count, self.hosts_per_replica = index, count, hosts_per_replica
        self.is_first = index == 0  # does what only one may do: opens the run folder, reports, shows progress
        self.replica, self.replicas = index // hosts_per_replica, count // hosts_per_replica
        self.replica_hosts = range(self.replica * hosts_per_replica, (self.replica + 1) * hosts_per_replica)
        self.leads_replica = index == self.replica_hosts[0]
        self.leases = 0  # shares that this host was given
        self._client, self._patience, self._watchdog = client, patience, watchdog
        self._needs_all = False
        self._turns: Counter[str] = Counter()
        self._progress: dict[str, float] = {}
        self._first_progress = self._last_progress = 0.0
        self._heard: dict[int, tuple[str, float]] = {}
        self._progress_of: dict[int, dict[str, float]] = {}
        self._dead: set[int] = set()
        if client:
            began = time.monotonic()
            self._heard = {i: ("", began) for i in range(count)}
            threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()
            # Before JAX takes the service down, which the heartbeat would take for the death of host 0.
            atexit.register(self._drop_client)

    def broadcast_in_replica(self, compute: Callable[[], Any]) -> Any:
        """What the first host of this replica computes, on all of them: anything that JSON holds.

        The others do not compute it. All must ask in one order.
        """
        if self.hosts_per_replica == 1:
            return compute()
        return self._broadcast(f"replica/{self.replica}", self.leads_replica, compute)

    def broadcast_from_first(self, value: Any) -> Any:
        """What host 0 says, on every host; waits for host 0 alone. All hosts must ask in one order."""
        return self._broadcast("first", self.is_first, lambda: value) if self._client else value

    def _broadcast(self, topic: str, is_sender: bool, compute: Callable[[], Any]) -> Any:
        self._turns[topic] += 1
        key = f"{topic}/{self._turns[topic]}"
        if not is_sender:
            return json.loads(self._wait_for(key))
        value = compute()
        self._client.key_value_set(key, json.dumps(value))
        return value

    def exchange(self, value: str) -> list[str]:
        """What every host says, by index; waits until all have. All hosts must come to their exchanges in one order."""
        if not self._client:
            return [value]
        self._turns["said"] += 1
        turn = self._turns["said"]
        self._client.key_value_set(f"said/{turn}/{self.index}", value)
        said = [self._wait_for(f"said/{turn}/{index}") for index in range(self.count)]
        # Who has spoken now has heard everything that was said before.
        if turn > 1:
            self._client.key_value_delete(f"said/{turn - 1}/{self.index}")
        return said

    def _wait_for(self, key: str) -> str:
        while True:
            try:
                return self._client.blocking_key_value_get(key, 1000 * START_SECONDS)
            except jax.errors.JaxRuntimeError as error:
                # The heartbeat ends this process if the other host is gone; until then it is only slow.
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def lease_shares(self, name: str, count: int) -> Iterator[int]:
        """Numbers below count that no other replica is given under this name, each leased when it is asked for."""
        while (number := self.broadcast_in_replica(lambda: self._lease(name))) < count:
            self.leases += 1
            yield number

    def _lease(self, name: str) -> int:
        if self._client:
            with self._exit_if_first_is_gone():
                return self._client.key_value_increment(f"lease/{name}", 1) - 1
        self._turns[f"lease/{name}"] += 1
        return self._turns[f"lease/{name}"] - 1

    @contextlib.contextmanager
    def _exit_if_first_is_gone(self) -> Iterator[None]:
        """Ends this process where host 0 is gone, as JAX is about to; no goodbye is said, so the watchdog tells why."""
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if not str(error).startswith("UNAVAILABLE"):
                raise
            self._exit_for(error)

    def _exit_for(self, error: Exception) -> None:
        logging.error("host %d: %s", self.index, first_line(error))
        os._exit(3)

    def do_once(self, name: str, act: Callable[[], Any]) -> Any:
        """What act gives, anything that JSON holds, done by the first replica that comes here; the others wait for it.

        Where that one dies meanwhile, the next one does it: act must bear to be begun again.
        """
        return self.broadcast_in_replica(lambda: self._do_once(name, act) if self._client else act())

    def _do_once(self, name: str, act: Callable[[], Any]) -> Any:
        for turn in itertools.count():
            with self._exit_if_first_is_gone():
                doer = self._first_to_claim(f"doing/{name}/{turn}")
            if doer == self.index:
                value = act()
                self._client.key_value_set(f"did/{name}/{turn}", json.dumps(value))
                return value
            while True:
                # Asked before the look at who is dead: what was done before a death is done.
                is_dead = doer in self._dead
                with self._exit_if_first_is_gone():
                    done = self._client.key_value_dir_get(f"did/{name}/")
                if done:
                    return json.loads(done[0][1])
                if is_dead:
                    break
                time.sleep(0.1)

    def _first_to_claim(self, key: str) -> int:
        """The host that was the first to claim this, which may be this one now."""
        try:
            self._client.key_value_set(key, str(self.index))
        except jax.errors.JaxRuntimeError:
            return int(self._client.key_value_try_get(key))
        return self.index

    def check_started_alike(self, facts: dict[str, Any]) -> None:
        """Waits for every host's facts. UserError on all hosts, naming one that differs from host 0."""
        if not self._client:
            return
        leaves = jax.tree.leaves_with_path(facts, is_leaf=lambda x: not isinstance(x, dict))
        by_name = {jax.tree_util.keystr(path, simple=True, separator="."): value for path, value in leaves}
        self._client.key_value_set(f"fact/{self.index}", json.dumps(by_name))
        said = []
        for index in range(self.count):
            try:
                said.append(json.loads(self._client.blocking_key_value_get(f"fact/{index}", 1000 * START_SECONDS)))
            except jax.errors.JaxRuntimeError as error:
                raise UserError(f"host {index} has not come within {START_SECONDS} s: {first_line(error)}") from error
        first = said[0]
        for index, theirs in enumerate(said):
            names = [name for name in {**first, **theirs} if first.get(name) != theirs.get(name)]
            if names:
                time.sleep(GOODBYE_SECONDS)
                shown = "; ".join(
                    f"{name} = {json.dumps(theirs.get(name))}, host 0 with {json.dumps(first.get(name))}"
                    for name in names[:MAX_DIFFERENCES]
                )
                more = f"; and {len(names) - MAX_DIFFERENCES} more" if len(names) > MAX_DIFFERENCES else ""
                raise UserError(f"host {index} was started with {shown}{more}: every host must be started alike")

    def check_equal(self, name: str, value: str) -> None:
        """Compares a value with that of the first host that gave one, without waiting. UserError where they differ."""
        if not self._client:
            return
        try:
            self._client.key_value_set(f"once/{name}", json.dumps([self.index, value]))
        except jax.errors.JaxRuntimeError:
            index, theirs = json.loads(self._client.key_value_try_get(f"once/{name}"))
            if theirs != value:
                raise UserError(
                    f"host {self.index}: {name} is {value}, on host {index} it is {theirs}: it must be the same on all"
                ) from None

    def checked_values(self, prefix: str) -> dict[str, str]:
        """The values that check_equal was given under names with this prefix, by the rest of the name."""
        if not self._client:
            return {}
        # The service gives whole directories: a key's beginning, such as "once/arms.", is none.
        said = {key.partition("/")[2]: json.loads(value)[1] for key, value in self._client.key_value_dir_get("once/")}
        return {name.removeprefix(prefix): value for name, value in said.items() if name.startswith(prefix)}

    @contextlib.contextmanager
    def in_lockstep(self) -> Iterator[None]:
        """Where hosts of one replica compute together. UserError where that breaks off: one of them is gone."""
        try:
            yield
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            # XLA's errors begin with a status; some of them, such as Gloo's, come as a ValueError.
            if self.hosts_per_replica == 1 or not re.match(r"[A-Z_]+: ", str(error)):
                raise
            names = " and ".join(map(str, self.replica_hosts))
            raise UserError(
                f"host {self.index}: what hosts {names} compute together broke off ({first_line(error)}); other "
                "replicas go on, and the same command on every host draws what is lacking"
            ) from error

    @contextlib.contextmanager
    def all_needed(self) -> Iterator[None]:
        """While no host can be spared: this process ends with a line that names the first one that falls silent.

        Raises UserError where one is dead already. An error that may be a broken collective's waits for that line.
        """
        if not self._client:
            yield
            return
        self._needs_all = True
        for index in self._dead:
            raise UserError(self._needed_but_silent(index))
        try:
            yield
        except (jax.errors.JaxRuntimeError, ValueError, UserError) as error:
            broken = error.__cause__ if isinstance(error, UserError) else error
            if isinstance(broken, (jax.errors.JaxRuntimeError, ValueError)):
                # Connections to a host that died break before the heartbeat's patience is at its end.
                time.sleep(self._patience + GRACE_SECONDS)
            raise
        finally:
            self._needs_all = False

    def wait(self, stage: str, turn: int = 0) -> None:
        """Until every living host has come to this turn of a stage of STAGES, or is past it."""
        if not self._client:
            return
        place = [STAGES.index(stage), turn]
        self._arrive(*place)
        while True:
            with self._exit_if_first_is_gone():
                places = self._places()
            if {i for i, theirs in places.items() if theirs >= place} | self._dead >= set(range(self.count)):
                return
            time.sleep(0.1)

    def _arrive(self, stage: int, turn: int) -> None:
        self._client.key_value_set(f"at/{self.index}", json.dumps([stage, turn]), allow_overwrite=True)

    def _places(self) -> dict[int, list[int]]:
        """[stage, turn] of every host that has come to one."""
        said = self._client.key_value_dir_get("at/") if self._client else []
        return {_host_of(key): json.loads(value) for key, value in said}

    def report_progress(self, **done: float) -> None:
        """Adds to what this host has done, for the others to see; nothing is sent before the next heartbeat."""
        self._last_progress = time.time()
        self._first_progress = self._first_progress or self._last_progress
        # A dictionary of its own each time: the heartbeat's thread may be reading the last one.
        self._progress = self._progress | {name: self._progress.get(name, 0) + value for name, value in done.items()}

    def progress_of_others(self, name: str) -> float:
        """The sum of what the other hosts have done, dead ones included."""
        return sum(done.get(name, 0) for index, done in list(self._progress_of.items()) if index != self.index)

    def summary(self) -> str:
        """What this host has done, from when to when (seconds of the Unix clock), and the shares it was given."""
        done = ", ".join(f"{value:,.0f} {name}" for name, value in self._progress.items()) or "nothing"
        span = f"from {self._first_progress:.1f} to {self._last_progress:.1f}"
        return f"host {self.index}: {done} in {self.leases} shares, {span}"

    def close(self) -> None:
        """The end of a run: host 0, which keeps what all share, leaves last."""
        if not self._client:
            return
        if self.is_first:
            self.wait("end")
            time.sleep(GOODBYE_SECONDS)
        else:
            self._arrive(len(STAGES), 0)
        self._client = None
        jax.distributed.shutdown()

    def _drop_client(self) -> None:
        self._client = None

    def _beat(self) -> None:
        number = 0
        while client := self._client:
            number += 1
            try:
                beat = json.dumps([number, self._progress])
                client.key_value_set(f"beat/{self.index}", beat, allow_overwrite=True)
                self._listen(client.key_value_dir_get("beat/"))
            except jax.errors.JaxRuntimeError as error:
                if self._client:
                    self._exit_for(error)
            time.sleep(min(1.0, self._patience / 5))

    def _listen(self, beats: list[tuple[str, str]]) -> None:
        now = time.monotonic()
        for key, value in beats:
            index = _host_of(key)
            if value != self._heard[index][0]:
                self._heard[index] = value, now
                self._progress_of[index] = json.loads(value)[1]
        for index, (_, since) in self._heard.items():
            if now - since > self._patience and index not in self._dead:
                self._dead.add(index)
                if self._needs_all:
                    self._leave(self._needed_but_silent(index))
                if self._places().get(index, [0])[0] >= len(STAGES):
                    continue
                if index in self.replica_hosts:
                    self._leave(
                        f"{self._silent(index)}, and host {self.index} holds one replica with it: both end, the other "
                        "replicas go on"
                    )
                print(f"{self._silent(index)}: others take over what it had leased", flush=True)

    def _silent(self, index: int) -> str:
        return f"host {index} has not been heard of for {self._patience:g} s"

    def _needed_but_silent(self, index: int) -> str:
        return (
            f"{self._silent(index)}, and training needs every host: host {self.index} ends too; the same command on "
            "every host goes on from the last kept state"
        )

    def _leave(self, why: str) -> None:
        """Ends this process, from whatever it is waiting for."""
        print(f"error: {why}", file=sys.stderr, flush=True)
        if self._watchdog:
            self._watchdog.communicate(b"goodbye\n")
        os._exit(3)


def _host_of(key: str) -> int:
    """Keys end in the index of the host that set them."""
    return int(key.rpartition("/")[2])
