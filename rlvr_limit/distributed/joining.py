"""How a process joins the others of its run, and a watchdog that says so where it ends without a word."""

from __future__ import annotations

import atexit
import os
import re
import socket
import subprocess
import time
from typing import Any

import jax
from jax._src import cloud_tpu_init, distributed

from rlvr_limit.distributed.hosts import START_SECONDS, Hosts
from rlvr_limit.settings import HostsConfig
from rlvr_limit.types import UserError, first_line, not_allowed


def start(config: HostsConfig) -> Hosts:
    """Joins the other hosts of the run, if there are any. Must come before anything asks JAX for a device.

    Raises UserError where the three fields are given in part, or host 0 does not answer.
    """
    given = {"coordinator": bool(config.coordinator), "count": config.count > 0, "index": config.index >= 0}
    by_hand = all(given.values())
    if any(given.values()) and not by_hand:
        lacking = ", ".join(f"hosts.{name}" for name, is_given in given.items() if not is_given)
        raise UserError(f"config.hosts: {lacking} not given: coordinator, count and index are given all or none")
    if by_hand and config.index >= config.count:
        raise not_allowed("config.hosts.index", config.index, f"in [0, {config.count - 1}]")
    if by_hand and not re.fullmatch(r".+:\d+", config.coordinator):
        raise not_allowed("config.hosts.coordinator", config.coordinator, "an address such as 10.0.0.1:1234")
    if not by_hand and not _is_launched_with_others():
        return _hosts(config, 0, 1)
    # A host may die while others sample: they go on without it.
    jax.config.update("jax_enable_recoverability", True)
    jax.config.update("jax_enable_preemption_service", False)
    explicit = {"coordinator_address": config.coordinator, "num_processes": config.count, "process_id": config.index}
    if config.index > 0:
        _wait_for_listener(config.coordinator, config.index)
    watchdog = _watchdog(config)
    try:
        jax.distributed.initialize(
            **(explicit if by_hand else {}),
            initialization_timeout=START_SECONDS,
            heartbeat_timeout_seconds=max(1, round(config.patience)),
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(f"config.hosts: cannot join the other hosts: {first_line(error)}") from error
    finally:
        watchdog.stdin.write(b"joined\n")
        watchdog.stdin.flush()
        atexit.register(watchdog.communicate, b"goodbye\n")
    state = distributed.global_state
    if state.num_processes == 1:
        jax.distributed.shutdown()
        return _hosts(config, 0, 1, None, watchdog)
    return _hosts(config, state.process_id, state.num_processes, state.client, watchdog)


def _hosts(config: HostsConfig, index: int, count: int, client: Any = None, watchdog: Any = None) -> Hosts:
    if config.hosts_per_replica < 1 or count % config.hosts_per_replica:
        raise not_allowed("config.hosts.hosts_per_replica", config.hosts_per_replica, f"a divisor of {count} hosts")
    return Hosts(index, count, client, config.patience, config.hosts_per_replica, watchdog)


def _is_launched_with_others() -> bool:
    """Whether this process is one of several by the environment's word: a TPU pod, a SLURM step, Open MPI."""
    steps = (int(os.environ.get(name, "1")) for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE"))
    return any(number > 1 for number in steps) or cloud_tpu_init.running_in_cloud_tpu_vm


def _wait_for_listener(address: str, index: int) -> None:
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
                    f"({error}): it must be the address of host 0, and host 0 must be running"
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
