"""What one uninterrupted smoke run leaves behind: complete, consistent records, a manifest and a page."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np

from rlvr_limit import records
from rlvr_limit.grading.countdown import CountdownAnswer, grade
from rlvr_limit.types import Problem

ARMS = ["base", "control", "distilled", "grpo-2", "grpo-4", "grpo-6"]
PROBLEMS, N, SCORED = 8, 32, 4


def test_every_arm_has_n_samples_and_verdicts_of_every_problem(smoke_run: Path) -> None:
    for table in ("samples", "verdicts"):
        rows = records.read(smoke_run, table, columns=["arm", "problem_id", "index"]).to_pylist()
        counts = Counter((row["arm"], row["problem_id"]) for row in rows)
        assert sorted({arm for arm, _ in counts}) == ARMS
        assert len(counts) == len(ARMS) * PROBLEMS and set(counts.values()) == {N}


def test_prompts_stand_once_and_the_manifest_knows_them(smoke_run: Path) -> None:
    rows = records.read(smoke_run, "prompts").to_pylist()
    assert len(rows) == PROBLEMS
    assert all(row["prompt_sha256"] == hashlib.sha256(row["prompt"].encode()).hexdigest() for row in rows)
    manifest = records.read_manifest(smoke_run)
    assert len(manifest["conditions"]["asked"]["base"]["prompts_sha256"]) == 64
    assert {"jax", "numpy", "python"} <= manifest["sessions"][0]["versions"].keys()


def test_weights_are_known_by_hash_and_differ_between_arms(smoke_run: Path) -> None:
    facts = records.read_manifest(smoke_run)["facts"]
    for what in ("weights_sha256", "samples"):
        assert len({facts[f"arms.{arm}.{what}"] for arm in ARMS}) == len(ARMS)
    assert len(facts) == 3 * len(ARMS) and {facts[f"arms.{arm}.prompts"] for arm in ARMS} == {"countdown"}


def test_sampler_and_scorer_give_a_stored_sample_the_same_log_probs(smoke_run: Path) -> None:
    for arm in ARMS:
        drawn = records.read(smoke_run, "samples", where={"arm": arm}).to_pylist()
        scored = records.read(smoke_run, "scores", where={"arm": arm, "model": arm}).to_pylist()
        by_key = {(row["problem_id"], row["index"]): row["logp_model"] for row in drawn}
        assert len(scored) == PROBLEMS * SCORED
        for row in scored:
            np.testing.assert_allclose(row["logp"], by_key[row["problem_id"], row["index"]], atol=1e-5)


def test_two_arms_draw_different_samples_of_one_problem(smoke_run: Path) -> None:
    texts = {}
    for arm in ("grpo-2", "grpo-4"):
        rows = records.read(smoke_run, "samples", columns=["problem_id", "index", "logp"], where={"arm": arm})
        texts[arm] = [tuple(row["logp"]) for row in rows.to_pylist()]
    same = np.mean([a == b for a, b in zip(texts["grpo-2"], texts["grpo-4"], strict=True)])
    assert same < 0.05


def test_stored_verdicts_are_what_the_grader_says(smoke_run: Path) -> None:
    targets = {}
    for row in records.read(smoke_run, "prompts").to_pylist():
        numbers = tuple(int(word) for word in row["prompt"].split(" -> ")[0].split())
        targets[row["problem_id"]] = CountdownAnswer(numbers, int(row["answer"]))
    texts = {(r["arm"], r["problem_id"], r["index"]): r["text"] for r in records.read(smoke_run, "samples").to_pylist()}
    verdicts = records.read(smoke_run, "verdicts").to_pylist()
    assert any(row["correct"] for row in verdicts) and not all(row["correct"] for row in verdicts)
    for row in verdicts:
        name = row["problem_id"]
        problem = Problem(name, "", "", (), targets[name])
        assert grade(problem, texts[row["arm"], name, row["index"]]).correct == row["correct"]


def test_rollouts_were_on_policy_at_the_first_minibatch(smoke_run: Path) -> None:
    rows = [json.loads(line) for line in (smoke_run / "train" / "grpo" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 7))
    assert all(row["max_delta_logp"] < 1e-4 for row in rows)


def test_page_and_tables_count_what_is_on_record(smoke_run: Path) -> None:
    report = smoke_run / "report"
    assert (report / "index.html").stat().st_size > 100_000
    correct = Counter()
    for row in records.read(smoke_run, "verdicts").to_pylist():
        correct[row["arm"], row["problem_id"]] += row["correct"]
    with (report / "problems.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == PROBLEMS
    for row in rows:
        for arm in ARMS:
            assert int(row[f"c_{arm}"]) == correct[arm, row["problem"]] and int(row[f"n_{arm}"]) == N


def test_every_number_is_used_once_where_no_verdict_says_otherwise(smoke_run: Path) -> None:
    arms = json.loads((smoke_run / "report" / "summary.json").read_text())["arms"]
    assert sum(arms[name]["uses_given"] for name in ARMS) > 0
    for name in ARMS:
        verdicts = records.read(smoke_run, "verdicts", where={"arm": name}).to_pylist()
        sure = sum(row["correct"] or row["detail"].startswith("the result") for row in verdicts)
        # A verdict names the first fault: behind wrong arithmetic another number may be used.
        unsure = sum(": " in row["detail"] for row in verdicts)
        assert sure <= round(arms[name]["uses_given"] * len(verdicts)) <= sure + unsure
