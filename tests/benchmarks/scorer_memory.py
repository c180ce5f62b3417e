"""What scoring long answers takes beside the weights: one JSON line a case.

    python -m tests.benchmarks.scorer_memory [--target cpu|h200] [--answers 4 64] [--run]

Answers of 4,096 tokens, each after a prompt of one token, under the shape of Qwen2.5-0.5B at a vocabulary of 152,064.
However many there are, they are scored in batches of as many tokens; the compiler says what the largest program holds
beside its weights. --run also scores the first of these cases on this machine's CPU with random weights and tokens, and
says by how much the process grew beyond what it held before. The h200 needs jax[cuda13] and no GPU.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_limit.distributed.mesh import sharding
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import ModelConfig, ParameterSpec, parameter_specs
from rlvr_limit.planning import compiling, programs, targets


def pairs_of(config: ModelConfig, answers: int, length: int) -> list[log_probs.Pair]:
    """Random pairs of a prompt of one token and an answer."""
    rng = random.Random(0)
    return [((1,), tuple(rng.randrange(config.vocab_size) for _ in range(length))) for _ in range(answers)]


def main() -> None:
    """Compiles every case, and runs the first where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--answers", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--tokens", type=int, default=4_096)
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--run", action="store_true")
    a = parser.parse_args()
    config = ModelConfig(152_064, 896, a.layers, 14, 2, 64, 4864, 1e6, tied_embedding=True, dtype=a.dtype)
    target = targets.find_target(a.target)
    mesh = programs.make_mesh(programs.MeshConfig(), compiling.devices_of(target)[:1])
    params = programs.abstract_params(config, mesh)
    for answers in a.answers:
        most, batches = 0, 0
        seen = set()
        for _, rows in log_probs.prefix_batches(pairs_of(config, answers, a.length), a.tokens, 1):
            batches += 1
            packed = log_probs.packed_positions(config, rows.answer_BT, 1)
            key = packed, *(x.shape for x in rows)
            if key in seen:
                continue
            seen.add(key)
            placed = programs.placed(rows, sharding(mesh, (1,), (None,)))
            traced = log_probs.score_prefix_batch.trace(params, config, placed, packed)
            memory = traced.lower(lowering_platforms=(target.platform,)).compile().memory_analysis()
            weights = programs.device_bytes(params)
            held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
            most = max(most, held + memory.temp_size_in_bytes - weights)
        line = {"answers": answers, "length": a.length, "dtype": a.dtype, "target": a.target, "layers": a.layers}
        print(json.dumps(line | {"batches": batches, "beyond_weights_gb": round(most / 1e9, 3)}), flush=True)
    if a.run:
        measured(config, a.answers[0], a.length, a.tokens)


def measured(config: ModelConfig, answers: int, length: int, tokens: int) -> None:
    """Scores for real; compiling is in the peak too."""
    rng = np.random.default_rng(0)

    def leaf(spec: ParameterSpec) -> jax.Array:
        if spec.std is None:
            return jnp.ones(spec.shape, config.dtype)
        return jnp.asarray(rng.standard_normal(spec.shape, np.float32) * np.float32(spec.std), config.dtype)

    specs = parameter_specs(config)
    params = jax.block_until_ready(jax.tree.map(leaf, specs, is_leaf=lambda x: isinstance(x, ParameterSpec)))
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    start = time.perf_counter()
    found = log_probs.score_pairs(params, config, pairs_of(config, answers, length), tokens)
    peak = resident("VmHWM")
    line = {"ran": answers, "length": length, "seconds": round(time.perf_counter() - start, 1)}
    line["mean_logp"] = round(float(np.mean([s.logp for s in found])), 4)
    print(json.dumps(line | {"peak_beyond_weights_gb": round((peak - before) / 1e9, 3)}), flush=True)


def resident(field: str) -> int:
    """Bytes of this process in memory, now (VmRSS) or at most since they were last cleared (VmHWM); Linux."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


if __name__ == "__main__":
    main()
