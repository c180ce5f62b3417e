"""Weights and train states through Orbax, and the identity of a set of weights."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh

from rlvr_limit.checkpoint.stored import StoredStates
from rlvr_limit.distributed.mesh import on_host, parameter_shardings, place_among_hosts, placed
from rlvr_limit.models import decoder
from rlvr_limit.models.decoder import ModelConfig, Params
from rlvr_limit.records.storage import ObjectPath, Place
from rlvr_limit.types import UserError


def weights_sha256(params: Params) -> str:
    """Identity of a set of weights: SHA-256 over names, shapes, dtypes and bytes, whatever folder they came from.

    One parameter at a time lies on the host.
    """
    digest = hashlib.sha256()
    leaves = {jax.tree_util.keystr(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    for name, x in sorted(leaves.items()):
        digest.update(f"{name} {x.shape} {x.dtype}\n".encode())
        digest.update(_raw(x))
    return digest.hexdigest()


def _raw(x: Any) -> np.ndarray:
    """The bytes of an array, row by row."""
    array = on_host(x) if isinstance(x, jax.Array) else x
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def save_params(folder: Path, params: Params) -> None:
    """Writes weights into a new folder; it appears whole or not at all."""
    with ocp.StandardCheckpointer(multiprocessing_options=_by_this_host()) as checkpointer:
        checkpointer.save(folder.absolute(), _to_save(params))


def load_params(folder: Path, config: ModelConfig, mesh: Mesh) -> Params:
    """Weights of a model of this config, onto the mesh. UserError naming the folder that lacks them or holds others."""
    if not folder.is_dir():
        raise UserError(f"weights: there is no folder {folder}")
    shapes = jax.eval_shape(lambda: decoder.init_params(config, jax.random.key(0)))
    shardings = parameter_shardings(decoder.parameter_specs(config), mesh)
    wanted = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)
    with ocp.StandardCheckpointer(multiprocessing_options=_by_this_host()) as checkpointer:
        try:
            return _placed(checkpointer.restore(folder.absolute(), _to_fill(wanted)), wanted)
        except (ValueError, KeyError, FileNotFoundError) as error:
            raise UserError(
                f"weights: {folder} does not hold the weights of this config's model: {_line(error)}"
            ) from error


def _by_this_host() -> ocp.options.MultiprocessingOptions:
    """Of a run on several hosts, one writes and reads what lies on its own devices; Orbax would wait for the others."""
    index, count = place_among_hosts()
    if count == 1:
        return ocp.options.MultiprocessingOptions()
    return ocp.options.MultiprocessingOptions(index, {index}, barrier_sync_key_prefix=f"host-{index}")


def _to_save(tree: Any) -> Any:
    """The tree as Orbax takes it: of a run on several hosts it refuses arrays that lie on one host only."""
    if place_among_hosts()[1] == 1:
        return tree
    return jax.tree.map(lambda x: on_host(x) if isinstance(x, jax.Array) else x, tree)


def _to_fill(tree: Any) -> Any:
    """What Orbax restores into: the same on one host, plain memory on several."""
    if place_among_hosts()[1] == 1:
        return tree
    return jax.tree.map(lambda x: np.empty(x.shape, x.dtype) if hasattr(x, "sharding") else x, tree)


def _placed(found: Any, wanted: Any) -> Any:
    """What was restored, laid out as wanted."""
    if place_among_hosts()[1] == 1:
        return found
    return jax.tree.map(lambda x, w: placed(np.asarray(x), w.sharding) if hasattr(w, "sharding") else x, found, wanted)


class TrainStates:
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
        self._store = StoredStates(folder) if isinstance(folder, ObjectPath) else None
        here = self._store.here if self._store else self._folder
        here.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2,
            create=False,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
            async_options=ocp.AsyncOptions(timeout_secs=3600),
            multiprocessing_options=ocp.options.MultiprocessingOptions() if spread else _by_this_host(),
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
            self._manager.save(step, args=ocp.args.StandardSave(state if self._is_spread else _to_save(state)))
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
                found = self._restored(step, fresh)
            except Exception as error:
                if self._is_spread:
                    raise UserError(
                        f"{self._folder}: the state after step {step} cannot be read by this host; without the folder "
                        f"{step} in it, training goes on from the state before: {_line(error)}"
                    ) from error
                broken[step] = _line(error)
                continue
            for newer, reason in broken.items():
                logging.warning(
                    "%s: the state after step %d cannot be read and is removed, training goes on from step %d: %s",
                    *(self._folder, newer, step, reason),
                )
                self._remove(newer)
            return step, found
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
        return _placed(self._manager.restore(step, args=ocp.args.StandardRestore(_to_fill(fresh))), fresh)

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
        return UserError(f"{self._folder}: a training state could not be written, {last}: {_line(error)}")


def _line(error: Exception) -> str:
    """An error's text as one line: tensorstore says where first and why last, and both are wanted."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:100]} ... {text[-200:]}"
