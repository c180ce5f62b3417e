"""Training that starts from Hugging Face folders: real prompts' path, verdicts of the pool, exports, resume, errors."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from rlvr_limit import checkpoint, rl
from rlvr_limit.models.decoder import ModelConfig, init_params
from rlvr_limit.models.log_probs import answer_log_probs, answer_rows
from rlvr_limit.planning.prepare import prepare
from rlvr_limit.records.training_log import training_rows
from rlvr_limit.settings import command_line
from rlvr_limit.study import recipes
from rlvr_limit.study.prepared import Study
from rlvr_limit.tokenizer import load_tokenizer
from rlvr_limit.training import logging, loop, rejection_sampling, rl_step
from rlvr_limit.training.learner import Learner
from rlvr_limit.types import UserError
from tests.support.smoke import REPOSITORY
from tests.support.studies import prepare_config
from tests.support.tokenizer_files import write_qwen2

pytestmark = pytest.mark.usefixtures("compilation_cache")

STEPS = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights, a training set, a benchmark, and demonstrations."""
    root = tmp_path_factory.mktemp("released-training")
    size = load_tokenizer(write_qwen2(root / "tokenizer")).vocab_size
    shape = ModelConfig(size, width=32, layers=1, heads=4, kv_heads=2, head_width=8, ffn_width=48, context=300)
    params = init_params(shape, jax.random.key(0))
    checkpoint.export_hf(root / "base", params, shape, root / "tokenizer")
    (root / "data").mkdir()
    rows = {
        "gsm8k_train": [{"question": f"What is {a} + {a}?", "answer": f"It is #### {2 * a}"} for a in range(9)],
        "gsm8k_test": [{"question": f"What is {a} - {a}?", "answer": "#### 0"} for a in range(2)],
        "shown": [{"prompt": f"What is {a}?", "response": f"\\boxed{{{a}}}"} for a in range(4)],
    }
    for name, lines in rows.items():
        (root / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    return root


def prepared(folders: Path, runs: Path, *overrides: str) -> Study:
    """The 0.5B config on the tiny checkpoint."""
    changed = [
        f"data_dir={folders / 'data'}",
        f"arms.base.weights={folders / 'base'}",
        f"runs={runs}",
        "dtype=float32",
        "benchmarks=('gsm8k',)",
        "allow_rows=('gsm8k','gsm8k_train')",
        "grading.grader=tests.support.graders:even",
        "sampling.n=2",
        "sampling.max_tokens=8",
        "engine.max_num_seqs=16",
        "engine.steps_per_call=4",
        "engine.page_size=16",
        "arms.grpo.rl.prompts=4",
        "arms.grpo.rl.answers=4",
        "arms.grpo.rl.minibatches=2",
        f"arms.grpo.rl.steps={STEPS}",
        f"arms.grpo.rl.save_at=(2,{STEPS})",
        "arms.grpo.rl.optimizer.learning_rate=0.01",
        "arms.grpo.rl.optimizer.warmup=0",
        *overrides,
    ]
    config = REPOSITORY / "configs" / "qwen05b_gsm8k_grpo.py"
    line = ["main.py", f"--config={config}", *(f"--config.{word}" for word in changed)]
    return prepare(command_line.parse_command_line(line, config))


@pytest.fixture(scope="module")
def trained(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    before = jax.config.jax_compilation_cache_dir
    study = prepared(folders, tmp_path_factory.mktemp("runs"))
    loop.train_missing(study)
    jax.config.update("jax_compilation_cache_dir", before)
    return study


def test_verdicts_of_the_pool_are_the_rewards_and_the_first_update_is_on_policy(trained: Study) -> None:
    rows = training_rows(trained.root, "grpo")
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert any(0 < row["reward"] < 1 and row["grad_norm"] > 0 for row in rows)
    for row in rows:
        assert abs(row["ratio"] - 1) < 1e-5 and abs(row["kl_sampler"]) < 1e-6
    kept = [json.loads(line) for line in (trained.root / "train/grpo/samples/000001.jsonl").read_text().splitlines()]
    assert len(kept) == 4 and all(row["reward"] == float(len(row["text"]) % 2 == 0) for row in kept)
    assert {row["problem_id"].split("/")[0] for row in kept} == {"gsm8k_train"}


def test_answers_to_learn_from_have_a_length_of_their_own(folders: Path, tmp_path: Path) -> None:
    changed = ("arms.grpo.rl.max_tokens=3", "arms.grpo.rl.steps=1", "arms.grpo.rl.save_at=(1,)")
    study = prepared(folders, tmp_path, *changed)
    recipe, setup = study.settings.arms["grpo"].rl, study.setups["grpo"]
    loop.train_missing(study)
    (row,) = training_rows(study.root, "grpo")
    assert 0 < row["length"] <= 3 and row["truncated"] > 0.5
    assert study.row_places(recipe) == study.engine.max_prompt_len + 3
    assert {study.sampling_params(setup, problem).max_tokens for problem in setup.problems} == {8}


def test_arms_that_are_asked_alike_share_their_problems_and_not_what_they_learn_from(trained: Study) -> None:
    base, grpo = (trained.setups[name] for name in ("base", "grpo"))
    assert grpo.problems is base.problems and grpo.variant == base.variant
    assert len(grpo.training) == 9 and not base.training


def test_saved_steps_are_folders_in_the_format_they_came_in(trained: Study, folders: Path) -> None:
    model = trained.setups["grpo"].model
    found = [checkpoint.load_hf(trained.root / "weights" / f"grpo-{n}", model, trained.mesh) for n in (2, STEPS)]
    base = checkpoint.load_hf(folders / "base", model, trained.mesh)
    for a, b in ((base, found[0]), (found[0], found[1])):
        moved = jax.tree.map(lambda x, y: bool(np.any(np.asarray(x) != np.asarray(y))), a, b)
        assert any(jax.tree.leaves(moved))
    words = load_tokenizer(trained.root / "weights" / "grpo-2")
    assert words.encode("What is 1?") == trained.setups["base"].tokenizer.encode("What is 1?")


def test_events_for_tensorboard_are_there(trained: Study) -> None:
    (events,) = (trained.root / "train/grpo/tensorboard").glob("events.*")
    assert b"kl_sampler" in events.read_bytes() and b"tokens_per_s" in events.read_bytes()


def trained_but_the_last_step(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains, and stops when the last step is to be noted."""
    append = logging.Metrics.append

    def stopped(self: logging.Metrics, step: int, *rest: object) -> None:
        if step == STEPS:
            raise KeyboardInterrupt
        append(self, step, *rest)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(logging.Metrics, "append", stopped)
        loop.train_missing(study)


def test_a_run_stopped_between_steps_ends_with_the_same_bits(
    trained: Study, folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = prepared(folders, tmp_path, "checkpoint_seconds=0.0")
    trained_but_the_last_step(study, monkeypatch)
    loop.train_missing(prepared(folders, tmp_path, "checkpoint_seconds=0.0"))
    assert training_rows(study.root, "grpo") == training_rows(trained.root, "grpo")
    names = ("model.safetensors",)
    for name in names:
        here, there = ((e.root / "weights" / f"grpo-{STEPS}" / name).read_bytes() for e in (study, trained))
        assert here == there


@pytest.mark.slow
def test_adapters_alone_are_trained_from_answers_in_segments_and_exports_hold_them_merged(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapters = "arms.grpo.rl.lora_rank=2", "arms.grpo.rl.lora_alpha=4.0"
    segments = "arms.grpo.rl.segment=3", "arms.grpo.rl.importance_cap=2.0"
    options = (*adapters, *segments, "training.tokens=150")
    whole, broken = (prepared(folders, tmp_path / name, "checkpoint_seconds=0.0", *options) for name in "ab")
    loop.train_missing(whole)
    rows = training_rows(whole.root, "grpo")
    # In the first step all three segments of an answer are drawn under the weights of the start.
    assert abs(rows[0]["ratio"] - 1) < 1e-5 and abs(rows[0]["kl_sampler"]) < 1e-6
    assert [row["rounds"] for row in rows] == [3, 1, 1] and rows[2]["age"] > 0 and rows[2]["max_delta_logp"] > 1e-3
    assert any(row["grad_norm"] > 0 for row in rows)
    trained_but_the_last_step(broken, monkeypatch)
    loop.train_missing(broken)
    assert training_rows(broken.root, "grpo") == rows
    names = [f"weights/grpo-{STEPS}/model.safetensors", "weights/grpo-2/model.safetensors"]
    assert all((broken.root / name).read_bytes() == (whole.root / name).read_bytes() for name in names)

    model, lora = whole.setups["grpo"].model, recipes.adapters(whole.settings.arms["grpo"].rl)
    base = checkpoint.load_hf(folders / "base", model, whole.mesh)
    tx = rl.optimizer(whole.settings.arms["grpo"].rl.optimizer, STEPS * 2)
    learner = Learner(model, whole.mesh, whole.mesh, tx, rl.Compute(), (150, 8), lora=lora)
    trained, fresh = learner.begin(base, "", whole.settings.seed)
    with contextlib.closing(checkpoint.TrainCheckpoints(whole.root / "train/grpo/states")) as states:
        done, state = states.restore(fresh)
    assert done == STEPS
    count = [sum(x.size for x in jax.tree.leaves(tree)) for tree in (state.params, state.opt_state, base)]
    assert count[0] * 2 <= count[1] <= count[0] * 2 + 9 and count[0] < 0.1 * count[2]
    exported = checkpoint.load_hf(whole.root / f"weights/grpo-{STEPS}", model, whole.mesh)
    laid = answer_rows([((3, 5, 2), (4, 9, 1)), ((7,), (8, 2, 2, 6))], 6)
    by_export, by_adapters, by_base = (
        np.asarray(answer_log_probs(params, model, laid)[0]) for params in (exported, trained.policy(state), base)
    )
    np.testing.assert_allclose(by_export, by_adapters, rtol=0, atol=1e-5)
    assert np.abs(by_export - by_base).max() > 1e-3


def test_packed_microbatches_change_a_step_by_rounding_only(trained: Study, folders: Path, tmp_path: Path) -> None:
    whole = training_rows(trained.root, "grpo")[0]
    study = prepared(folders, tmp_path, "training.tokens=150", "training.remat=layers")
    rows, places = study.microbatch(study.settings.arms["grpo"].rl)
    assert rows * places < 8 * places
    loop.train_missing(study)
    packed = training_rows(study.root, "grpo")[0]
    for name, value in whole.items():
        assert packed[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


@pytest.mark.slow
def test_weights_kept_in_float32_are_sampled_from_and_exported_in_the_models_dtype(
    folders: Path, tmp_path: Path
) -> None:
    one_step = "arms.grpo.rl.steps=1", "arms.grpo.rl.save_at=(1,)"
    study = prepared(folders, tmp_path, "dtype=bfloat16", "training.param_dtype=float32", *one_step)
    loop.train_missing(study)
    fields = json.loads((study.root / "weights/grpo-1/config.json").read_text())
    assert fields.get("dtype", fields.get("torch_dtype")) == "bfloat16"
    rows = training_rows(study.root, "grpo")
    assert all(0 < row["max_delta_logp"] < 0.05 for row in rows)


def test_answers_without_a_verdict_are_counted_by_name_and_teach_nothing(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = "grading.grader=tests.support.graders:seldom", "arms.grpo.rl.kl=0.1", "training.tokens=2048"
    study = prepared(folders, tmp_path, *fields)
    caught, decode = [], study.setups["grpo"].tokenizer.decode

    def keep(policy: object, config: object, tx: object, objective: object, batches: list, *_: object) -> tuple:
        caught.append(jax.tree.map(np.asarray, batches[0]))
        return policy, dict.fromkeys((*rl_step.FIRST, *rl_step.MEAN), 0.0)

    monkeypatch.setattr(rl, "train_step", keep)
    recipe = study.settings.arms["grpo"].rl
    with contextlib.ExitStack() as stack:
        start = loop.start_weights(study, "grpo", recipe)
        step, state, _ = loop.begin_reinforced(study, "grpo", recipe, start, stack)
        _, row = step(1, state)
    counts, right = [0, 0, 0], []
    for batch in caught:
        segments = [(r, s) for r in range(len(batch.weight_BT)) for s in np.unique(batch.rows.segment_BT[r]) if s]
        for r, s in segments:
            inside = (batch.rows.segment_BT[r] == s) & batch.rows.answer_BT[r]
            if not inside.any():
                continue
            text = decode(tuple(batch.rows.tokens_BT[r][inside].tolist()))
            counts[len(text) % 3] += 1
            if len(text) % 3:
                assert not batch.weight_BT[r][inside].any() and not batch.advantage_BT[r][inside].any()
            else:
                assert batch.weight_BT[r][inside].all()
                right.append(len(text) // 3 % 2 == 0)
    assert counts[1:] == [row["timeouts"], row["errors"]] and min(counts) > 0 and sum(counts) == row["samples"] == 16
    assert row["reward"] == pytest.approx(np.mean(right))


def test_other_training_problems_are_other_conditions(trained: Study, folders: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps({"problem": f"Say {a}.", "answer": a}) + "\n" for a in range(5)))
    other = prepared(folders, tmp_path, f"arms.grpo.rl.data=('{own}',)")
    assert other.root.name != trained.root.name
    assert [p.id for p in other.setups["grpo"].training] == [f"own/{a}" for a in range(5)]


def with_sft(folders: Path, runs: Path, **changes: object) -> Study:
    config = REPOSITORY / "configs" / "qwen05b_gsm8k_grpo.py"
    made = command_line.read_config(["main.py", f"--config={config}"], config).unlock()
    optimizer = made.arms.grpo.rl.optimizer.to_dict() | {"learning_rate": 0.01, "warmup": 0}
    made.update({"data_dir": str(folders / "data"), "runs": str(runs), "dtype": "float32", "benchmarks": ("gsm8k",)})
    made.allow_rows = ("gsm8k", "gsm8k_train")
    made.engine.update({"max_num_seqs": 16, "steps_per_call": 4, "page_size": 16})
    made.sampling.update({"n": 2, "max_tokens": 16, "n_of": {}})
    made.arms.base.weights = str(folders / "base")
    recipe = {"steps": 4, "batch": 4, "start": "base", "optimizer": optimizer, **changes}
    made.grading.grader = "tests.support.graders:even"
    copied = {"label": "copied", "group": "distilled", "weights": "", "prompt": "qwen_boxed", "stop": ("<|im_end|>",)}
    del made.arms["grpo"]
    made.allow_differ = ("eos",)
    made.arms.copied = copied | {"sft": recipe}
    return prepare_config(made)


def test_demonstrations_of_a_file_are_learnt_with_an_end_token_behind(folders: Path, tmp_path: Path) -> None:
    study = with_sft(folders, tmp_path, data=(str(folders / "data" / "shown.jsonl"),), lora_rank=4)
    setup = study.setups["copied"]
    prompt, answer = setup.shown[2]
    assert setup.tokenizer.decode(prompt) == "What is 2?" and answer[-1] in setup.stop_tokens
    assert setup.tokenizer.decode(answer[:-1]) == "\\boxed{2}"
    loop.train_missing(study)
    rows = training_rows(study.root, "copied")
    assert rows[-1]["loss"] < rows[0]["loss"]
    # Adapters leave what is no product of a layer as it was.
    paths = folders / "base", study.root / "weights" / "copied"
    base, copied = (checkpoint.load_hf(path, setup.model, study.mesh) for path in paths)
    np.testing.assert_array_equal(base["embedding"], copied["embedding"])
    assert np.any(np.asarray(base["layers"][0]["up"]) != np.asarray(copied["layers"][0]["up"]))


def test_right_answers_of_a_teacher_are_learnt_once_each_and_drawn_once(folders: Path, tmp_path: Path) -> None:
    changes = {"data": ("gsm8k_train",), "teacher": "base", "answers": 4}
    study = with_sft(folders, tmp_path, **changes)
    loop.train_missing(study)
    path = rejection_sampling.demonstrations_file(study.root, "copied")
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert 0 < len(kept) <= 9 * 4 and all(len(row["response"]) % 2 == 0 for row in kept)
    assert len({(row["problem_id"], row["response"]) for row in kept}) == len(kept)
    setup = study.setups["copied"]
    pairs = rejection_sampling.read(path, setup)
    asked = {problem.id: problem for problem in setup.training}
    assert all(pair[0] == asked[row["problem_id"]].prompt_ids for pair, row in zip(pairs, kept, strict=True))
    assert all(pair[1][-1] == setup.stop_tokens[0] for pair in pairs)
    rows = training_rows(study.root, "copied")
    assert rows[-1]["loss"] < rows[0]["loss"]
    before = path.stat().st_mtime_ns
    shutil.rmtree(study.root / "weights")
    loop.train_missing(with_sft(folders, tmp_path, **changes))
    assert path.stat().st_mtime_ns == before


def test_training_is_on_problems_alone_that_the_start_never_solves(folders: Path, tmp_path: Path) -> None:
    counts, row = tmp_path / "counts.csv", "arms.grpo.rl.unsolved_in"
    lines = [
        f"gsm8k_train/{i},{arm},8,{right}" for i in range(9) for arm, right in (("base", i % 3), ("grpo", 1 - i % 2))
    ]
    counts.write_text("\n".join(["problem,arm,n,correct", *lines]))
    study = prepared(folders, tmp_path, f"{row}={counts}", "arms.grpo.rl.prompts=3", "arms.grpo.rl.minibatches=1")
    assert [p.id for p in study.setups["grpo"].training] == ["gsm8k_train/0", "gsm8k_train/3", "gsm8k_train/6"]
    for text, said in (
        ("problem,arm,n,correct\nother/1,base,8,0", "base never solves 1 problems, none of rl.data"),
        ("problem,arm,n,correct\ngsm8k_train/0,base,8,1", "no line of arm 'base' with correct = 0"),
    ):
        counts.write_text(text)
        with pytest.raises(UserError, match=said):
            prepared(folders, tmp_path, f"{row}={counts}")


@pytest.mark.parametrize("teacher", ["copied", "nobody"])
def test_a_teacher_that_cannot_teach_is_named(folders: Path, tmp_path: Path, teacher: str) -> None:
    with pytest.raises(UserError, match=f"config.arms.copied.sft.teacher: '{teacher}' is not one of base"):
        with_sft(folders, tmp_path, data=("gsm8k_train",), teacher=teacher)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"prompt": "a"}, "shown.jsonl:2: field 'response': None is not"),
        ({"prompt": " ", "response": "b"}, "shown.jsonl:2: field 'prompt': ' ' is not"),
    ],
)
def test_a_demonstration_without_text_is_named(folders: Path, tmp_path: Path, line: dict, said: str) -> None:
    path = tmp_path / "shown.jsonl"
    path.write_text(json.dumps({"prompt": "a", "response": "b"}) + "\n" + json.dumps(line) + "\n")
    with pytest.raises(UserError, match=said.replace(".", "\\.")):
        with_sft(folders, tmp_path, data=(str(path),))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("arms.grpo.rl.data=()", "config.arms.grpo.rl.data: empty"),
        ("arms.grpo.rl.data=('nothing',)", "benchmark: 'nothing' is not one of"),
        ("arms.grpo.rl.start=grpo", "config.arms.grpo: grpo starts from grpo: an arm with weights must come last"),
        ("arms.grpo.rl.prompts=10", "10 is not at most 9, the number of training problems"),
        ("engine.max_prompt_len=16", "the length of its prompt: "),
        ("wandb=project", "pip install wandb"),
    ],
)
def test_what_cannot_be_trained_on_is_said_in_one_line(folders: Path, tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(UserError) as raised:
        loop.train_missing(prepared(folders, tmp_path, override))
    assert said in str(raised.value) and "\n" not in str(raised.value)
