"""The last states of a training run, through Orbax: written beside the training, read around what is broken."""

from __future__ import annotations

import logging
from typing import Any

import jax
import orbax.checkpoint as ocp

from rlvr_limit.records.storage import ObjectPath, Place
from rlvr_limit.types import UserError

from .orbax_trees import by_this_host, laid_out, one_line, to_fill, to_save
from .uploads import UploadedCheckpoints


class TrainCheckpoints:
    """The last two states of a training run; each is written whole, beside the training, before it counts.

    spread: the states lie on a mesh of all hosts of the run, each of which saves and restores what lies on its own
    devices; all must call all methods, in one order. In an object store a state counts once all of its objects are put,
    from a folder of this machine.
    """

    def __init__(self, folder: Place, spread: bool = False):
        """Raises UserError for a state of several hosts in an object store: none of them would hold all of it."""
        if spread and isinstance(folder, ObjectPath):
            raise UserError(f"{folder}: hosts that train together need a file system that all of them share")
        self._is_spread = spread
        self._folder = folder.absolute()
        self._store = UploadedCheckpoints(folder) if isinstance(folder, ObjectPath) else None
        here = self._store.here if self._store else self._folder
        here.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            create=False,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(timeout_secs=3600),
            multiprocessing_options=ocp.options.MultiprocessingOptions() if spread else by_this_host(),
        )
        self._manager = ocp.CheckpointManager(here, options=options)

    def save(self, step: int, state: Any) -> None:
        """Starts to keep the state that is reached after `step` steps; saving a step twice is no error.

        The arrays may be given away as soon as it returns. Raises UserError where this state or the one before it
        cannot be written, such as on a full disk; those written earlier stay.
        """
        # An update that failed is no fault of the folder's.
        jax.block_until_ready(state)
        self._settle()
        if step in self._steps():
            return
        try:
            self._manager.save(step, args=ocp.args.StandardSave(state if self._is_spread else to_save(state)))
            if self._store:
                self._store.put(step, self._manager.wait_until_finished)
        except Exception as error:
            raise self._unwritten(error) from error

    def restore(self, fresh: Any) -> tuple[int, Any]:
        """(steps done, newest state), laid out as `fresh` is; (0, fresh) where there is none yet.

        The mesh, and the number of devices, may be others than those it was saved from. A state that cannot be read is
        logged and removed once the one before it was read; UserError where none can be, and on several hosts at once:
        one of them may have read what another cannot.
        """
        broken: dict[int, str] = {}
        for step in sorted(self._steps(), reverse=True):
            try:
                self._bring(step)
                restored = self._restored(step, fresh)
            except Exception as error:
                if self._is_spread:
                    raise UserError(
                        f"{self._folder}: the state after step {step} cannot be read by this host; without the folder "
                        f"{step} in it, training goes on from the state before: {one_line(error)}"
                    ) from error
                broken[step] = one_line(error)
                continue
            for newer, reason in broken.items():
                logging.warning(
                    "%s: the state after step %d cannot be read and is removed, training goes on from step %d: %s",
                    *(self._folder, newer, step, reason),
                )
                self._remove(newer)
            return step, restored
        if broken:
            steps = ", ".join(map(str, sorted(broken)))
            raise UserError(
                f"{self._folder}: none of the states after steps {steps} fits this run or can be read; remove the "
                f"folder to start again: {broken[max(broken)]}"
            )
        return 0, fresh

    def _restored(self, step: int, fresh: Any) -> Any:
        if self._is_spread:
            return self._manager.restore(step, args=ocp.args.StandardRestore(fresh))
        return laid_out(self._manager.restore(step, args=ocp.args.StandardRestore(to_fill(fresh))), fresh)

    def close(self) -> None:
        """Waits for the last state and lets go of the folder. Raises UserError as save does."""
        self._settle()
        self._manager.close()
        if self._store:
            self._store.close()

    def _steps(self) -> set[int]:
        """Steps whose states are there, in the store too."""
        return set(self._manager.all_steps()) | set(self._store.steps() if self._store else ())

    def _bring(self, step: int) -> None:
        if self._store and step not in self._manager.all_steps():
            self._store.bring(step)
            self._manager.reload()

    def _remove(self, step: int) -> None:
        if step in self._manager.all_steps():
            self._manager.delete(step)
        if self._store:
            self._store.remove(step)

    def _settle(self) -> None:
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            if self._store:
                self._store.settle()
        except Exception as error:
            raise self._unwritten(error) from error

    def _unwritten(self, error: Exception) -> UserError:
        if self._store:
            whole = self._store.steps()
        else:
            whole = [int(path.name) for path in self._folder.iterdir() if path.name.isdigit()]
        last = f"the state after step {max(whole)} is kept" if whole else "none was kept yet"
        return UserError(f"{self._folder}: a training state could not be written, {last}: {one_line(error)}")
