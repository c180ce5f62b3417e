"""Given weights on two hosts of one run: other ones on one of them, or one replica that lies on both."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from rlvr_limit import checkpoint
from rlvr_limit.distributed.mesh import make_mesh
from rlvr_limit.models.decoder import init_params
from rlvr_limit.settings import MeshConfig
from tests.support.records_rows import keyed_rows
from tests.support.released import words, write_released
from tests.support.smoke import REPOSITORY, environment


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_released(tmp_path_factory.mktemp("released"))


def start(runs: Path, where: list[Path], *line: str) -> list[subprocess.Popen]:
    """The same command in each of these folders, host 0 first; each writes to host-<index>.log."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    hosts = (f"--config.hosts.{word}" for word in (f"coordinator={address}", f"count={len(where)}", "patience=10"))
    words = [sys.executable, *line, *hosts]
    environ = environment() | {"PYTHONPATH": str(REPOSITORY)}
    processes = []
    for index, folder in enumerate(where):
        with (runs / f"host-{index}.log").open("w") as file:
            mine = [*words, f"--config.hosts.index={index}"]
            processes.append(subprocess.Popen(mine, stdout=file, stderr=file, cwd=folder, env=environ))
    return processes


def ended(processes: list[subprocess.Popen], runs: Path) -> tuple[list[int], list[str]]:
    """Exit codes and logs."""
    codes = [process.wait(timeout=400) for process in processes]
    return codes, [(runs / f"host-{index}.log").read_text() for index in range(len(processes))]


@pytest.mark.slow
def test_a_host_with_other_weights_is_refused_by_a_line_that_names_both_hosts_and_hashes(folders, tmp_path):
    """One command on both hosts; its path leads each of them to another folder."""
    where = [tmp_path / "first", tmp_path / "second"]
    model = checkpoint.read_model_config(folders / "base", "bfloat16")
    shutil.copytree(folders / "base", where[0] / "base")
    checkpoint.export_hf(where[1] / "base", init_params(model, jax.random.key(2)), model, folders / "tokenizer")
    here = make_mesh(MeshConfig())
    hashes = [checkpoint.weights_sha256(checkpoint.load_hf(folder / "base", model, here)) for folder in where]
    script, config, *overrides = words(folders, "job=sample", "arms.base.weights=base")
    config = f"--config={REPOSITORY / config.removeprefix('--config=')}"
    codes, logs = ended(start(tmp_path, where, str(REPOSITORY / script), config, *overrides), tmp_path)
    (refused,) = (index for index in (0, 1) if "weights_sha256" in logs[index])
    other = 1 - refused
    line = (
        f"error: host {refused}: arms.base.weights_sha256 is {hashes[refused]}, on host {other} it is {hashes[other]}: "
        "it must be the same on all"
    )
    assert line in logs[refused].splitlines() and codes[refused] == 2
    # The one that came first goes on alone; without host 0 no host does.
    assert not any("Traceback" in log for log in logs) and (codes[other] == 0) == (other == 0)


@pytest.mark.slow
def test_a_replica_on_two_hosts_draws_and_scores_what_one_host_does(folders, tmp_path):
    """Tensor parallel over two processes: the same tokens, log-probs within rounding, written once."""
    line = words(folders, "dtype=float32", f"runs={tmp_path}")
    codes, logs = ended(start(tmp_path, [REPOSITORY] * 2, *line, "--config.hosts.hosts_per_replica=2"), tmp_path)
    assert codes == [0, 0], logs
    alone = subprocess.run([sys.executable, *line], cwd=REPOSITORY, env=environment(), capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    spread, whole = (Path(said.partition("run folder: ")[2].splitlines()[0]) for said in (logs[0], alone.stdout))
    assert spread != whole
    for table, numbers in {"samples": ("logp", "logp_model"), "scores": ("logp", "entropy"), "verdicts": ()}.items():
        found, wanted = keyed_rows(spread, table), keyed_rows(whole, table)
        assert found.keys() == wanted.keys() and found
        for key, row in found.items():
            for name, value in wanted[key].items():
                if name in numbers:
                    np.testing.assert_allclose(row.pop(name), value, atol=1e-5)
                else:
                    assert row.pop(name) == value
            assert not row


@pytest.mark.slow
def test_other_replicas_go_on_without_one_that_lost_a_host(folders, tmp_path):
    """Two replicas of two hosts each, and kill -9 of the host that only computes."""
    line = words(folders, "job=sample", f"runs={tmp_path}", "sampling.n=256", "sampling.n_of.aime24=256")
    processes = start(tmp_path, [REPOSITORY] * 4, *line, "--config.hosts.hosts_per_replica=2")
    while processes[0].poll() is None and "samples/s" not in (tmp_path / "host-0.log").read_text():
        time.sleep(0.02)
    processes[3].kill()
    codes, logs = ended(processes, tmp_path)
    assert (codes[0], codes[1], codes[3]) == (0, 0, -9) and codes[2] not in (0, -9), logs
    assert logs[2].splitlines()[-1].startswith("error: host ") and "Traceback" not in logs[2]
    (root,) = (tmp_path / "qwen7b_math").iterdir()
    assert len(keyed_rows(root, "samples")) == 2 * 5 * 256
