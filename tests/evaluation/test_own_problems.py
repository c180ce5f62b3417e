"""A run on one's own problems: verdicts given beside sampling, graded again by another grader on request only."""

import csv
import json
import re
from collections import Counter
from pathlib import Path

import jax
import pytest

from rlvr_limit import checkpoint, records
from rlvr_limit.grading.math import authors
from rlvr_limit.grading.math import grade as mathematics
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

    run.problems = root / "mine.jsonl"
    return run


def test_another_grader_judges_again_on_request_only_and_beside_the_first(command):
    first = command()
    assert first.returncode == 0, first.stderr
    root = re.search(r"^run folder: (.+)$", first.stdout, re.MULTILINE)[1]
    verdicts = records.read(root, "verdicts").to_pylist()
    # The second opinion stands beside each verdict, and is no older version to whoever comes after.
    assert Counter(row["grader"] for row in verdicts) == {mathematics.VERSION: 2 * 3 * 4, authors.VERSION: 2 * 3 * 4}
    assert {row["problem_id"] for row in verdicts} == {f"mine/{i}" for i in range(3)}
    refused = command("grading.grader=exact")
    assert refused.returncode == 2 and "--config.job=grade" in refused.stderr and "authors" not in refused.stderr
    again = command("grading.grader=exact", "job=grade")
    assert again.returncode == 0, again.stderr
    assert "exact-1: 24 verdicts" in again.stdout and f"{mathematics.VERSION}: 24 verdicts" in again.stdout
    assert len(records.read(root, "verdicts")) == 72
    assert command("grading.grader=exact", "job=report").returncode == 0


def test_a_corrected_reference_is_judged_against_in_the_same_folder_and_page_csv_and_review_agree(command):
    """D4: the problem file is corrected, and the same command typed again."""
    judge = ("grading.grader=tests.support.graders:as_the_reference", "share_samples=False", "name=corrected")
    first = command(*judge)
    assert first.returncode == 0, first.stderr
    root = Path(re.search(r"^run folder: (.+)$", first.stdout, re.MULTILINE)[1])
    before = right_samples(root)
    samples = records.read(root, "samples").to_pylist()
    written = command.problems.read_text()
    command.problems.write_text(written.replace('"answer": 2}', '"answer": 3}'))
    try:
        second, review = command(*judge), command(*judge, "job=grade")
    finally:
        command.problems.write_text(written)
    assert second.returncode == review.returncode == 0, second.stderr + review.stderr
    assert f"run folder: {root}\n" in second.stdout and records.read(root, "samples").to_pylist() == samples
    after = right_samples(root)
    # Every verdict on the problem is the other one now, and none on the other problems.
    assert after == {key: 4 - right if key[1] == "mine/1" else right for key, right in before.items()}
    assert any(right not in (0, 4) for right in before.values()) or len({*before.values()}) > 1
    page = " ".join((root / "report" / "summary.md").read_text().split())
    for arm in ("base", "rl"):
        flipped = before[arm, "mine/1"]
        assert page.count("4 samples were judged again") == 2 and page.count("4 verdicts changed") == 2
        with (root / "review" / "changes.csv").open(newline="") as file:
            was = Counter(row["was"] for row in csv.DictReader(file) if row["arm"] == arm)
        assert was["right"] == flipped and was.total() == 4
    kinds = re.search(r"changed to \S+: (.+) \(", review.stdout)[1]
    assert sum(int(count) for count in re.findall(r"(\d+) (?:right|wrong) to", kinds)) == 8
    # Both references stay on record.
    asked = {row["answer"] for row in records.read(root, "prompts").to_pylist() if row["problem_id"] == "mine/1"}
    assert asked == {"2", "3"}


def right_samples(root):
    """(arm, problem) -> right answers, as the CSV beside the page has them."""
    with (root / "report" / "problems.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {(arm, row["problem"]): int(row[f"c_{arm}"]) for row in rows for arm in ("base", "rl")}
