"""Log-probs and greedy tokens of real weights against transformers, both in float32.

    python -m tests.benchmarks.real_weights MODEL TEXTS.json [--prompt-chars 400] [--new-tokens 48] [--python PYTHON]

MODEL is a Hugging Face folder, TEXTS.json a list of real texts. Of each text the beginning is a prompt, which is
answered greedily; the whole text, and the answers, are scored. Then transformers, run by PYTHON (of any environment
with torch and transformers; this one where it is not given), scores the same tokens in a process of its own, as both
models together may not fit in memory. Exit code 1 unless the median of |delta logp| is at most 1e-5, the 99th
percentile at most 1e-3, and every token that is not transformers' likeliest one is within 1e-3 of it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MEDIAN, P99, TIE = 1e-5, 1e-3, 1e-3


def ours(model: Path, texts: list[str], prompt_chars: int, new_tokens: int) -> list[dict[str, Any]]:
    """Of each text its ids and log-probs behind the first token, the prompt's ids, the answer and its log-probs."""
    from rlvr_limit import checkpoint
    from rlvr_limit.distributed.mesh import make_mesh
    from rlvr_limit.engine.engine import Engine
    from rlvr_limit.engine.requests import Request, prompt_key
    from rlvr_limit.models.log_probs import score_pairs
    from rlvr_limit.settings import EngineConfig, MeshConfig
    from rlvr_limit.tokenizer import load_tokenizer
    from rlvr_limit.types import SamplingParams

    config, mesh, words = checkpoint.read_model_config(model, "float32"), make_mesh(MeshConfig()), load_tokenizer(model)
    params = checkpoint.load_hf(model, config, mesh)
    whole = [words.encode(text) for text in texts]
    prompts = [words.encode(text[:prompt_chars]) for text in texts]
    shapes = EngineConfig(
        max_num_seqs=min(32, len(texts)), steps_per_call=16, page_size=32, max_prompt_len=max(map(len, prompts))
    )
    engine = Engine(params, config, shapes, new_tokens)
    greedy = SamplingParams(0.0, 1.0, max_tokens=new_tokens, stop_tokens=checkpoint.stop_tokens(model))
    asked = [
        Request(str(i), ids, prompt_key(0, "real weights", str(i)), range(1), greedy) for i, ids in enumerate(prompts)
    ]
    drawn = {int(sample.problem_id): sample for sample in engine.generate(asked)}
    del engine
    pairs = [(ids[:1], ids[1:]) for ids in whole]
    pairs += [(prompts[i], drawn[i].tokens) for i in range(len(texts))]
    scored = score_pairs(params, config, pairs, tokens=2048)
    return [
        {
            "ids": whole[i],
            "logp": scored[i].logp,
            "prompt": prompts[i],
            "answer": drawn[i].tokens,
            "sampled": drawn[i].logp_model,
            "scored": scored[len(texts) + i].logp,
        }
        for i in range(len(texts))
    ]


def theirs(model: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Log-probs of the same tokens, and how far below the likeliest token's logit each token of an answer is."""
    import torch
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()

    def at_answer(prompt: list[int], answer: list[int]) -> tuple[Any, Any]:
        with torch.no_grad():
            logits = net(torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
        return chosen - torch.logsumexp(logits, 1), logits.max(1).values - chosen

    found = []
    for row in rows:
        logp, _ = at_answer(row["ids"][:1], row["ids"][1:])
        answered, below = at_answer(row["prompt"], row["answer"])
        found.append({"logp": logp.tolist(), "answered": answered.tolist(), "below": below.tolist()})
    return found


def compared(mine: list[dict[str, Any]], other: list[dict[str, Any]]) -> dict[str, Any]:
    """What is printed."""
    import numpy as np

    def delta(name: str, against: str) -> np.ndarray:
        return np.concatenate([np.subtract(a[name], b[against]) for a, b in zip(mine, other, strict=True)])

    deltas = {
        "text": delta("logp", "logp"),
        "answers, scorer": delta("scored", "answered"),
        "answers, sampler": delta("sampled", "answered"),
    }
    below = np.concatenate([row["below"] for row in other])
    line: dict[str, Any] = {"texts": len(mine)}
    for name, x in deltas.items():
        median, p99 = np.quantile(np.abs(x), (0.5, 0.99))
        line[name] = {"tokens": len(x), "median": float(median), "p99": float(p99), "max": float(np.abs(x).max())}
    line["greedy"] = {"tokens": len(below), "not_likeliest": int((below > 0).sum()), "largest_gap": float(below.max())}
    within = all(line[name]["median"] <= MEDIAN and line[name]["p99"] <= P99 for name in deltas)
    line["passes"] = bool(within and below.max() <= TIE)
    return line


def main() -> int:
    """Prints one line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--prompt-chars", type=int, default=400)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--stage", choices=["", "ours", "theirs"], default="", help="one half: ROWS.json follows")
    parser.add_argument("rows", type=Path, nargs="?")
    a = parser.parse_args()
    if a.stage == "ours":
        found = ours(a.model, json.loads(a.texts.read_text()), a.prompt_chars, a.new_tokens)
    elif a.stage == "theirs":
        found = theirs(a.model, json.loads(a.texts.read_text()))
    if a.stage:
        a.rows.write_text(json.dumps(found))
        return 0
    start = time.perf_counter()
    options = [f"--prompt-chars={a.prompt_chars}", f"--new-tokens={a.new_tokens}"]
    with tempfile.TemporaryDirectory() as scratch:
        mine, other = Path(scratch) / "ours.json", Path(scratch) / "theirs.json"
        module = [sys.executable, "-m", "tests.benchmarks.real_weights"]
        subprocess.run([*module, a.model, a.texts, mine, "--stage=ours", *options], check=True)
        subprocess.run([a.python, __file__, a.model, mine, other, "--stage=theirs"], check=True)
        line = compared(*(json.loads(path.read_text()) for path in (mine, other)))
    print(json.dumps({"model": a.model.name, **line, "seconds": round(time.perf_counter() - start)}), flush=True)
    return 0 if line["passes"] else 1


if __name__ == "__main__":
    sys.exit(main())
