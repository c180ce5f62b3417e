"""A run on one's own problems: verdicts given beside sampling, graded again by another grader on request only."""

import json
import re
from collections import Counter

import jax
import pytest

from rlvr_limit import checkpoint, records
from rlvr_limit.models.decoder import ModelConfig, init_params
from rlvr_limit.tokenizer import load_tokenizer
from tests.support.smoke import run_here
from tests.support.tokenizer_files import write_qwen2


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    root = tmp_path_factory.mktemp("own")
    size = load_tokenizer(write_qwen2(root / "tokenizer")).vocab_size
    shape = ModelConfig(size, width=32, layers=2, heads=4, kv_heads=2, head_width=8, ffn_width=48, context=300)
    for seed, name in enumerate(("base", "rl")):
        checkpoint.export_hf(root / name, init_params(shape, jax.random.key(seed)), shape, root / "tokenizer")
    rows = [{"problem": f"What is ${a} + {a}$?", "answer": 2 * a} for a in range(3)]
    (root / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changed = [
        f"benchmarks=('{root / 'mine.jsonl'}',)", f"arms.base.weights={root / 'base'}", f"runs={root / 'runs'}",
        f"arms.rl.weights={root / 'rl'}", "sampling.n=4", "sampling.max_tokens=12", "score.tokens=1024",
        "engine.max_num_seqs=8", "engine.steps_per_call=6",
    ]  # fmt: skip

    def run(*overrides):
        line = [f"--config.{word}" for word in (*changed, *overrides)]
        return run_here("--config=configs/qwen7b_math.py", *line)

    return run


def test_another_grader_judges_again_on_request_only_and_beside_the_first(command):
    first = command()
    assert first.returncode == 0, first.stderr
    root = re.search(r"^run folder: (.+)$", first.stdout, re.MULTILINE)[1]
    verdicts = records.read(root, "verdicts").to_pylist()
    # The second opinion stands beside each verdict, and is no older version to whoever comes after.
    assert Counter(row["grader"] for row in verdicts) == {"math-2": 2 * 3 * 4, "authors-1": 2 * 3 * 4}
    assert {row["problem_id"] for row in verdicts} == {f"mine/{i}" for i in range(3)}
    refused = command("grading.grader=exact")
    assert refused.returncode == 2 and "--config.job=grade" in refused.stderr and "authors" not in refused.stderr
    again = command("grading.grader=exact", "job=grade")
    assert again.returncode == 0, again.stderr
    assert "exact-1: 24 verdicts" in again.stdout and "math-2: 24 verdicts" in again.stdout
    assert len(records.read(root, "verdicts")) == 72
    assert command("grading.grader=exact", "job=report").returncode == 0
