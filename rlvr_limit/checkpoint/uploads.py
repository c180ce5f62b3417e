"""Train states in an object store: Orbax writes to and reads from a folder of this machine, we put and fetch it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from rlvr_limit.records.storage import ObjectPath
from rlvr_limit.records.storage.folders import SCRATCH, bring, is_whole, put_whole, remove_whole

KEPT = 2
"""States that stay in the store."""


class UploadedCheckpoints:
    """The states under a name in a store, a folder of objects each; here is the folder that Orbax works in."""

    def __init__(self, folder: ObjectPath):
        self._folder = folder
        self._scratch = tempfile.TemporaryDirectory(prefix=SCRATCH)
        self.here = Path(self._scratch.name)
        self._thread = ThreadPoolExecutor(1, "states")
        self._putting: Future | None = None

    def steps(self) -> list[int]:
        """Steps whose states are whole in the store, oldest first."""
        return sorted(int(path.name) for path in self._folder.iterdir() if path.name.isdigit() and is_whole(path))

    def bring(self, step: int) -> None:
        """Fetches a state into here. Raises UserError where that fails."""
        bring(self._folder / str(step), self.here / str(step))

    def put(self, step: int, wait: Callable[[], None]) -> None:
        """Puts a state beside the training, once `wait` has returned: it is written in here by then."""
        self._putting = self._thread.submit(self._put, step, wait)

    def _put(self, step: int, wait: Callable[[], None]) -> None:
        wait()
        put_whole(self.here / str(step), self._folder / str(step))
        for old in self.steps()[:-KEPT]:
            self.remove(old)

    def remove(self, step: int) -> None:
        """Removes a state from the store."""
        remove_whole(self._folder / str(step))

    def settle(self) -> None:
        """Waits for the state being put, if there is one. Raises what that raised."""
        putting, self._putting = self._putting, None
        if putting:
            putting.result()

    def close(self) -> None:
        """Lets go of the folder on this machine."""
        self._thread.shutdown()
        self._scratch.cleanup()
