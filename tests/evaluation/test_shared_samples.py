"""Samples belong to what they are: configs, arms and pilots under one folder draw nothing twice."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlvr_limit import records
from rlvr_limit.evaluation import sample, shared_samples
from rlvr_limit.evaluation.grade import grade_missing
from rlvr_limit.evaluation.results import results_of
from rlvr_limit.planning.prepare import prepare
from rlvr_limit.records import Writer
from rlvr_limit.report.analysis import analyse
from rlvr_limit.settings import command_line
from rlvr_limit.study.prepared import Study
from rlvr_limit.study.run_folder import sample_identity
from rlvr_limit.study.verdicts import references
from rlvr_limit.study.weights import load_weights
from rlvr_limit.types import Status
from tests.support.records_rows import rows_of, verdict, write
from tests.support.released import QUESTIONS, words, write_released
from tests.support.smoke import REPOSITORY

pytestmark = pytest.mark.usefixtures("compilation_cache")

Drawn = Counter[tuple[str, str, int]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_released(tmp_path_factory.mktemp("released"))


@pytest.fixture
def runs(folders: Path, tmp_path: Path) -> Path:
    """A folder for runs with one in it: both arms, three answers to each problem of math500, four to those of aime24.

    Verdicts are made up: random weights solve nothing.
    """
    if not (folders / "whole").exists():
        study = sampled(folders, folders / "whole")
        keys = [(row["problem_id"], row["index"], {"arm": row["arm"]}) for row in rows_of(study.root)]
        version = study.task.version
        against = references(study, study.task)
        made_up = [verdict(name, i, version, correct=i % 3 == 1, against=against[name], **arm) for name, i, arm in keys]
        write(study.root, *made_up, table="verdicts")
    shutil.copytree(folders / "whole", tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(autouse=True)
def ungraded(monkeypatch: pytest.MonkeyPatch) -> None:
    """No workers are started that grade beside the sampler."""
    monkeypatch.setattr(sample, "_grading", lambda study: contextlib.nullcontext())


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """How often each sample, by stream, prompt and index, was drawn since."""
    counts: Drawn = Counter()
    rollout = sample.rollout

    def counted(generate: Any, work: Any, sampling: Any, seed: int, stream: str, *more: Any) -> Any:
        prompts = {}

        def noted() -> Any:
            for problem, indices in work:
                prompts[problem.id] = problem.prompt
                yield problem, indices

        for graded in rollout(generate, noted(), sampling, seed, stream, *more):
            counts[f"{seed} {stream}", prompts[graded.sample.problem_id], graded.sample.index] += 1
            yield graded

    monkeypatch.setattr(sample, "rollout", counted)
    return counts


def prepared(folders: Path, runs: Path | str, *overrides: str, config: str = "qwen7b_math") -> Study:
    """The comparison of released weights, or another config of theirs, that shares samples under `runs`."""
    path = REPOSITORY / "configs" / "qwen7b_math.py"
    _, _, *line = words(folders, f"runs={runs}", "share_samples=True", "dtype=float32", *overrides)
    return prepare(command_line.parse_command_line(["main.py", f"--config={path.parent / config}.py", *line], path))


def sampled(*which: Any, **config: Any) -> Study:
    study = prepared(*which, **config)
    sample.sample_missing(study)
    return study


def only_run(runs: Path) -> Path:
    (root,) = runs.glob("qwen7b_math/*")
    return root


def without_names(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "arm"} for row in rows]


def test_a_pilot_a_larger_run_and_studies_of_other_temperatures_draw_each_sample_once(
    folders: Path, tmp_path: Path, drawn: Drawn, capsys: pytest.CaptureFixture[str]
) -> None:
    n = ("sampling.n_of.aime24=2", "sampling.n=2")
    sampled(folders, tmp_path, "benchmarks=('math500',)", "limit=2", *n)
    assert len(drawn) == 2 * 2 * 2
    whole = sampled(folders, tmp_path)
    assert len(drawn) == 2 * (3 * 3 + 2 * 4)
    said = capsys.readouterr().out
    assert said.count("4 of 17 missing samples taken from ") == 2
    # T = 0.6 is that of the main study; 1.0 and 1.2 are new, for two arms each.
    hotter = sampled(folders, tmp_path, config="released/qwen7b_temperature")
    assert len(drawn) == 3 * 2 * (3 * 3 + 2 * 4) and set(drawn.values()) == {1}
    for arm in ("base", "rl"):
        assert rows_of(hotter.root, where={"arm": arm}) == rows_of(whole.root, where={"arm": arm})
    facts = records.read_manifest(hotter.root)["facts"]
    (taken,) = (value for fact, value in facts.items() if fact.startswith("arms.base.taken "))
    assert sum(map(int, re.findall(r"(\d+) of 17 missing samples taken from \S+ \(arm base\)", taken))) == 17


def test_an_arm_of_the_entropy_study_is_that_of_the_main_study(folders: Path, runs: Path, drawn: Drawn) -> None:
    study = prepared(folders, runs, config="released/qwen7b_entropy")
    for arm in ("base", "rl"):
        load_weights(study, study.named(arm))
        facts = records.read_manifest(only_run(runs))["facts"]
        assert sample_identity(study, study.named(arm), 0.6) == facts[f"arms.{arm}.samples"]


def test_configs_that_share_samples_report_the_same_to_the_last_digit(folders: Path, runs: Path, drawn: Drawn) -> None:
    studies = [prepared(folders, runs), sampled(folders, runs, "name=another")]
    assert not drawn and studies[0].root != studies[1].root
    for name in QUESTIONS:
        problems = [problem for problem in studies[0].problems if problem.id.startswith(name)]
        one, other = (analyse(results_of(study, name, problems)) for study in studies)
        assert one.curves.keys() == other.curves.keys() == {"base", "rl"}
        for arm, curve in one.curves.items():
            assert 0 < curve.mean_K[0] < 1
            assert curve.mean_K.tobytes() == other.curves[arm].mean_K.tobytes()


def test_two_arms_of_one_config_that_are_one_draw_once(folders: Path, tmp_path: Path, drawn: Drawn) -> None:
    study = sampled(folders, tmp_path, f"arms.rl.weights={folders / 'base'}", "arms.rl.label=again")
    assert len(drawn) == 3 * 3 + 2 * 4
    base, rl = (rows_of(study.root, where={"arm": arm}) for arm in ("base", "rl"))
    assert without_names(base) == without_names(rl)


@pytest.mark.parametrize(
    "override",
    [
        "seed=1", "sampling.temperature=0.7", "sampling.top_p=0.9", "sampling.max_tokens=11", 
        "arms.base.stop=('<|im_start|>',)",
        "dtype=bfloat16", "engine.reference=True", "arms.base.weights=rl",
    ],
)  # fmt: skip
def test_whatever_makes_another_sample_of_it_makes_another_identity(
    folders: Path, runs: Path, override: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folders)
    study = prepared(folders, runs, "name=another", override, "allow_differ=('eos',)")
    load_weights(study, study.base)
    identity = sample_identity(study, study.base, study.settings.sampling.temperature)
    known = records.read_manifest(only_run(runs))["facts"]
    assert known["arms.base.samples"] != identity
    assert (known["arms.rl.samples"] == identity) == (override == "arms.base.weights=rl")


def test_another_config_of_the_model_makes_another_sample(folders: Path, runs: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "base", tmp_path / "turned")
    config = json.loads((tmp_path / "turned" / "config.json").read_text())
    (tmp_path / "turned" / "config.json").write_text(json.dumps(config | {"rope_theta": 500.0}))
    study = prepared(folders, runs, f"arms.base.weights={tmp_path / 'turned'}", "name=another")
    load_weights(study, study.base)
    known = records.read_manifest(only_run(runs))["facts"]
    assert study.weights_sha256(study.base) == known["arms.base.weights_sha256"]
    assert sample_identity(study, study.base, 0.6) != known["arms.base.samples"]


def test_other_prompts_and_a_field_that_says_no_draw_their_own(folders: Path, runs: Path, drawn: Drawn) -> None:
    few = ("benchmarks=('aime24',)", "sampling.n_of.aime24=1", "name=another")
    sampled(folders, runs, *few, "share_samples=False")
    assert len(drawn) == 2 * 2
    study = sampled(folders, runs, *few, "arms.base.prompt=oat", "arms.rl.prompt=oat")
    assert len(drawn) == 2 * 2 * 2
    assert not any(".taken " in fact for fact in records.read_manifest(study.root)["facts"])


def test_a_verdict_is_taken_with_its_reference_and_grader_only(folders: Path, runs: Path, tmp_path: Path) -> None:
    root = only_run(runs)
    changed = tmp_path / "data"
    changed.mkdir()
    rows = [row | {"answer": "7"} if i == 0 else row for i, row in enumerate(QUESTIONS["math500"])]
    (changed / "math500.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    version = prepared(folders, runs).task.version
    judged = rows_of(root, "verdicts", where={"arm": "base"})
    shutil.rmtree(root / "records" / "verdicts")
    by_hand = []
    for row in judged:
        status = {1: Status.TIMEOUT, 2: Status.NO_ANSWER}.get(row["index"], Status.GRADED)
        by_hand.append(row | {"status": status, "detail": "by hand"})
    write(root, *by_hand, verdict("math500/1", 1, grader="math 0"), table="verdicts")
    words_ = ("name=another", f"data_dir={changed}", "benchmarks=('math500',)")
    study = sampled(folders, runs, *words_)
    taken = {(row["problem_id"], row["index"]) for row in rows_of(study.root, "verdicts", where={"arm": "base"})}
    asked = [problem.id for problem in study.problems]
    assert taken == {(name, index) for name in asked[1:] for index in (0, 2)}
    grade_missing(study)
    rows = rows_of(study.root, "verdicts", where={"arm": "base", "grader": version})
    assert len(rows) == 3 * 3
    assert {(row["problem_id"], row["index"]) for row in rows if row["detail"] == "by hand"} == taken


def test_a_neighbour_that_cannot_be_read_is_named_and_left_alone(
    folders: Path, runs: Path, drawn: Drawn, caplog: pytest.LogCaptureFixture
) -> None:
    (broken := runs / "a" / "b").mkdir(parents=True)
    (broken / "manifest.json").write_text("{")
    (part,) = (only_run(runs) / "records" / "prompts").glob("*.parquet")
    part.write_bytes(b"no parquet")
    sampled(folders, runs, "name=another", "benchmarks=('aime24',)")
    assert len(drawn) == 2 * 2 * 4
    assert f"no samples are looked for in {broken}" in caplog.text
    assert f"{only_run(runs)} (arm base): nothing is taken from it: {part} is damaged" in caplog.text


def test_verdicts_that_were_taken_ask_for_the_second_stage_that_is_taken_too(
    folders: Path, runs: Path, drawn: Drawn
) -> None:
    # Made up verdicts: every first sample is wrong, every second one right.
    for adaptive, n in ((1, {"math500": 3, "aime24": 4}), (2, {"math500": 2, "aime24": 2})):
        study = sampled(folders, runs, f"name=adaptive{adaptive}", f"sampling.adaptive={adaptive}")
        counts = Counter((row["arm"], row["problem_id"]) for row in rows_of(study.root))
        assert len(counts) == 2 * 5 and all(count == n[name.partition("/")[0]] for (_, name), count in counts.items())
    assert not drawn


def test_runs_in_an_object_store_share_too(
    folders: Path, tmp_path: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    studies = [sampled(folders, f"memory://{tmp_path.name}/runs", "benchmarks=('aime24',)", f"name={x}") for x in "ab"]
    assert len(drawn) == 2 * 2 * 4 and set(drawn.values()) == {1}
    assert rows_of(studies[0].root) == rows_of(studies[1].root)


class Killed(Exception):
    """Stands for kill -9."""


@pytest.mark.parametrize("batches", [0, 1, 4, 7])
def test_broken_off_while_taking_and_begun_again_nothing_is_lost_or_doubled(
    folders: Path, runs: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch, batches: int
) -> None:
    monkeypatch.setattr(shared_samples, "BATCH", 3)
    monkeypatch.setattr(shared_samples, "ROWS", 5)
    append, done = Writer.append_batch, []

    def until_killed(self: Writer, batch: Any) -> None:
        done.append(batch)
        if len(done) > batches:
            # What a killed process leaves: its parts as they are.
            monkeypatch.setattr(Writer, "close", lambda self: self._let_go())
            raise Killed
        append(self, batch)

    study = prepared(folders, runs, "name=another")
    with monkeypatch.context() as patched:
        patched.setattr(Writer, "append_batch", until_killed)
        with pytest.raises(Killed):
            sample.sample_missing(study)
    monkeypatch.undo()
    there = records.read(study.root, "samples").num_rows
    assert (there > 0) == (batches > 0) and there < 2 * (3 * 3 + 2 * 4)
    drawn.clear()
    study = sampled(folders, runs, "name=another")
    assert not drawn
    assert rows_of(study.root) == rows_of(only_run(runs))
    # Those of samples that were on record before are left to the grade stage.
    assert all(row in rows_of(only_run(runs), "verdicts") for row in rows_of(study.root, "verdicts"))
