"""Training on several hosts is that on one: gradients, steps, and states that another number of hosts goes on from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from rlvr_limit.distributed.mesh import make_mesh
from tests.support import policy_batches as step
from tests.support import smoke, training_host

pytestmark = pytest.mark.slow


def run_hosts(what: str, folder: Path, mesh: str, count: int) -> None:
    """Starts processes of two devices each, and waits until all have ended well."""
    address = smoke.free_address()
    environment = smoke.environment() | {
        "PYTHONPATH": str(smoke.REPOSITORY / "tests"),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    words = [sys.executable, "-m", "tests.support.training_host", what, str(folder), mesh, address, str(count)]
    logs = [folder / f"{what}-{count}-{index}.log" for index in range(count)]
    processes = [
        subprocess.Popen([*words, str(i)], cwd=smoke.REPOSITORY, env=environment, stdout=file, stderr=file)
        for i, file in enumerate(log.open("w") for log in logs)
    ]
    codes = [process.wait(timeout=300) for process in processes]
    assert codes == [0] * count, "\n".join(log.read_text()[-2000:] for log in logs)


MESHES = ["1-1-2", "1-1-1", "1-2-1", "2-1-1"]
"""data, fsdp and tensor of a host's mesh."""


@pytest.fixture(scope="module", params=MESHES)
def by_two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A mesh, and what two hosts with such meshes have left behind."""
    folder = tmp_path_factory.mktemp("hosts")
    run_hosts("train", folder, request.param, 2)
    return request.param, folder


def found(folder: Path, what: str) -> list[np.ndarray]:
    with np.load(folder / f"{what}.npz") as values:
        return [values[name] for name in sorted(values)]


def test_two_hosts_have_the_gradient_and_after_three_steps_the_parameters_of_one(by_two: tuple[str, Path]) -> None:
    mesh, folder = by_two
    params, parts = step.placed((1, 1, 1)), training_host.parts()
    expected = jax.tree.leaves(step.gradient(params, parts))
    change = step.trained(params, parts)
    moved, size = (np.sqrt(sum(np.sum(np.square(np.float64(x))) for x in y)) for y in (change, jax.tree.leaves(params)))
    off = max(step.relative_errors(found(folder, "gradient"), expected))
    off_after = max(step.relative_errors(found(folder, "changes"), change))
    print(f"two hosts of {mesh}: gradient {off:.1e}, change {off_after:.1e}, moved {moved / size:.1e}")
    assert off <= step.TOLERANCE and moved >= 1e-2 * size and off_after <= 1e-3


def test_state_of_two_hosts_is_restored_on_one(by_two: tuple[str, Path]) -> None:
    mesh, folder = by_two
    training_host.check_restored(folder, make_mesh(training_host.config_of(mesh)), spread=False)


def test_state_of_two_hosts_is_restored_on_four(by_two: tuple[str, Path]) -> None:
    mesh, folder = by_two
    run_hosts("restore", folder, mesh, 4)
