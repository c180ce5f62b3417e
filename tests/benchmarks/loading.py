"""How much memory does loading a checkpoint take, beside the checkpoint itself?

    nice -n 19 python -m tests.benchmarks.loading

makes a random checkpoint of about 1 GB in 4 shards, loads it in a fresh process on the CPU, where host and device are
one, and prints the peak of resident memory over what was resident before, against size + largest tensor: onto one
device, and onto a mesh of eight virtual ones.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MODEL = {
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "max_position_embeddings": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 20,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "tie_word_embeddings": False,
    "vocab_size": 96_000,
}
SHARDS = 4
ROOT = Path(__file__).resolve().parents[2]


def make(folder: Path, dtype: str) -> None:
    """Writes config.json and 4 shards of random bfloat16 (or float32) weights."""
    import jax.numpy as jnp
    import numpy as np

    from rlvr_limit.checkpoint import huggingface, read_model_config, tensors

    (folder / "config.json").write_text(json.dumps(MODEL))
    layouts, _ = huggingface.file_layouts(read_model_config(folder, dtype))
    shapes = {layout.name: layout.file_shape for layout in layouts}
    sizes = {name: math.prod(shape) * jnp.dtype(dtype).itemsize for name, shape in shapes.items()}
    # A little more than a quarter: a tensor that does not fit begins the next file.
    tensors.SHARD = int(1.05 * sum(sizes.values()) / SHARDS)
    rng = np.random.default_rng(0)
    tensors.write_tensors(folder, sizes, lambda name: rng.standard_normal(shapes[name], np.float32).astype(dtype))


def resident(field: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (peak) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def load(folder: Path, dtype: str, mesh: tuple[int, int]) -> dict[str, float]:
    """Loads a folder in this process onto a mesh of (fsdp, tensor) devices; bytes and seconds."""
    import jax
    import jax.numpy as jnp

    from rlvr_limit.checkpoint import load_hf, read_model_config
    from rlvr_limit.distributed.mesh import make_mesh
    from rlvr_limit.settings import MeshConfig

    config, devices = read_model_config(folder, dtype), make_mesh(MeshConfig(fsdp=mesh[0], tensor=mesh[1]))
    jax.block_until_ready(jnp.zeros(8) + 1)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = resident("VmRSS"), time.monotonic()
    params = load_hf(folder, config, devices)
    seconds, peak = time.monotonic() - start, resident("VmHWM")
    arrays = jax.tree.leaves(params)
    # What every device has a copy of, such as a norm's weights, counts on each.
    size = sum(shard.data.nbytes for x in arrays for shard in x.addressable_shards)
    return {"size": size, "largest": max(x.nbytes for x in arrays), "increase": peak - before, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--mesh", nargs=2, type=int, default=(1, 1), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        print(json.dumps(load(Path(args.folder), args.dtype, tuple(args.mesh))))
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), args.dtype)
        for mesh in ((1, 1), (2, 4)):
            command = [sys.executable, "-m", "tests.benchmarks.loading", "--folder", folder, "--dtype", args.dtype]
            command += ["--mesh", *map(str, mesh)]
            flags = f"--xla_force_host_platform_device_count={math.prod(mesh)}"
            env = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
            done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True)
            report(math.prod(mesh), args.dtype, json.loads(done.stdout))


def report(devices: int, dtype: str, found: dict[str, float]) -> None:
    allowed = found["size"] + found["largest"]
    print(f"devices          {devices:8}")
    print(f"checkpoint       {found['size'] / 1e6:8.1f} MB in {SHARDS} shards, {dtype}")
    print(f"largest tensor   {found['largest'] / 1e6:8.1f} MB")
    print(f"peak increase    {found['increase'] / 1e6:8.1f} MB of resident memory, in {found['seconds']:.1f} s")
    print(f"allowed          {allowed / 1e6:8.1f} MB; {'kept' if found['increase'] <= allowed else 'EXCEEDED'}")


if __name__ == "__main__":
    main()
