"""Tokens a second of an update beside what the machine allows: python -m tests.benchmarks.update

One JSON line. The floor is the products that the mathematics needs, one after the other, measured in the same run:
y = x w, x' = y w^T, w' = x^T y of each weight of a layer over the tokens of a microbatch, and of the unembedding over
its answer tokens; and at their rate 12 FLOP a layer, query width and token attended to. Softmax, norms, the optimizer
and whatever is made twice are not in it. Microbatches and logits are laid out as by a run.
"""

from __future__ import annotations

import argparse
import json
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_limit import rl
from rlvr_limit.distributed.compiled import keep_compiled
from rlvr_limit.models.decoder import Params, init_params
from rlvr_limit.models.log_probs import AnswerRows
from rlvr_limit.settings import OptimizerConfig
from tests.benchmarks.sampler import HALF, TINY, times

SHAPES = {"tiny": TINY, "half": HALF}


def matmuls(params: Params, tokens: int, answers: int, repeats: int) -> tuple[float, float]:
    """(FLOP, seconds) of the three products of every weight of the model; answers: tokens that have logits."""

    def three(tokens: int, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = jnp.full((tokens, w.shape[0]), 1e-3, w.dtype)
        y = x @ w
        return x.T @ y, jnp.sum(y @ w.T)

    def flat(name: str, w: jax.Array) -> jax.Array:
        return w.reshape(-1, w.shape[-1]) if name == "o" else w.reshape(w.shape[0], -1)

    def weights(tree: Params) -> list[tuple[int, jax.Array]]:
        named = [(name, w) for p in tree["layers"] for name, w in p.items() if w.ndim > 1 and "bias" not in name]
        head = tree["unembedding"] if "unembedding" in tree else tree["embedding"].T
        return [(answers, head), *((tokens, flat(name, w)) for name, w in named)]

    products = jax.jit(lambda tree: [three(rows, w) for rows, w in weights(tree)])
    flops = 6 * sum(rows * w.size for rows, w in weights(params))
    return flops, statistics.median(times(lambda: products(params), repeats))


def main() -> None:
    """Times the updates of one shape."""
    keep_compiled()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="half")
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--places", type=int, default=128)
    parser.add_argument("--microbatches", type=int, default=1)
    parser.add_argument("--remat", default="none")
    parser.add_argument("--kind", default="adafactor", help="the optimizer: see rlvr_limit/rl/optimizers.py")
    parser.add_argument("--repeats", type=int, default=3)
    a = parser.parse_args()
    c = SHAPES[a.shape]
    params = init_params(c, jax.random.key(0))

    rng = np.random.default_rng(0)
    # Two sequences a row, the first quarter of each a prompt of its own.
    long, shape = a.places // 2, (2 * a.rows, a.places // 2)
    rows = AnswerRows(
        rng.integers(c.vocab_size, size=shape).astype(np.int32), np.arange(long) >= long // 4 + np.zeros(shape)
    )
    weight = (rows.answer_BT / rows.answer_BT.sum() / a.microbatches).astype(np.float32)
    behaviour = np.full(shape, -np.log(c.vocab_size), np.float32)
    drawn = rl.PolicyBatch(rows, behaviour, rng.normal(size=shape).astype(np.float32), weight)
    (batch,) = rl.microbatches(drawn, a.rows, a.places)
    compute = rl.Compute(remat=a.remat).at_answers(c, [batch], 1)
    flops, seconds = matmuls(params, a.rows * a.places, int(rows.answer_BT.sum()), a.repeats)
    tx = rl.optimizer(OptimizerConfig(1e-6, kind=a.kind), 100)
    state, objective = rl.init_state(params, tx), rl.Objective(0.2, 0.2)
    del params

    def step() -> dict[str, jax.Array]:
        nonlocal state
        state, metrics = rl.train_step(state, c, tx, objective, [batch] * a.microbatches, compute)
        return metrics

    found = times(step, a.repeats)
    tokens, middle = a.microbatches * a.rows * a.places, statistics.median(found)
    attended = 12 * c.layers * c.heads * c.head_width * a.rows * a.places * (long + 1) / 2
    floor = a.microbatches * seconds * (flops + attended) / flops
    line = {
        **vars(a),
        "tokens": tokens,
        "tokens_per_s": round(tokens / middle, 1),
        "seconds": [round(x, 2) for x in found],
        "floor_gflop": round(a.microbatches * (flops + attended) / 1e9, 1),
        "matmul_gflops": round(flops / seconds / 1e9, 1),
        "share_of_floor": round(floor / middle, 3),
        "device": jax.devices()[0].device_kind,
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
