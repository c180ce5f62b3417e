"""What all tests share: eight virtual CPU devices, the repository on the path, deterministic hypothesis."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

VIRTUAL_DEVICES = "--xla_force_host_platform_device_count"

# jax reads XLA_FLAGS once, when its CPU client starts; a count the caller has chosen is kept.
if VIRTUAL_DEVICES not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {VIRTUAL_DEVICES}=8".strip()

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import jax  # noqa: E402

from tests import smoke  # noqa: E402

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")


# First: pytest-xdist reads the groups in the same hook, and is asked before this file otherwise.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests stay on one worker; all that start whole runs share one, and go first: the longest chain."""
    for item in items:
        whole_runs = "smoke_runs" in item.fixturenames
        item.add_marker(pytest.mark.xdist_group("whole runs" if whole_runs else item.path.name))
    items.sort(key=lambda item: "smoke_runs" not in item.fixturenames)


@pytest.fixture(scope="session")
def smoke_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all smoke runs of a test session lie, so that they share what was compiled."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def smoke_run(smoke_runs: Path) -> Path:
    """The run folder of one uninterrupted smoke run, report included. Not to be changed by tests."""
    done = smoke.run(smoke_runs)
    assert done.returncode == 0, done.stderr
    return smoke.run_folder(done.stdout)


@pytest.fixture
def compilation_cache() -> Iterator[None]:
    """Preparing a run points jax at the run's cache of compiled programs; the other tests keep their own."""
    before = jax.config.jax_compilation_cache_dir
    yield
    jax.config.update("jax_compilation_cache_dir", before)
