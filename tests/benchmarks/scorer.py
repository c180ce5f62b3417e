"""How fast are stored answers scored? One line of JSON: answer tokens and row tokens a second, and the answers' share.

    nice -n 10 python -m tests.benchmarks.scorer --vocab 152064 --width 64 --places 256 --answer 24

Weights and tokens are random; the program is compiled before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import time

import jax
import numpy as np

from rlvr_limit import likelihood
from rlvr_limit.model import ModelConfig, init_params


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    sizes = {"vocab": 152_064, "width": 64, "layers": 2, "heads": 4, "kv-heads": 2, "head-width": 16, "ffn": 128}
    for name, default in (sizes | {"rows": 64, "places": 256, "answer": 24, "batches": 2}).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--dtype", default="bfloat16")
    a = parser.parse_args()
    config = ModelConfig(a.vocab, a.width, a.layers, a.heads, a.kv_heads, a.head_width, a.ffn, dtype=a.dtype)
    params = init_params(config, jax.random.key(0))
    draw = np.random.default_rng(0).integers(a.vocab, size=(a.rows, a.places)).tolist()
    pairs = [(row[: a.places - a.answer], row[a.places - a.answer :]) for row in draw]
    sum(1 for _ in likelihood.score(params, config, pairs, a.places, a.rows))
    began = time.perf_counter()
    sum(1 for _ in likelihood.score(params, config, pairs * a.batches, a.places, a.rows))
    seconds = (time.perf_counter() - began) / a.batches
    found = {
        "device": jax.devices()[0].device_kind,
        **vars(a),
        "answer_tokens_per_second": round(a.rows * a.answer / seconds, 1),
        "row_tokens_per_second": round(a.rows * a.places / seconds, 1),
        "seconds_a_batch": round(seconds, 4),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
