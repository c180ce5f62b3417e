"""How fast are answers scored, beside what the machine's matrix products allow? One JSON line a workload.

    python -m tests.benchmarks.scorer [long shared] --shape half [--model DIR] [--pairs FILE.json] [--repeats 3]

long: 8 sequences of 384 tokens, of which all but the first are scored. shared: 64 answers of 128 tokens to 2 prompts of
256, each prompt once, and beside it in turns each whole sequence by itself. Weights and tokens are random, or weights
are those of a Hugging Face folder. The floor is the time of the program's own matrix products, one after the other,
measured after each turn: every layer's for all tokens, and the unembedding's for those that are scored, as many rows at
a time as the program has. Attention, softmax and norms are not in it. sum_logprob is for comparing with others.
FILE.json holds real answers, as tests.benchmarks.real_prompts keeps them: they are scored in turns with transformers
(the extra `parity`), which goes over eight whole sequences of about one length at a time.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp

from rlvr_limit import checkpoint
from rlvr_limit.distributed.compiled import keep_compiled
from rlvr_limit.distributed.mesh import make_mesh
from rlvr_limit.models import log_probs
from rlvr_limit.models.decoder import ModelConfig, Params, for_inference, init_params, matmul_precision
from rlvr_limit.models.log_probs import Pair, TokenScores
from rlvr_limit.settings import MeshConfig
from tests.benchmarks.sampler import HALF, TINY

SHAPES = {"tiny": TINY, "half": HALF}
HEAD_ROWS = 512


def drawn(vocab: int, count: int, length: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Sequences of random tokens."""
    rng = random.Random(seed)
    return [tuple(rng.randrange(10, vocab) for _ in range(length)) for _ in range(count)]


def whole(pairs: Sequence[Pair]) -> list[Pair]:
    """The same sequences, scored from their second token on."""
    return [((prompt[0],), (*prompt[1:], *answer)) for prompt, answer in pairs]


def timed(f: Callable, *args: object) -> tuple[float, object]:
    """(seconds, result)."""
    start = time.perf_counter()
    found = jax.block_until_ready(f(*args))
    return time.perf_counter() - start, found


@jax.jit
def layers_chain(x: jax.Array, params: Params) -> jax.Array:
    """A layer's seven products after each other, over all layers."""
    with matmul_precision(x.dtype):
        for p in params["layers"]:
            d = x.shape[1]
            mixed = x @ p["q"].reshape(d, -1)
            for name in "kv":
                mixed = mixed + jnp.sum(x @ p[name].reshape(d, -1), axis=1, keepdims=True)
            x = x + mixed @ p["o"].reshape(-1, d)
            x = x + ((x @ p["gate"]) * (x @ p["up"])) @ p["down"]
    return x


@jax.jit
def head_product(x: jax.Array, params: Params) -> jax.Array:
    """The unembedding's product, reduced so that nothing else is kept."""
    weights = params["unembedding"] if "unembedding" in params else params["embedding"].T
    with matmul_precision(x.dtype):
        return jnp.max(x @ weights, axis=1)


