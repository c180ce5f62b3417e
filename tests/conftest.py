"""What all tests share: eight virtual CPU devices, one cache of compiled programs, deterministic hypothesis."""

import functools
import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

VIRTUAL_DEVICES = "--xla_force_host_platform_device_count"

# jax reads XLA_FLAGS once, when its CPU client starts; a count the caller has chosen is kept.
os.environ.setdefault("XLA_FLAGS", "")
if VIRTUAL_DEVICES not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += f" {VIRTUAL_DEVICES}=8"

# Most of the suite's time is LLVM's. What XLA makes of a program is the same at every level; a level that the caller
# has chosen is kept, and `make test-optimized` runs everything at the one that runs have.
LLVM_LEVEL = "--xla_backend_optimization_level"
if LLVM_LEVEL not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += f" {LLVM_LEVEL}=0"

# What one worker has compiled, or a run in a process of its own, no other one compiles again. jax reads this at import.
OWN_CACHE = "JAX_COMPILATION_CACHE_DIR" not in os.environ
if OWN_CACHE:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="compiled-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import jax  # noqa: E402

from tests.support import smoke  # noqa: E402

settings.register_profile("deterministic", derandomize=True, deadline=None, database=None)
settings.load_profile("deterministic")


class OneWorkerAFile(LoadScopeScheduling):
    """A file's tests stay on one worker, which makes their fixtures once; all files that start whole runs share one.

    (xdist_group marks are lost under pytest 9: an item's name cannot be changed any more.)
    """

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid.partition("::")[0])


@functools.cache
def _scope(name: str) -> str:
    return "whole runs" if "smoke_run" in (ROOT / name).read_text() else name


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> OneWorkerAFile:
    return OneWorkerAFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs go first, then the room of the longest files: what is left at the end is short."""
    items.sort(key=lambda item: ("smoke_runs" not in item.fixturenames, "tests/training/" not in item.nodeid))


def pytest_collection_finish() -> None:
    """What was imported and collected stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_unconfigure(config: pytest.Config) -> None:
    """The process that made the cache of compiled programs takes it away."""
    if OWN_CACHE:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


@pytest.fixture(scope="session")
def smoke_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all smoke runs of a test session lie."""
    return smoke.share_compiled(tmp_path_factory.mktemp("runs"))


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
