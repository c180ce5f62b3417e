"""Hosts of one run that hold different weights under the same name: refused by a line that names hosts and hashes."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from rlvr_limit import checkpoint
from rlvr_limit.mesh import MeshConfig, make_mesh
from rlvr_limit.model import init_params
from tests.smoke import REPOSITORY, environment
from tests.test_released_weights import folders, words  # noqa: F401


@pytest.mark.slow
def test_a_host_with_other_weights_is_refused_by_a_line_that_names_both_hosts_and_hashes(folders: Path) -> None:  # noqa: F811
    """The same command on both hosts, with paths that lead to different folders."""
    shape = checkpoint.read_model_config(folders / "base", "float32")
    hashes = []
    for host in (0, 1):
        weights = folders / f"host-{host}" / "base"
        if host:
            params = init_params(shape, jax.random.key(2))
            checkpoint.export_hf(weights, params, shape, folders / "tokenizer")
        else:
            shutil.copytree(folders / "base", weights)
        read = checkpoint.load_hf(weights, checkpoint.read_model_config(weights, "bfloat16"), make_mesh(MeshConfig()))
        hashes.append(checkpoint.weights_sha256(read))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    common = (f"hosts.coordinator={address}", "hosts.count=2", "hosts.patience=3", "arms.base.weights=base")
    processes = []
    for host in (0, 1):
        script, config, *overrides = words(folders, "job=sample", *common, f"hosts.index={host}")
        config = f"--config={REPOSITORY / config.removeprefix('--config=')}"
        with (folders / f"host-{host}.log").open("w") as log:
            line = [sys.executable, REPOSITORY / script, config, *overrides]
            where = {"cwd": folders / f"host-{host}", "env": environment() | {"PYTHONPATH": str(REPOSITORY)}}
            processes.append(subprocess.Popen(line, stdout=log, stderr=log, **where))
    codes = [process.wait(timeout=120) for process in processes]
    logs = [(folders / f"host-{host}.log").read_text() for host in (0, 1)]
    (refused,) = [host for host in (0, 1) if "weights_sha256" in logs[host]]
    other = 1 - refused
    line = (
        f"error: host {refused}: arms.base.weights_sha256 is {hashes[refused]}, on host {other} it is {hashes[other]}: "
        "hosts must hold the same"
    )
    assert line in logs[refused].splitlines() and codes[refused] == 2
    # The one that was first goes on alone; without host 0 no host does.
    assert not any("Traceback" in log for log in logs) and (codes[other] == 0) == (other == 0)
