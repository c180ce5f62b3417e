"""This host among those of a run: its leases, what hosts tell one another, and who of them lives."""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from rlvr_limit.types import UserError

START_SECONDS = 60
"""How long a host waits for the others at the start; hosts of one launch come up together."""

GRACE_SECONDS = 5.0
"""Beyond patience: how long a collective's error waits for the host to be named that fell silent."""

GOODBYE_SECONDS = 1.0
"""Seconds that host 0 stays when all others have said goodbye, so that they leave before the service does."""

SHOWN = 3
"""Differences between hosts that are told."""

STAGES = ("prepare", "train", "sample", "grade", "second stage", "second grade", "score", "end")
"""Where hosts wait for one another, in this order."""


class Hosts:
    """This host among those of a run; alone where there is no client. leases counts the shares that it was given.

    Of every `together` hosts that hold a replica between them the first leases and writes; the others must do all that
    runs on the replica's devices in the same order, with the same values. watchdog is what start began.
    """

    def __init__(
        self,
        index: int = 0,
        count: int = 1,
        client: Any = None,
        patience: float = 30.0,
        together: int = 1,
        watchdog: subprocess.Popen | None = None,
    ):
        self.index, self.count, self.leases = index, count, 0
        self.together, self.replica, self.replicas = together, index // together, count // together
        self._client, self._patience, self._watchdog = client, patience, watchdog
        self._needs_all, self._exchanges, self._asked, self._firsts = False, 0, 0, 0
        self._counters: Counter[str] = Counter()
        self._told: dict[str, float] = {}
        self._first = self._last = 0.0
        self._heard: dict[int, tuple[str, float]] = {}
        self._others: dict[int, dict[str, float]] = {}
        self._dead: set[int] = set()
        if client:
            began = time.monotonic()
            self._heard = {i: ("", began) for i in range(count)}
            threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()
            # Before JAX takes the service down, which the heartbeat would take for the death of host 0.
            atexit.register(self._hush)

    @property
    def is_first(self) -> bool:
        """Whether this host does what only one may do: it opens the run folder, reports, and shows progress."""
        return self.index == 0

    @property
    def leads(self) -> bool:
        """Whether this host is the first of its replica: it leases and writes for all of them."""
        return self.index % self.together == 0

    @property
    def mates(self) -> range:
        """The hosts of this one's replica, itself included."""
        return range(self.replica * self.together, (self.replica + 1) * self.together)

    def same(self, find: Callable[[], Any]) -> Any:
        """What the first host of this replica finds, on all of them; anything that JSON holds.

        Only that host looks. All must ask in one order.
        """
        if self.together == 1:
            return find()
        self._asked += 1
        key = f"same/{self.replica}/{self._asked}"
        if self.leads:
            found = find()
            self._client.key_value_set(key, json.dumps(found))
            return found
        return json.loads(self._said(key))

    @contextlib.contextmanager
    def in_step(self) -> Iterator[None]:
        """Where hosts of one replica compute together. UserError where that breaks off: one of them is gone."""
        try:
            yield
        except (jax.errors.JaxRuntimeError, ValueError) as error:
            # XLA's errors begin with a status; some of them, such as Gloo's, come as a ValueError.
            if self.together == 1 or not re.match(r"[A-Z_]+: ", str(error)):
                raise
            names = " and ".join(str(index) for index in self.mates)
            raise UserError(
                f"host {self.index}: what hosts {names} compute together broke off ({first_line(error)}); other "
                "replicas go on, and the same command on every host draws what is lacking"
            ) from error

    def shares(self, name: str, count: int) -> Iterator[int]:
        """Numbers below count that no other replica is given under this name, each leased when it is asked for."""
        while (number := self.same(lambda: self._lease(name))) < count:
            self.leases += 1
            yield number

    def _lease(self, name: str) -> int:
        if self._client:
            with self._first_is_there():
                return self._client.key_value_increment(f"lease/{name}", 1) - 1
        self._counters[name] += 1
        return self._counters[name] - 1

    @contextlib.contextmanager
    def _first_is_there(self) -> Iterator[None]:
        """Ends this process where host 0 is gone, as JAX is about to; no goodbye is said, so the watchdog tells why."""
        try:
            yield
        except jax.errors.JaxRuntimeError as error:
            if not str(error).startswith("UNAVAILABLE"):
                raise
            logging.error("host %d: %s", self.index, first_line(error))
            os._exit(3)

    def agree(self, facts: Mapping[str, Any]) -> None:
        """Waits for what every host says of itself. UserError on all hosts, naming one that differs from host 0."""
        if not self._client:
            return
        self._client.key_value_set(f"fact/{self.index}", json.dumps(dict(_leaves(facts))))
        said = []
        for index in range(self.count):
            try:
                said.append(json.loads(self._client.blocking_key_value_get(f"fact/{index}", 1000 * START_SECONDS)))
            except jax.errors.JaxRuntimeError as error:
                raise UserError(f"host {index} has not come within {START_SECONDS} s: {first_line(error)}") from error
        for index, theirs in enumerate(said):
            names = [name for name in {**said[0], **theirs} if said[0].get(name) != theirs.get(name)]
            if names:
                time.sleep(GOODBYE_SECONDS)
                shown = "; ".join(
                    f"{name} = {json.dumps(theirs.get(name))}, host 0 with {json.dumps(said[0].get(name))}"
                    for name in names[:SHOWN]
                )
                more = f"; and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
                raise UserError(f"host {index} was started with {shown}{more}: every host must be started alike")

    def agree_once(self, name: str, value: str) -> None:
        """Holds a value against that of the first host that said one, without waiting. UserError where it differs."""
        if not self._client:
            return
        try:
            self._client.key_value_set(f"once/{name}", json.dumps([self.index, value]))
        except jax.errors.JaxRuntimeError:
            index, theirs = json.loads(self._client.key_value_try_get(f"once/{name}"))
            if theirs != value:
                raise UserError(
                    f"host {self.index}: {name} is {value}, on host {index} it is {theirs}: hosts must hold the same"
                ) from None

    def agreed(self, prefix: str) -> dict[str, str]:
        """What hosts have said once under names that begin so."""
        if not self._client:
            return {}
        # The service gives whole directories: a key's beginning, such as "once/arms.", is none.
        said = {key.partition("/")[2]: json.loads(value)[1] for key, value in self._client.key_value_dir_get("once/")}
        return {name.removeprefix(prefix): value for name, value in said.items() if name.startswith(prefix)}

    def exchange(self, value: str) -> list[str]:
        """What every host says, by index; waits until all have. All hosts must come to their exchanges in one order."""
        if not self._client:
            return [value]
        self._exchanges += 1
        self._client.key_value_set(f"said/{self._exchanges}/{self.index}", value)
        said = [self._said(f"said/{self._exchanges}/{index}") for index in range(self.count)]
        # Who has spoken now has heard everything that was said before.
        if self._exchanges > 1:
            self._client.key_value_delete(f"said/{self._exchanges - 1}/{self.index}")
        return said

    def _said(self, key: str) -> str:
        while True:
            try:
                return self._client.blocking_key_value_get(key, 1000 * START_SECONDS)
            except jax.errors.JaxRuntimeError as error:
                # The heartbeat ends this process if the other host is gone; until then it is only slow.
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def of_first(self, value: bool) -> bool:
        """What host 0 says, on every host; waits for host 0 alone. All hosts must ask in one order."""
        if not self._client:
            return value
        self._firsts += 1
        if self.is_first:
            self._client.key_value_set(f"first/{self._firsts}", json.dumps(value))
            return value
        return json.loads(self._said(f"first/{self._firsts}"))

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
            raise UserError(self._lost(index))
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

    def _lost(self, index: int) -> str:
        return (
            f"host {index} has not been heard of for {self._patience:g} s, and training needs every host: host "
            f"{self.index} ends too; the same command on every host goes on from the last kept state"
        )

    def wait(self, stage: str, turn: int = 0) -> None:
        """Until every living host has come to this turn of a stage of STAGES, or is past it."""
        if not self._client:
            return
        place = [STAGES.index(stage), turn]
        self._client.key_value_set(f"at/{self.index}", json.dumps(place), allow_overwrite=True)
        while True:
            with self._first_is_there():
                said = self._client.key_value_dir_get("at/")
            at = {int(key.rpartition("/")[2]): json.loads(value) for key, value in said}
            if {i for i, there in at.items() if there >= place} | self._dead >= set(range(self.count)):
                return
            time.sleep(0.1)

    def tell(self, **done: float) -> None:
        """Adds to what this host has done, for the others to see; nothing is sent before the next heartbeat."""
        self._last = time.time()
        self._first = self._first or self._last
        # A dictionary of its own each time: the heartbeat's thread may be reading the last one.
        self._told = self._told | {name: self._told.get(name, 0) + value for name, value in done.items()}

    def summary(self) -> str:
        """What this host has done, from when to when (seconds of the Unix clock), and the shares it was given."""
        done = ", ".join(f"{value:,.0f} {name}" for name, value in self._told.items()) or "nothing"
        return f"host {self.index}: {done} in {self.leases} shares, from {self._first:.1f} to {self._last:.1f}"

    def told(self, name: str) -> float:
        """The sum of what the other hosts have done, dead ones included."""
        return sum(values.get(name, 0) for i, values in list(self._others.items()) if i != self.index)

    def close(self) -> None:
        """The end of a run: host 0, which keeps what all share, leaves last."""
        if not self._client:
            return
        if self.is_first:
            self.wait("end")
            time.sleep(GOODBYE_SECONDS)
        else:
            self._client.key_value_set(f"at/{self.index}", json.dumps([len(STAGES), 0]), allow_overwrite=True)
        self._client = None
        jax.distributed.shutdown()

    def _hush(self) -> None:
        self._client = None

    def _beat(self) -> None:
        number = 0
        while client := self._client:
            number += 1
            try:
                beat = json.dumps([number, self._told])
                client.key_value_set(f"beat/{self.index}", beat, allow_overwrite=True)
                self._listen(client.key_value_dir_get("beat/"))
            except jax.errors.JaxRuntimeError as error:
                if self._client:
                    logging.error("host %d: %s", self.index, first_line(error))
                    os._exit(3)
            time.sleep(min(1.0, self._patience / 5))

    def _leave(self, why: str) -> None:
        """Ends this process, from whatever it is waiting for."""
        print(f"error: {why}", file=sys.stderr, flush=True)
        if self._watchdog:
            self._watchdog.communicate(b"goodbye\n")
        os._exit(3)

    def _has_ended(self, index: int) -> bool:
        at = dict(self._client.key_value_dir_get("at/")) if self._client else {}
        return json.loads(at.get(f"at/{index}", "[0, 0]"))[0] >= len(STAGES)

    def _listen(self, beats: list[tuple[str, str]]) -> None:
        now = time.monotonic()
        for key, value in beats:
            index = int(key.rpartition("/")[2])
            if value != self._heard[index][0]:
                self._heard[index] = value, now
                self._others[index] = json.loads(value)[1]
        for index, (_, since) in self._heard.items():
            if now - since > self._patience and index not in self._dead:
                self._dead.add(index)
                if self._needs_all:
                    self._leave(self._lost(index))
                if self._has_ended(index):
                    continue
                if index in self.mates:
                    self._leave(
                        f"host {index} has not been heard of for {self._patience:g} s, and host {self.index} holds one "
                        "replica with it: both end, the other replicas go on"
                    )
                print(
                    f"host {index} has not been heard of for {self._patience:g} s: others take over what it had leased",
                    flush=True,
                )


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """("a.b", value) for every innermost value of nested mappings."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return str(error).partition("\n")[0]