def run(name: str, label: str, c: ModelConfig, params: Params, repeats: int) -> dict:
    """One workload's line."""
    if name == "long":
        pairs, scored, computed = whole([(s[:1], s[1:]) for s in drawn(c.vocab_size, 8, 384)]), 8 * 384, 8 * 384
    else:
        prompts, answers = drawn(c.vocab_size, 2, 256), drawn(c.vocab_size, 64, 128, seed=1)
        pairs = [(prompts[i // 32], answer) for i, answer in enumerate(answers)]
        scored, computed = 64 * 128, 64 * 128 + 2 * 256
    rows, few = jnp.full((computed, c.width), 1e-3, c.dtype), jnp.full((HEAD_ROWS, c.width), 1e-3, c.dtype)
    others = whole(pairs) if name == "shared" else None
    found: list[TokenScores] = []
    seconds, floors, beside = [], [], []
    laid = for_inference(params)
    for turn in range(repeats + 1):
        took, found = timed(log_probs.score_pairs, laid, c, pairs)
        floor = timed(layers_chain, rows, params)[0] + timed(head_product, few, params)[0] * scored / HEAD_ROWS
        longer = timed(log_probs.score_pairs, laid, c, others)[0] if others else 0.0
        if turn:
            seconds.append(took)
            floors.append(floor)
            beside.append(longer)
    middle = statistics.median(seconds)
    head = c.vocab_size * c.width
    per_layer = sum(w.size for p in params["layers"] for w in p.values() if w.ndim > 1)
    line = {
        "workload": name,
        "model": label,
        "dtype": c.dtype,
        "scored_tokens": scored,
        "sequence_tokens_per_s": round(8 * 384 / middle if name == "long" else 64 * 384 / middle, 1),
        "scored_tokens_per_s": round(scored / middle, 1),
        "seconds": [round(x, 3) for x in seconds],
        "floor_seconds": [round(x, 3) for x in floors],
        "matmul_gflops": round(2 * (per_layer * computed + head * scored) / statistics.median(floors) / 1e9, 1),
        "share_of_floor": round(statistics.median(f / s for f, s in zip(floors, seconds, strict=True)), 3),
        "sum_logprob": round(sum(sum(s.logp) for s in found), 3),
        "device": jax.devices()[0].device_kind,
    }
    if others:
        times = statistics.median(b / s for b, s in zip(beside, seconds, strict=True))
        line |= {"seconds_whole": [round(x, 3) for x in beside], "times_as_fast_as_whole": round(times, 2)}
    return line


def transformers_scorer(folder: Path, dtype: str) -> Callable[[Sequence[Pair]], list[float]]:
    """The same by transformers: the sum of each answer's log-probs, longest first."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa").eval()

    @torch.inference_mode()
    def score(pairs: Sequence[Pair]) -> list[float]:
        found = []
        ordered = sorted(pairs, key=lambda pair: -len(pair[0]) - len(pair[1]))
        for at in range(0, len(ordered), 8):
            part = ordered[at : at + 8]
            whole_rows = [torch.tensor([*prompt, *answer]) for prompt, answer in part]
            ids = torch.nn.utils.rnn.pad_sequence(whole_rows, batch_first=True)
            logits = model(ids, use_cache=False).logits
            for row, (prompt, answer) in zip(logits, part, strict=True):
                mine = row[len(prompt) - 1 : len(prompt) + len(answer) - 1].float().log_softmax(-1)
                found.append(float(mine.gather(1, torch.tensor(answer)[:, None]).double().sum()))
        return found

    return score


def beside_transformers(folder: Path, c: ModelConfig, params: Params, pairs: list[Pair], repeats: int) -> dict:
    """Both sides in turns, the first turn left out."""
    theirs, seconds = transformers_scorer(folder, c.dtype), []
    params = for_inference(params, donate=True)
    for _ in range(repeats + 1):
        mine, scores = timed(log_probs.score_pairs, params, c, pairs)
        other, sums = timed(theirs, pairs)
        seconds.append((mine, other))
    answers = sum(len(answer) for _, answer in pairs)
    middle, their_middle = (statistics.median(side) for side in zip(*seconds[1:], strict=True))
    return {
        "workload": "real",
        "model": folder.name,
        "dtype": c.dtype,
        "answers": len(pairs),
        "scored_tokens": answers,
        "scored_tokens_per_s": round(answers / middle, 1),
        "transformers_tokens_per_s": round(answers / their_middle, 1),
        "times_as_fast": round(statistics.median(other / mine for mine, other in seconds[1:]), 2),
        "seconds": [round(mine, 2) for mine, _ in seconds[1:]],
        "their_seconds": [round(other, 2) for _, other in seconds[1:]],
        "sum_logprob": round(sum(sum(logp) for logp, _ in scores), 2),
        "their_sum_logprob": round(sum(sums), 2),
    }


def main() -> None:
    """Runs the workloads named on the command line, or both."""
    keep_compiled()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workloads", nargs="*", choices=["long", "shared", []], default=[])
    parser.add_argument("--shape", choices=SHAPES, default="half")
    parser.add_argument("--model", type=Path, help="a Hugging Face folder instead of random weights")
    parser.add_argument("--pairs", type=Path, help="[[prompt tokens, answer tokens], ...], with --model")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    a = parser.parse_args()
    if a.model:
        c = checkpoint.read_model_config(a.model, a.dtype)
        params = checkpoint.load_hf(a.model, c, make_mesh(MeshConfig()))
    else:
        c = ModelConfig(**{**vars(SHAPES[a.shape]), "dtype": a.dtype})
        params = init_params(c, jax.random.key(0))
    if a.pairs:
        pairs = [(tuple(prompt), tuple(answer)) for prompt, answer in json.loads(a.pairs.read_text())]
        print(json.dumps(beside_transformers(a.model, c, params, pairs, a.repeats)), flush=True)
        return
    for name in a.workloads or ("long", "shared"):
        print(json.dumps(run(name, a.model.name if a.model else a.shape, c, params, a.repeats)), flush=True)


if __name__ == "__main__":
    main()
