"""Hosts of one process. A store in memory stands for the coordination service."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax

from rlvr_limit.distributed.hosts import Hosts
from rlvr_limit.types import UserError


class Store:
    """The calls of jax.distributed's client that hosts make, on one dictionary."""

    def __init__(self):
        self.values: dict[str, str] = {}
        self.lock = threading.Lock()

    def key_value_increment(self, key: str, by: int) -> int:
        with self.lock:
            self.values[key] = str(int(self.values.get(key, "0")) + by)
            return int(self.values[key])

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        with self.lock:
            if key in self.values and not allow_overwrite:
                raise jax.errors.JaxRuntimeError(f"ALREADY_EXISTS: {key}")
            self.values[key] = value

    def key_value_delete(self, key: str) -> None:
        with self.lock:
            del self.values[key]

    def key_value_try_get(self, key: str) -> str:
        return self.values[key]

    def key_value_dir_get(self, prefix: str) -> list[tuple[str, str]]:
        directory = prefix.rstrip("/") + "/"
        with self.lock:
            return [(key, value) for key, value in self.values.items() if key.startswith(directory)]

    def blocking_key_value_get(self, key: str, milliseconds: int) -> str:
        end = time.monotonic() + 5
        while key not in self.values:
            if time.monotonic() > end:
                raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: nobody set it")
            time.sleep(0.01)
        return self.values[key]


def several(count: int, patience: float = 60.0, hosts_per_replica: int = 1) -> list[Hosts]:
    store = Store()
    return [Hosts(index, count, store, patience, hosts_per_replica) for index in range(count)]


def on_each(hosts: list[Hosts], call) -> list:
    """What call gives on every host, all at once; an error is given back, not raised."""

    def one(host: Hosts):
        try:
            return call(host)
        except UserError as error:
            return error

    with ThreadPoolExecutor(len(hosts)) as threads:
        return list(threads.map(one, hosts))
