"""Tokens a second of an update beside what the machine allows: python -m tests.benchmarks.update

One JSON line. The floor is 6 FLOP a parameter and token, and 12 a layer, query width and token attended to, at the rate
of the update's own matrix products, one after the other, measured in the same run: y = x w, x' = y w^T, w' = x^T y of
each weight, over the rows of a microbatch. Softmax, norms, the optimizer and whatever is made twice are not in it.
"""

from __future__ import annotations

import argparse
import json
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_limit import rl
from rlvr_limit.likelihood import Rows
from rlvr_limit.model import Params, init_params, parameter_count
from tests.benchmarks.sampler import HALF, TINY, times

SHAPES = {"tiny": TINY, "half": HALF}


def matmul_rate(params: Params, tokens: int, repeats: int) -> float:
    """FLOP a second of the three products of every weight of the model."""

    def three(w: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = jnp.full((tokens, w.shape[0]), 1e-3, w.dtype)
        y = x @ w
        return x.T @ y, jnp.sum(y @ w.T)

    def flat(name: str, w: jax.Array) -> jax.Array:
        return w.reshape(-1, w.shape[-1]) if name == "o" else w.reshape(w.shape[0], -1)

    def weights(tree: Params) -> list[jax.Array]:
        named = [(name, w) for p in tree["layers"] for name, w in p.items() if w.ndim > 1 and "bias" not in name]
        head = tree["unembedding"] if "unembedding" in tree else tree["embedding"].T
        return [head, *(flat(name, w) for name, w in named)]

    products = jax.jit(lambda tree: [three(w) for w in weights(tree)])
    flops = 6 * tokens * sum(w.size for w in jax.eval_shape(weights, params))
    return flops / statistics.median(times(lambda: products(params), repeats))


def main() -> None:
    """Times the updates of one shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="half")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--places", type=int, default=128)
    parser.add_argument("--microbatches", type=int, default=1)
    parser.add_argument("--remat", default="none")
    parser.add_argument("--kind", default="adafactor", help="the optimizer: see rlvr_limit/rl/optimizers.py")
    parser.add_argument("--repeats", type=int, default=3)
    a = parser.parse_args()
    c, shape = SHAPES[a.shape], (a.rows, a.places)
    params = init_params(c, jax.random.key(0))
    rate = matmul_rate(params, a.rows * a.places, a.repeats)

    rng = np.random.default_rng(0)
    # Two sequences a row, the first quarter of each a prompt.
    position = np.broadcast_to(np.arange(a.places) % (a.places // 2), shape).astype(np.int32)
    segment = np.broadcast_to(1 + np.arange(a.places) // (a.places // 2), shape).astype(np.int32)
    rows = Rows(rng.integers(c.vocab_size, size=shape).astype(np.int32), position >= a.places // 8, segment, position)
    weight = (rows.answer_BT / rows.answer_BT.sum() / a.microbatches).astype(np.float32)
    behaviour = np.full(shape, -np.log(c.vocab_size), np.float32)
    batch = rl.PolicyBatch(rows, behaviour, rng.normal(size=shape).astype(np.float32), weight)
    tx = rl.optimizer(rl.OptimizerConfig(1e-6, kind=a.kind), 100)
    state, objective, compute = rl.init_state(params, tx), rl.Objective(0.2, 0.2), rl.Compute(remat=a.remat)
    del params

    def step() -> dict[str, jax.Array]:
        nonlocal state
        state, metrics = rl.accumulated_update(state, c, tx, objective, [batch] * a.microbatches, compute)
        return metrics

    found = times(step, a.repeats)
    tokens, middle = a.microbatches * a.rows * a.places, statistics.median(found)
    attended = 12 * c.layers * c.heads * c.head_width * (a.places / 2 + 1) / 2
    floor = tokens * (6 * parameter_count(c) + attended) / rate
    line = {
        **vars(a),
        "tokens": tokens,
        "tokens_per_s": round(tokens / middle, 1),
        "seconds": [round(x, 2) for x in found],
        "matmul_gflops": round(rate / 1e9, 1),
        "share_of_floor": round(floor / middle, 3),
        "device": jax.devices()[0].device_kind,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
