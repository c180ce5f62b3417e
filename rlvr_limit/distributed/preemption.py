"""A scheduler's notice that this process must end (SIGTERM): what is at hand is saved, and the exit code is 0."""

from __future__ import annotations

import signal
import threading

STOPPED = "stopped by SIGTERM: everything so far is kept; run the same command to go on"


class Preempted(Exception):
    """The run was asked to end, and everything it had is kept."""


class PreemptionNotice:
    """Whether the process was asked to end; loops look where nothing is half done."""

    def __init__(self) -> None:
        self._came = threading.Event()
        # Python lets only the main thread listen to signals.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._take)

    def _take(self, *_: object) -> None:
        """The first notice waits for a place to stop at; a second one ends the process as it would any other."""
        self._came.set()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def __bool__(self) -> bool:
        return self._came.is_set()

    def raise_if_preempted(self) -> None:
        if self:
            raise Preempted(STOPPED)
