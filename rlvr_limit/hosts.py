"""The hosts of one run: who there is, who of them lives, and who does what. The engine of it is jax.distributed.

Every host runs the same job. Work is cut into numbered shares, which hosts lease from counters in the key-value store
of host 0's coordination service: a fast host takes more. Leases are hints and records are the truth: what a dead host
had leased is lacking in the records, and is leased again in the next turn. Training is the exception: its weights lie
on all hosts, so all end with the first that dies, and the same command goes on from the last kept state.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
from jax._src import cloud_tpu_init, distributed

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


@dataclass(frozen=True)
class HostsConfig:
    """Processes of one run: none of the first three where the launcher tells them (TPU pod, SLURM, Open MPI), or all.

    coordinator is "address:port" of host 0, the same on every host; index counts from 0.
    patience: seconds of silence after which a host counts as dead and others take over what it had leased.
    """

    coordinator: str = ""
    count: int = 0
    index: int = -1
    patience: float = 30.0


class Hosts:
    """This host among those of a run; alone where there is no client. leases counts the shares that it was given."""

    def __init__(
        self,
        index: int = 0,
        count: int = 1,
        client: Any = None,
        patience: float = 30.0,
        watchdog: subprocess.Popen | None = None,
    ):
        self.index, self.count, self.leases = index, count, 0
        self._client, self._patience, self._watchdog = client, patience, watchdog
        self._needs_all, self._exchanges, self._asked = False, 0, 0
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

    @property
    def is_first(self) -> bool:
        """Whether this host does what only one may do: it opens the run folder, reports, and shows progress."""
        return self.index == 0

    def shares(self, name: str, count: int) -> Iterator[int]:
        """Numbers below count that no other host is given under this name, each leased when it is asked for."""
        while (number := self._lease(name)) < count:
            self.leases += 1
            yield number

    def _lease(self, name: str) -> int:
        if self._client:
            return self._client.key_value_increment(f"lease/{name}", 1) - 1
        self._counters[name] += 1
        return self._counters[name] - 1

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
                raise UserError(f"host {index} has not come within {START_SECONDS} s: {_first_line(error)}") from error
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
        found = self._client.key_value_dir_get(f"once/{prefix}")
        return {key.partition(f"once/{prefix}")[2]: json.loads(value)[1] for key, value in found}

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
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def of_first(self, value: bool) -> bool:
        """What host 0 says, on every host; waits for host 0 alone. All hosts must ask in one order."""
        if not self._client:
            return value
        self._asked += 1
        if self.is_first:
            self._client.key_value_set(f"first/{self._asked}", json.dumps(value))
            return value
        return json.loads(self._said(f"first/{self._asked}"))

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
            at = {
                int(key.rpartition("/")[2]): json.loads(value) for key, value in self._client.key_value_dir_get("at/")
            }
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
                    logging.error("host %d: %s", self.index, _first_line(error))
                    os._exit(3)
            time.sleep(min(1.0, self._patience / 5))

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
                    print(f"error: {self._lost(index)}", file=sys.stderr, flush=True)
                    if self._watchdog:
                        self._watchdog.communicate(b"goodbye\n")
                    os._exit(3)
                print(
                    f"host {index} has not been heard of for {self._patience:g} s: others take over what it had leased",
                    flush=True,
                )


def start(config: HostsConfig) -> Hosts:
    """Joins the other hosts of the run, if there are any. Must come before anything asks JAX for a device.

    Raises UserError where the three fields are given in part, or host 0 does not answer.
    """
    given = {"coordinator": bool(config.coordinator), "count": config.count > 0, "index": config.index >= 0}
    by_hand = all(given.values())
    if any(given.values()) and not by_hand:
        lacking = ", ".join(f"hosts.{name}" for name, is_given in given.items() if not is_given)
        raise UserError(
            f"config.hosts: {lacking} not given; all of coordinator, count and index would be right, or none"
        )
    if by_hand and (config.index >= config.count or not re.fullmatch(r".+:\d+", config.coordinator)):
        raise UserError(
            f"config.hosts: found index {config.index} of {config.count} at {config.coordinator!r}; "
            "an index below count and an address such as 10.0.0.1:1234 would be right"
        )
    if not by_hand and not _is_launched_with_others():
        return Hosts()
    # A host may die while others sample: they go on without it.
    jax.config.update("jax_enable_recoverability", True)
    jax.config.update("jax_enable_preemption_service", False)
    explicit = {"coordinator_address": config.coordinator, "num_processes": config.count, "process_id": config.index}
    if config.index > 0:
        _reach(config.coordinator, config.index)
    watchdog = _watchdog(config)
    try:
        jax.distributed.initialize(
            **(explicit if by_hand else {}),
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=max(1, round(config.patience)),
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"config.hosts: cannot join the other hosts: {_first_line(error)}") from error
    finally:
        watchdog.stdin.write(b"joined\n")
        watchdog.stdin.flush()
        atexit.register(watchdog.communicate, b"goodbye\n")
    state = distributed.global_state
    if state.num_processes == 1:
        jax.distributed.shutdown()
        return Hosts()
    return Hosts(state.process_id, state.num_processes, state.client, config.patience, watchdog)


def _is_launched_with_others() -> bool:
    """Whether this process is one of several by the environment's word: a TPU pod, a SLURM step, Open MPI."""
    steps = (int(os.environ.get(name, "1")) for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    return any(number > 1 for number in steps) or cloud_tpu_init.running_in_cloud_tpu_vm


def _reach(address: str, index: int) -> None:
    """UserError where nobody listens at host 0's address: JAX would abort the process, without a line."""
    host, _, port = address.rpartition(":")
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > end:
                raise UserError(
                    f"config.hosts.coordinator: host {index} found nobody at {address} within {START_SECONDS} s "
                    f"({error}); the address of host 0, which must be running, would be right"
                ) from error
            time.sleep(0.5)


def _watchdog(config: HostsConfig) -> subprocess.Popen:
    """A shell that says why this process is gone where it ends without a goodbye: JAX aborts it, with a stack trace."""
    who = f"host {config.index}" if config.index >= 0 else "this host"
    lost = "" if config.index == 0 else ", or host 0 is gone, which keeps the leases and without which no host goes on"
    lines = (
        f"error: {who} could not join the others: all must come within {START_SECONDS} s of one another",
        f"error: {who} was stopped from outside{lost}: what was drawn is kept; the same command on every host goes on",
    )
    script = 'if read joined; then read goodbye || echo "$2" >&2; else echo "$1" >&2; fi'
    return subprocess.Popen(["sh", "-c", script, "sh", *lines], stdin=subprocess.PIPE, start_new_session=True)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """("a.b", value) for every innermost value of nested mappings."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
