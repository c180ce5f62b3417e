"""A comparison of given weights on benchmarks, by the main command, from local folders only."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import main
from rlvr_limit import planning, records
from rlvr_limit.evaluation import score_inputs
from rlvr_limit.grading.math import authors
from rlvr_limit.grading.math import grade as mathematics
from rlvr_limit.planning.fitting import Wanted
from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import command_line
from rlvr_limit.study.comparability import conditions_of, differences
from rlvr_limit.study.prepared import Study
from rlvr_limit.types import UserError
from tests.support.released import ARMS, QUESTIONS, words, write_released
from tests.support.smoke import REPOSITORY, run_here


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_released(tmp_path_factory.mktemp("released"))


def run(folders: Path) -> subprocess.CompletedProcess[str]:
    return run_here(*words(folders)[1:])


def prepared(folders: Path, *overrides: str) -> Study:
    config = REPOSITORY / "configs" / "qwen7b_math.py"
    line = [*words(folders, *overrides), f"--config={config}"]
    return prepare(command_line.parse_command_line(line, config))


@pytest.fixture(scope="module")
def finished(folders: Path) -> Path:
    """The run folder of a whole comparison."""
    done = run(folders)
    assert done.returncode == 0, done.stderr
    return Path(re.search(r"^report: (.+)/report/index.html$", done.stdout, re.MULTILINE)[1])


def test_every_benchmark_has_its_own_n_and_its_own_page(finished: Path) -> None:
    for table, where in (
        ("samples", {}),
        ("verdicts", {"grader": mathematics.VERSION}),
        ("verdicts", {"grader": authors.VERSION}),
    ):
        rows = records.read(finished, table, ["arm", "problem_id"], where).to_pylist()
        for arm in ARMS:
            ids = [row["problem_id"] for row in rows if row["arm"] == arm]
            assert len(ids) == 3 * 3 + 2 * 4
            assert all(ids.count(name) == (4 if name.startswith("aime24/") else 3) for name in set(ids))
    for page in ("index.html", "math500/index.html", "aime24/index.html", "aime24/curves.png"):
        assert (finished / "report" / page).stat().st_size > 10_000


def test_pages_name_no_revision_of_a_folder_and_take_guess_rates_from_the_answers(finished: Path) -> None:
    page = (finished / "report" / "math500" / "index.html").read_text(encoding="utf-8")
    assert "Conditions of every arm" in page and "Problem by problem" in page
    assert "d149729398750b98c0af14eb82c78cfe92750796" not in page
    # Mathematics has no guess rates of its own.
    assert "own answers to other problems" in page and "guess rate</button>" not in page


def test_prompts_are_rendered_once_for_arms_that_share_them(finished: Path) -> None:
    prompts = records.read(finished, "prompts").to_pylist()
    assert len(prompts) == 5
    assert {row["benchmark"] for row in prompts} == set(QUESTIONS)
    assert all("\\boxed{}" in row["prompt"] and row["question"] in row["prompt"] for row in prompts)


def test_sampler_and_scorer_agree_on_given_weights(finished: Path) -> None:
    for arm in ARMS:
        drawn = records.read(finished, "samples", where={"arm": arm}).to_pylist()
        by_key = {(row["problem_id"], row["index"]): row["logp_model"] for row in drawn}
        for row in records.read(finished, "scores", where={"arm": arm, "model": arm}).to_pylist():
            # bfloat16 weights and activations: rounding differs between prefill and decode.
            np.testing.assert_allclose(row["logp"], by_key[row["problem_id"], row["index"]], atol=0.1)


def test_arms_are_known_by_the_hash_of_their_weights(finished: Path) -> None:
    facts = records.read_manifest(finished)["facts"]
    assert len({facts[f"arms.{arm}.weights_sha256"] for arm in ARMS}) == 2


def test_finished_run_draws_nothing_again(finished: Path, folders: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (finished / "records").rglob("*.parquet")}
    assert run(folders).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (finished / "records").rglob("*.parquet")} == before


def test_fewer_samples_asked_for_than_stored_are_a_smaller_study(
    finished: Path, folders: Path, compilation_cache: None
) -> None:
    fewer = prepared(folders, "sampling.n=2", "sampling.n_of.aime24=1")
    assert fewer.root.resolve() == finished.resolve()
    answers = [(a.problem_id, a.index) for a in score_inputs.texts_for(fewer, "base", fewer.base, 16)]
    wanted = [(p.id, i) for p in fewer.problems for i in range(1 if p.id.startswith("aime24/") else 2)]
    assert sorted(answers) == sorted(wanted)


@pytest.mark.parametrize(
    ("field", "override"), [("template", "arms.rl.prompt=oat"), ("eos", "arms.rl.stop=('<|im_start|>',)")]
)
def test_arms_of_another_template_or_end_token_are_refused_before_sampling_unless_that_is_allowed(
    folders: Path, tmp_path: Path, compilation_cache: None, field: str, override: str
) -> None:
    here = (f"runs={tmp_path}", override)
    with pytest.raises(UserError) as refused:
        prepared(folders, *here, "allow_differ=('temperature', 'lengths')")
    assert f"arm rl: {field} is " in str(refused.value) and "that of base is " in str(refused.value)
    assert not list(tmp_path.iterdir())
    allowed = prepared(folders, *here, f"allow_differ=('{field}', 'lengths')")
    (said,) = (line for line in differences(allowed, allowed.evaluated) if "lengths" not in line)
    assert said.startswith(f"Allowed to differ: {field}. base: ")
    own, other = (conditions_of(allowed, entry).values for entry in allowed.evaluated)
    assert own["question"] == other["question"] and own["benchmark"] == other["benchmark"]


def test_context_caps_answers_and_says_so(
    folders: Path, compilation_cache: None, caplog: pytest.LogCaptureFixture
) -> None:
    study = prepared(folders, "sampling.max_tokens=4000")
    setup = study.setups["base"]
    for problem in setup.problems:
        limit = study.sampling_params(setup, problem).max_tokens
        assert limit == 300 - len(problem.prompt_ids)
    asked = records.read_manifest(study.root)["conditions"]["asked"]["base"]
    assert asked["shortest_limit"] == min(300 - len(problem.prompt_ids) for problem in setup.problems)
    assert "a context of 300 tokens leaves 5 of 5 problems less than the 4000 new tokens asked for" in caplog.text
    beyond = prepared(folders, "sampling.max_tokens=4000", "sampling.allow_beyond_context=True")
    assert beyond.sampling_params(beyond.setups["base"], setup.problems[0]).max_tokens == 4000


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["arms.rl.weights="], "config.arms.rl.weights"),
        (["arms.rl.weights=/no/such/folder"], "/no/such/folder"),
        (["arms.rl.prompt=qwen_boxd"], "qwen_boxed"),
        (["arms.rl.stop=('<|nothing|>',)"], "<|nothing|>"),
        (["benchmarks=('math500','aime42')"], "aime24"),
        (["data_dir=/no/such/data"], "/no/such/data"),
        (["limit=-1"], "limit"),
        (["allow_rows=('math500','aime')"], "config.allow_rows: 'aime' is not one of gsm8k, "),
        (["allow_rows=('aime24',)"], "math500.jsonl has 3 rows, but 500 were published"),
    ],
)
def test_what_is_missing_is_named(folders: Path, compilation_cache: None, overrides: list[str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        prepared(folders, *overrides)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_prompt_beyond_the_context_is_refused_by_its_problem(folders: Path, compilation_cache: None) -> None:
    config = json.loads((folders / "base" / "config.json").read_text())
    short = shutil.copytree(folders / "base", folders / "short")
    (short / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 20}))
    with pytest.raises(UserError, match="math500/0.*20"):
        prepared(folders, f"arms.base.weights={short}")


def test_what_was_left_out_of_the_files_is_said_once_in_the_log_and_on_the_page(
    folders: Path, tmp_path: Path, compilation_cache: None, caplog: pytest.LogCaptureFixture
) -> None:
    data = shutil.copytree(folders / "data", tmp_path / "data")
    with (data / "math500.jsonl").open("a") as file:
        file.write(json.dumps(QUESTIONS["math500"][0] | {"unique_id": "again"}) + "\n")
    study = prepared(folders, f"data_dir={data}", f"runs={tmp_path}")
    said = "math500.jsonl: 1 of 4 rows repeat another one and are left out (at 4)."
    assert [record.getMessage() for record in caplog.records].count(said) == 1 and said in study.task.notes
    assert len(study.problems) == 5 and str(tmp_path) not in " ".join(study.task.notes)


@pytest.mark.parametrize("data_dir", [True, False])
def test_a_plan_for_another_machine_is_of_the_files_where_they_are_there(
    data_dir: bool, folders: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def plan(wanted: Wanted, target: planning.Target) -> None:
        sizes = {b.name: (b.problems, b.n) for b in wanted.workload.benchmarks}
        raise UserError(f"{target.name}: width {wanted.model.width}, {wanted.engine.max_prompt_len} tokens, {sizes}")

    monkeypatch.setattr(planning, "make_plan", plan)
    own = [] if data_dir else ["data_dir="]
    assert main.main(words(folders, "job=plan", "target=h200", "engine.max_prompt_len=0", *own)) == 2
    read, taken = "width 32, 128 tokens, {'math500': (3, 3), 'aime24': (2, 4)}", "width 3584, 1344 tokens"
    assert f"h200: {read if data_dir else taken}" in capsys.readouterr().err


def test_two_problems_with_one_prompt_are_refused(folders: Path, compilation_cache: None) -> None:
    data = folders / "twice"
    data.mkdir()
    question = QUESTIONS["math500"][0]["problem"]
    (data / "math500.jsonl").write_text(json.dumps({"problem": question, "answer": "0"}))
    (data / "aime24.jsonl").write_text(json.dumps({"id": 60, "problem": question, "answer": "0"}))
    with pytest.raises(UserError, match="math500/0.*aime24/60"):
        prepared(folders, f"data_dir={data}")
