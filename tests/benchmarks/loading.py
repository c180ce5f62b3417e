"""How much memory does loading a checkpoint take, beside the checkpoint itself?

    nice -n 19 python -m tests.benchmarks.loading

makes a random checkpoint of about 1 GB in 4 shards, loads it in a fresh process on the CPU, where host and device are
one, and prints the peak of resident memory over what was resident before, against size + largest tensor.
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
    """Writes config.json and 4 shards of random bfloat16 (or float32) weights; one tensor at a time is held."""
    import jax.numpy as jnp
    import numpy as np

    from rlvr_limit.checkpoint import huggingface, read_model_config, tensors

    (folder / "config.json").write_text(json.dumps(MODEL))
    places, _ = huggingface.places_of(read_model_config(folder, dtype))
    drafts = [tensors.Draft(place.name, jnp.dtype(dtype), place.file_shape) for place in places]
    total = sum(math.prod(draft.shape) for draft in drafts)
    files: list[tuple[str, list[tensors.Draft]]] = []
    done = 0
    for draft in drafts:
        shard = done * SHARDS // total
        if shard == len(files):
            files.append((f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors", []))
        files[-1][1].append(draft)
        done += math.prod(draft.shape)
    rng = np.random.default_rng(0)

    def values(draft: tensors.Draft) -> np.ndarray:
        return rng.standard_normal(draft.shape, np.float32).astype(draft.dtype)

    for file, part in files:
        tensors.write_file(folder / file, part, values)
    tensors.write_index(folder, files)


def resident(field: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (peak) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def load(folder: Path, dtype: str) -> dict[str, float]:
    """Loads a folder in this process; bytes and seconds."""
    import jax
    import jax.numpy as jnp

    from rlvr_limit.checkpoint import load_hf, read_model_config
    from rlvr_limit.distributed.mesh import MeshConfig, make_mesh

    config, mesh = read_model_config(folder, dtype), make_mesh(MeshConfig())
    jax.block_until_ready(jnp.zeros(8) + 1)
    Path("/proc/self/clear_refs").write_text("5")
    before, start = resident("VmRSS"), time.monotonic()
    params = load_hf(folder, config, mesh)
    seconds, peak = time.monotonic() - start, resident("VmHWM")
    sizes = [x.nbytes for x in jax.tree.leaves(params)]
    return {"size": sum(sizes), "largest": max(sizes), "increase": peak - before, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        print(json.dumps(load(Path(args.folder), args.dtype)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), args.dtype)
        command = [sys.executable, "-m", "tests.benchmarks.loading", "--folder", folder, "--dtype", args.dtype]
        env = {**os.environ, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout)
    allowed = found["size"] + found["largest"]
    print(f"checkpoint       {found['size'] / 1e6:8.1f} MB in {SHARDS} shards, {args.dtype}")
    print(f"largest tensor   {found['largest'] / 1e6:8.1f} MB")
    print(f"peak increase    {found['increase'] / 1e6:8.1f} MB of resident memory, in {found['seconds']:.1f} s")
    print(f"allowed          {allowed / 1e6:8.1f} MB; {'kept' if found['increase'] <= allowed else 'EXCEEDED'}")


if __name__ == "__main__":
    main()
