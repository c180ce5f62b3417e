"""What an update takes beside weights, gradient and optimizer, as compilers plan it: one JSON line a program.

    python -m tests.benchmarks.update_memory [--target cpu|h200] [--layers 24] [--places 4096] [--remat layers]

A microbatch of the shape of Qwen2.5-0.5B at a vocabulary of 152,064, float32 weights and products in bfloat16, is added
to a gradient, as often as one likes; then comes the step along it. No array is made. For a CPU, programs are compiled
with the schedule that takes least memory: the one that XLA:CPU runs by default starts whatever is ready, and so makes
layers again long before their backward pass. The h200 needs jax[cuda13] and no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rlvr_limit import rl
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.models.log_probs import AnswerRows
from rlvr_limit.planning import compiling, targets
from rlvr_limit.planning.updates import abstract_state
from rlvr_limit.rl import update as updates
from rlvr_limit.settings import OptimizerConfig

LEAST_MEMORY = "--xla_cpu_enable_concurrency_optimized_scheduler=false"


def report(name: str, traced: Any, platform: str, known: int) -> None:
    """Prints what the program holds beyond `known` bytes, which are weights, gradient and optimizer."""
    began = time.monotonic()
    compiled = traced.lower(lowering_platforms=(platform,)).compile()
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    gigabytes = {"known": known, "held": held, "temporary": memory.temp_size_in_bytes}
    gigabytes["beyond"] = held + memory.temp_size_in_bytes - known
    line = {"program": name, "platform": platform, "compile_s": round(time.monotonic() - began, 1)}
    print(json.dumps(line | {f"{key}_gb": round(value / 1e9, 3) for key, value in gigabytes.items()}), flush=True)


def main() -> None:
    """Compiles both programs of an update."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--places", type=int, default=4096)
    parser.add_argument("--remat", default="layers")
    parser.add_argument("--kind", default="adamw", help="the optimizer: see rlvr_limit/rl/optimizers.py")
    a = parser.parse_args()
    # Read once, when the CPU's compiler starts.
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {LEAST_MEMORY}".strip()
    config = ModelConfig(152_064, 896, a.layers, 14, 2, 64, 4864, 1e6, tied_embedding=True, dtype="bfloat16")
    target = targets.find_target(a.target)
    mesh = Mesh(np.array(compiling.devices_of(target)[:1]).reshape(1, 1, 1), ("data", "fsdp", "tensor"))
    everywhere = NamedSharding(mesh, PartitionSpec())

    def of(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=everywhere)

    tx = rl.optimizer(OptimizerConfig(1e-6, kind=a.kind), 100)
    state = abstract_state(config, mesh, tx, "float32", None)
    shape = (1, a.places)
    rows = AnswerRows(of(shape, jnp.int32), of(shape, bool), *[of(shape, jnp.int32)] * 3)
    batch = rl.PolicyBatch(rows, *[of(shape, jnp.float32)] * 3)
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.params))
    moments = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state.opt_state))
    objective, compute = rl.Objective(0.2, 0.2), rl.Compute(remat=a.remat)
    sums = rl.shape_of_sums(state.params, objective, mesh)
    traced = updates.accumulate.trace(state.params, config, objective, compute, batch, sums)
    # The optimizer's moments lie beside this program, which is not given them.
    report(f"gradient of 1 x {a.places}", traced, target.platform, 2 * size)
    report("step", updates.apply.trace(state, config, tx, sums), target.platform, 2 * size + moments)


if __name__ == "__main__":
    main()
