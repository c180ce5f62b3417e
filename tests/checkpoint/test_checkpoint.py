"""Identity of weights, and train states that come back on another mesh."""

from __future__ import annotations

import hashlib
import tracemalloc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_limit import checkpoint, rl
from rlvr_limit.distributed.mesh import make_mesh
from rlvr_limit.models.decoder import ModelConfig, Params
from rlvr_limit.settings import MeshConfig, OptimizerConfig
from rlvr_limit.types import UserError
from tests.support.checkpoint_folders import random_params

MODEL = ModelConfig(vocab_size=24, width=16, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=32)
ONE, EIGHT = MeshConfig(), MeshConfig(data=2, fsdp=2, tensor=2)


def placed(mesh: MeshConfig, seed: int = 0) -> Params:
    return random_params(MODEL, make_mesh(mesh), seed)


def random_like(state: rl.TrainState) -> rl.TrainState:
    """A state with no value that a fresh one has too."""
    rng = np.random.default_rng(7)
    return jax.tree.map(lambda x: jax.device_put(rng.integers(1, 99, x.shape).astype(x.dtype), x.sharding), state)


def assert_same_bits(a: object, b: object) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_digest_is_of_sorted_names_shapes_dtypes_and_bytes() -> None:
    params = {"w": jnp.arange(6, dtype=jnp.bfloat16).reshape(2, 3), "a": [jnp.float32(2.5)]}
    text = b"['a'][0] () float32\n" + np.float32(2.5).tobytes()
    text += b"['w'] (2, 3) bfloat16\n" + np.array([0, 0x3F80, 0x4000, 0x4040, 0x4080, 0x40A0], "<u2").tobytes()
    assert checkpoint.weights_sha256(params) == hashlib.sha256(text).hexdigest()


def test_digest_does_not_depend_on_the_mesh() -> None:
    assert checkpoint.weights_sha256(placed(ONE)) == checkpoint.weights_sha256(placed(EIGHT))
    assert checkpoint.weights_sha256(placed(ONE)) != checkpoint.weights_sha256(placed(ONE, seed=1))


def test_digest_holds_one_parameter_at_a_time_on_the_host() -> None:
    spread = jax.sharding.NamedSharding(make_mesh(EIGHT), jax.sharding.PartitionSpec("fsdp", "tensor"))
    params = {f"w{i}": jax.device_put(jnp.full((512, 512), i, jnp.float32), spread) for i in range(8)}
    leaf = params["w0"].nbytes
    checkpoint.weights_sha256({"w0": params["w0"]})
    tracemalloc.start()
    checkpoint.weights_sha256(params)
    left, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * leaf
    assert left < 0.5 * leaf


@pytest.mark.parametrize(("saved", "restored"), [(ONE, EIGHT), (EIGHT, ONE)])
def test_train_state_comes_back_on_another_number_of_devices_bit_for_bit(
    tmp_path: Path, saved: MeshConfig, restored: MeshConfig
) -> None:
    tx = rl.optimizer(OptimizerConfig(1e-2, warmup=1), 10)
    state = random_like(rl.init_state(placed(saved), tx))
    states = checkpoint.TrainCheckpoints(tmp_path)
    states.save(1, state)
    states.close()
    fresh = rl.init_state(placed(restored, seed=5), tx)
    again = checkpoint.TrainCheckpoints(tmp_path)
    step, found = again.restore(fresh)
    again.close()
    assert step == 1
    assert_same_bits(found, state)
    assert [x.sharding for x in jax.tree.leaves(found)] == [x.sharding for x in jax.tree.leaves(fresh)]
    gate = found.params["layers"][0]["gate"]
    assert len(gate.sharding.device_set) == restored.data * restored.fsdp * restored.tensor


@pytest.mark.parametrize(("saved", "restored"), [(ONE, EIGHT), (EIGHT, ONE)])
def test_weights_come_back_on_another_mesh(tmp_path: Path, saved: MeshConfig, restored: MeshConfig) -> None:
    params = placed(saved)
    checkpoint.save_params(tmp_path / "weights", params)
    found = checkpoint.load_params(tmp_path / "weights", MODEL, make_mesh(restored))
    assert_same_bits(found, params)


def test_folder_of_other_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no folder {tmp_path / 'none'}"):
        checkpoint.load_params(tmp_path / "none", MODEL, make_mesh(ONE))
    checkpoint.save_params(tmp_path / "other", {"a": jnp.zeros(3)})
    with pytest.raises(UserError, match=str(tmp_path / "other")):
        checkpoint.load_params(tmp_path / "other", MODEL, make_mesh(ONE))
