"""States of a training run: written beside the training, whole or not at all, and read around what is broken."""

from __future__ import annotations

import logging
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_limit import checkpoint
from rlvr_limit.records.storage import place
from rlvr_limit.types import UserError


def state(value: float, size: int = 4096) -> dict:
    """A state that says which it is; incompressible, so that its files are as large as it."""
    noise = np.random.default_rng(int(value)).normal(size=size).astype(np.float32)
    return {"a": jnp.full(3, value), "noise": jnp.asarray(noise), "step": jnp.int32(value)}


@partial(jax.jit, donate_argnums=0)
def overwritten(given: dict) -> dict:
    return jax.tree.map(lambda x: x * 0 - 1, given)


def saved(folder: Path, *steps: int) -> None:
    with closing(checkpoint.TrainCheckpoints(folder)) as states:
        for step in steps:
            states.save(step, state(step))


def read(folder: Path) -> tuple[int, dict]:
    with closing(checkpoint.TrainCheckpoints(folder)) as states:
        return states.restore(state(0))


def assert_is(found: tuple[int, dict], step: int) -> None:
    assert found[0] == step
    jax.tree.map(np.testing.assert_array_equal, found[1], state(step))


def largest_file(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_state_given_away_right_after_it_is_saved_is_kept_as_it_was(tmp_path: Path) -> None:
    with closing(checkpoint.TrainCheckpoints(tmp_path)) as states:
        for step in (1, 2, 3):
            given = state(step, size=2**20)
            states.save(step, given)
            jax.block_until_ready(overwritten(given))
            states.save(step, state(9, size=2**20))
    with closing(checkpoint.TrainCheckpoints(tmp_path)) as states:
        step, found = states.restore(state(0, size=2**20))
    assert step == 3 and sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["2", "3"]
    jax.tree.map(np.testing.assert_array_equal, found, state(3, size=2**20))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def remove(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [cut, zero, remove])
def test_broken_newest_state_falls_back_to_the_one_before_in_one_line(tmp_path: Path, damage, caplog) -> None:
    saved(tmp_path, 1, 2)
    damage(largest_file(tmp_path / "2"))
    with caplog.at_level(logging.WARNING, logger="root"):
        assert_is(read(tmp_path), 1)
    said = [record.getMessage() for record in caplog.records if "cannot be read" in record.getMessage()]
    assert len(said) == 1 and "\n" not in said[0]
    assert said[0].startswith(f"{tmp_path}: the state after step 2 cannot be read and is removed")
    assert "training goes on from step 1" in said[0]
    saved(tmp_path, 2)
    assert_is(read(tmp_path), 2)


def test_states_that_are_all_broken_or_of_another_run_are_named_and_left_alone(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    with closing(checkpoint.TrainCheckpoints(tmp_path)) as states:
        with pytest.raises(UserError, match=f"{tmp_path}: none of the states after steps 1, 2 fits this run"):
            states.restore({"other": jnp.zeros(5)})
    assert_is(read(tmp_path), 2)


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """Writing on fails as on a full disk, with another error number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, heard)


def test_full_disk_in_mid_write_is_one_clear_line_and_the_last_state_is_kept(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    size = 2**20
    states = checkpoint.TrainCheckpoints(tmp_path)
    with pytest.raises(UserError) as caught:
        with no_file_larger_than(2**18):
            states.save(2, state(2, size))
            states.save(3, state(3, size))
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}: a training state could not be written, the state after step 1 is kept: ")
    assert "\n" not in said and "too large" in said
    assert_is(read(tmp_path), 1)
    saved(tmp_path, 2)
    assert_is(read(tmp_path), 2)


def test_disk_that_is_really_full_is_said_and_the_last_state_is_kept(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"no file system can be mounted here: {mount.stderr.strip()}")
    try:
        folder = disk / "states"
        saved(folder, 1)
        states = checkpoint.TrainCheckpoints(folder)
        with pytest.raises(UserError) as caught:
            states.save(2, state(2, 2**20))
            states.save(3, state(3, 2**20))
        said = str(caught.value)
        assert said.startswith(f"{folder}: a training state could not be written, the state after step 1 is kept: ")
        assert "\n" not in said and "No space left on device" in said
        assert_is(read(folder), 1)
        saved(folder, 2)
        assert_is(read(folder), 2)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_broken_state_of_several_hosts_is_refused_by_the_host_that_cannot_read_it_and_left_to_the_user(
    tmp_path: Path,
) -> None:
    saved(tmp_path, 1, 2)
    cut(largest_file(tmp_path / "2"))
    with closing(checkpoint.TrainCheckpoints(tmp_path, spread=True)) as states:
        with pytest.raises(
            UserError, match=f"{tmp_path}: the state after step 2 cannot be read by this host"
        ) as caught:
            states.restore(state(0))
    assert "\n" not in str(caught.value)
    shutil.rmtree(tmp_path / "2")
    with closing(checkpoint.TrainCheckpoints(tmp_path, spread=True)) as states:
        assert_is(states.restore(state(0)), 1)


def test_states_of_several_hosts_are_refused_in_an_object_store():
    with pytest.raises(UserError, match="memory://.*hosts that train together need a file system"):
        checkpoint.TrainCheckpoints(place("memory://bucket/states"), spread=True)
