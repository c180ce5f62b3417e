"""One of several hosts that train a small model together. tests/test_training_hosts.py starts them:

    python -m tests.support.training_host train|restore FOLDER DATA-FSDP-TENSOR ADDRESS COUNT INDEX

train: gradient and large steps on a mesh of all, whose values host 0 writes to FOLDER, and states that all keep there.
restore: the newest of these states, on this many hosts, must be what was kept.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from rlvr_limit import checkpoint, rl
from rlvr_limit.distributed.hosts import Hosts
from rlvr_limit.distributed.joining import start
from rlvr_limit.distributed.mesh import fetch, make_mesh, mesh_of_all_hosts, parameter_shardings
from rlvr_limit.engine.rollout import Graded
from rlvr_limit.models.decoder import init_params, parameter_specs
from rlvr_limit.settings import HostsConfig, MeshConfig, OptimizerConfig
from rlvr_limit.training.exchange import drawn_by_all
from rlvr_limit.training.learner import Learner, spread
from rlvr_limit.types import Problem, Sample, Status, Stop, Verdict
from tests.support import policy_batches as step

TX = rl.optimizer(OptimizerConfig(1e-2, warmup=0), 10)
KEPT = 2
PROBLEMS, ANSWERS = [Problem(f"p{i}", "", "", (), None) for i in range(3)], 20


def config_of(mesh: str) -> MeshConfig:
    return MeshConfig(*map(int, mesh.split("-")))


def parts() -> list[rl.PolicyBatch]:
    return rl.microbatches(step.whole_step(), 8, 8)


def begun(here: Mesh) -> tuple[Learner, rl.TrainState]:
    """The model of tests/test_accumulation.py on the mesh of all hosts, to be trained by AdamW."""
    params = jax.device_put(
        init_params(step.WIDE, jax.random.key(0)), parameter_shardings(parameter_specs(step.WIDE), here)
    )
    mesh = mesh_of_all_hosts(here)
    learner = Learner(step.WIDE, mesh, here, TX, rl.Compute(), (8, 8))
    return learner.begin(spread(params, step.WIDE, mesh), "", seed=0)


def numbered(values: object) -> dict[str, np.ndarray]:
    """The leaves of a tree of arrays on the host, by their order."""
    return {f"{i:03}": x for i, x in enumerate(jax.tree.leaves(values))}


def drawn(problem: Problem, index: int) -> Graded:
    """An answer that follows from what it is."""
    rng = np.random.default_rng([int(problem.id[1:]), index])
    logp = tuple(rng.normal(size=index % 4).astype(np.float32).tolist())
    sample = Sample(problem.id, index, tuple(rng.integers(99, size=index % 4).tolist()), logp, logp, Stop.LENGTH)
    return Graded(sample, f"{problem.id} é", Verdict(index % 2 == 0, Status.GRADED, "x") if index % 3 else None)


def check_answers(hosts: Hosts) -> None:
    """Each is drawn once, by one host or another, and all hosts have all of them; who is slower draws fewer."""
    mine: list[str] = []

    def draw(work):
        for problem, indices in work:
            for index in indices:
                mine.append(problem.id)
                time.sleep(0.1 * hosts.index)
                yield drawn(problem, index)

    hosts.exchange("begin")
    answers = drawn_by_all(hosts, "answers", PROBLEMS, ANSWERS, draw)
    found = {(g.sample.problem_id, g.sample.index): g for g in answers}
    assert found == {(p.id, i): drawn(p, i) for p in PROBLEMS for i in range(ANSWERS)}
    first, *others = map(int, hosts.exchange(str(len(mine))))
    assert first + sum(others) == len(PROBLEMS) * ANSWERS and first > 2 * max(others)


def train(hosts: Hosts, folder: Path, here: Mesh) -> None:
    trained, state = begun(here)
    assert trained.mesh.size == hosts.count * here.size
    for x, y in zip(*map(jax.tree.leaves, (trained.weights(state), state.params)), strict=True):
        assert x.sharding.mesh == here
        np.testing.assert_array_equal(np.asarray(x), fetch(y))
    gradient = step.gradient(state.params, parts())
    changes = step.trained(state.params, parts())
    with contextlib.closing(checkpoint.TrainCheckpoints(folder / "states", spread=True)) as states:
        for number in range(1, KEPT + 1):
            state, _ = trained.step(state, step.OBJECTIVE, trained.sent(parts()))
            states.save(number, state)
    kept = jax.tree.map(fetch, state)
    if hosts.is_first:
        for what, values in {"gradient": gradient, "changes": changes, "kept": kept}.items():
            np.savez(folder / f"{what}.npz", **numbered(values))
    check_answers(hosts)


def restore(hosts: Hosts, folder: Path, here: Mesh) -> None:
    check_restored(folder, here, hosts.count > 1)


def check_restored(folder: Path, here: Mesh, spread: bool) -> None:
    """The newest state lies as a fresh one and holds the values that were kept."""
    _, fresh = begun(here)
    with contextlib.closing(checkpoint.TrainCheckpoints(folder / "states", spread)) as states:
        number, found = states.restore(fresh)
    assert number == KEPT
    jax.tree.map(lambda x, like: np.testing.assert_equal(x.sharding, like.sharding), found, fresh)
    with np.load(folder / "kept.npz") as kept:
        np.testing.assert_equal(numbered(jax.tree.map(fetch, found)), dict(kept))


def main() -> None:
    """The work of one host."""
    what, folder, mesh, address, count, index = sys.argv[1:]
    hosts = start(HostsConfig(address, int(count), int(index), patience=30))
    with hosts.all_needed():
        {"train": train, "restore": restore}[what](hosts, Path(folder), make_mesh(config_of(mesh)))
    hosts.close()


if __name__ == "__main__":
    main()
