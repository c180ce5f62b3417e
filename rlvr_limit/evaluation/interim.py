"""The page while a run goes on: written again and again from a thread of its own, beside the token loop."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType

SHARE = 0.1
"""Of the time, that writing pages takes at most."""

SWITCH_SECONDS = 0.0005
"""How long the thread goes on when the token loop wants the interpreter back. With Python's 5 ms a loop that waits for
a device four times in 25 ms took 41 ms, with this 31 ms (two cores, shared)."""

PATIENCE = 10.0
"""Seconds that a run which breaks off waits for a page that is being written."""


class InterimPages:
    """For as long as the block lasts, `write` is called every so many seconds; 0: never.

    The thread shares the interpreter with the token loop, whose calls to the device go on; it reads the records as any
    reader does. A page that fails is said with its error and is tried again: samples are worth more than a page.
    """

    def __init__(self, write: Callable[[], object], every: float):
        self._write, self._every, self._ended = write, every, threading.Event()
        self._thread = threading.Thread(target=self._write_pages, daemon=True, name="interim pages")

    def __enter__(self) -> InterimPages:
        if self._every:
            self._thread.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        if self._every:
            self._thread.join(None if kind is None else PATIENCE)

    def _write_pages(self) -> None:
        wait = self._every
        while not self._ended.wait(wait):
            began, usual = time.monotonic(), sys.getswitchinterval()
            sys.setswitchinterval(SWITCH_SECONDS)
            try:
                self._write()
                print(f"interim page: written in {time.monotonic() - began:.1f} s", flush=True)
            except Exception as error:
                traceback.print_exc()
                print(f"interim page: not written, tried again later: {error!r}", flush=True)
            finally:
                sys.setswitchinterval(usual)
            wait = max(self._every, (time.monotonic() - began) / SHARE)
