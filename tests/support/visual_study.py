"""Released weights that see, in small: two checkpoints of random weights, rows of MathVista, and the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax

from rlvr_limit import checkpoint
from rlvr_limit.checkpoint.architecture import model_config_json
from rlvr_limit.models.decoder import ModelConfig, init_params
from rlvr_limit.models.image_layout import VisionConfig
from rlvr_limit.tasks.pictures import END, PAD, START
from rlvr_limit.tokenizer import load_tokenizer
from tests.support.image_files import drawn_file
from tests.support.tokenizer_files import write_qwen2

QUESTION = "How many squares are there?"


def write_visual(root: Path, with_weights: bool = True) -> Path:
    """root/base and root/rl, and root/data/mathvista: one question of three images, and one of multiple choice."""
    tokenizer = write_qwen2(root / "tokenizer")
    path = tokenizer / "tokenizer_config.json"
    config = json.loads(path.read_text())
    first = max(map(int, config["added_tokens_decoder"])) + 1
    for i, mark in enumerate((START, PAD, END), first):
        config["added_tokens_decoder"][str(i)] = config["added_tokens_decoder"][str(first - 3)] | {"content": mark}
    path.write_text(json.dumps(config))
    words = load_tokenizer(tokenizer)
    (tokenizer / "preprocessor_config.json").write_text(json.dumps({"min_pixels": 784, "max_pixels": 6272}))
    vision = VisionConfig(16, 2, 2, 24, (1,), words.token_id(PAD), (1, 1, 2))
    sizes = {"width": 32, "layers": 2, "heads": 4, "kv_heads": 2, "head_width": 8, "ffn_width": 48, "context": 600}
    shape = ModelConfig(words.vocab_size, **sizes, vision=vision)
    for seed, name in enumerate(("base", "rl")):
        if with_weights:
            checkpoint.export_hf(root / name, init_params(shape, jax.random.key(seed)), shape, tokenizer)
            continue
        shutil.copytree(tokenizer, root / name)
        (root / name / "config.json").write_text(json.dumps(model_config_json(shape, {})))
    folder = root / "data" / "mathvista"
    (folder / "images").mkdir(parents=True)
    rows = {}
    for i in range(4):
        (folder / "images" / f"{i}.png").write_bytes(drawn_file(60, 80, seed=i))
        rows[str(i)] = {"pid": str(i), "question": QUESTION, "image": f"images/{i}.png", "answer": str(i)}
        rows[str(i)] |= {"choices": ["0", "3"] if i == 3 else None}
    (folder / "testmini.json").write_text(json.dumps(rows))
    return root


def words_of(root: Path, *overrides: str) -> list[str]:
    """The command line of configs/released/qwen_vl7b_visual.py on these."""
    changed = [
        f"data_dir={root / 'data'}", "benchmarks=('mathvista',)", "allow_rows=('mathvista',)", f"runs={root / 'runs'}",
        f"arms.base.weights={root / 'base'}", f"arms.rl.weights={root / 'rl'}", "dtype=float32", "sampling.n=4",
        "sampling.max_tokens=8", "score.tokens=1024", "engine.max_num_seqs=8", "engine.steps_per_call=4",
        "report.k=4", "share_samples=False", *overrides,
    ]  # fmt: skip
    return ["--config=configs/qwen_vl7b_visual.py", *(f"--config.{word}" for word in changed)]
