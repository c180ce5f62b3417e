"""Released weights in small: checkpoints of random weights, files of two benchmarks, and the command that compares."""

from __future__ import annotations

import json
from pathlib import Path

import jax

from rlvr_limit import checkpoint
from rlvr_limit.models.decoder import ModelConfig, init_params
from rlvr_limit.tokenizer import load_tokenizer
from tests.support.tokenizer_files import write_qwen2

ARMS = ("base", "rl")


QUESTIONS = {
    "math500": [{"problem": f"What is ${a} + {a}$?", "answer": str(2 * a), "unique_id": f"{a}"} for a in range(3)],
    "aime24": [{"id": 60 + a, "problem": f"Find ${a} \\cdot 10$.", "answer": f"{10 * a:03d}"} for a in range(2)],
}


def write_released(root: Path) -> Path:
    """Two checkpoints of random weights and the files of two benchmarks."""
    size = load_tokenizer(write_qwen2(root / "tokenizer")).vocab_size
    shape = ModelConfig(size, width=32, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=48, context=300)
    for seed, name in enumerate(ARMS):
        params = init_params(shape, jax.random.key(seed))
        checkpoint.export_hf(root / name, params, shape, root / "tokenizer")
    (root / "data").mkdir()
    for name, rows in QUESTIONS.items():
        (root / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def words(folders: Path, *overrides: str) -> list[str]:
    """The command line of a comparison in which paths, n and lengths differ from the config."""
    changed = [
        f"data_dir={folders / 'data'}",
        "benchmarks=('math500','aime24')",
        "allow_rows=('math500','aime24')",
        *(f"arms.{name}.weights={folders / name}" for name in ARMS),
        f"runs={folders / 'runs'}",
        "sampling.n=3",
        "sampling.n_of.aime24=4",
        "sampling.max_tokens=12",
        "score.tokens=1024",
        "engine.max_num_seqs=8",
        "engine.steps_per_call=6",
        "share_samples=False",
        *overrides,
    ]
    return ["main.py", "--config=configs/qwen7b_math.py", *(f"--config.{word}" for word in changed)]
