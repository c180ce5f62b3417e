"""Composed functions from the config to the page: CoT-Pass@k is exact, depth by depth."""

import csv
from fractions import Fraction
from math import comb

import pytest

from rlvr_limit import records
from rlvr_limit.commands import compare
from rlvr_limit.settings import command_line
from rlvr_limit.study.checks import check
from rlvr_limit.study.setups import task_and_setups
from rlvr_limit.types import UserError
from tests.support.smoke import REPOSITORY

SMALL = (
    "task.functions=3", "task.length=2", "task.symbols=4", "task.depths=(1,2,3)", "task.eval_problems=4",
    "task.train_problems=24", "model.width=32", "model.layers=1", "model.head_width=8", "model.ffn_width=64",
    "sampling.n=16", "sampling.max_tokens=14", "report.k=16", "score.answers=2", "score.tokens=896",
    "engine.max_num_seqs=64", "engine.buckets=(64,)", "engine.steps_per_call=7", "engine.page_size=28",
    "engine.max_prompt_len=6", "arms.base.pretrain.steps=150", "arms.base.pretrain.batch=32",
    *(f"arms.grpo_{d}.rl.{f}" for d in (2, 3) for f in ("steps=2", "save_at=(2,)", "prompts=4", "answers=8")),
)  # fmt: skip


def settings(*overrides):
    words = ["main.py", f"--config={REPOSITORY / 'configs' / 'toy' / 'composition.py'}"]
    words += [f"--config.{override}" for override in (*SMALL, *overrides)]
    return command_line.parse_command_line(words, REPOSITORY / "configs" / "countdown.py")


@pytest.mark.slow
def test_cot_pass_at_k_is_that_of_right_answers_by_right_steps(tmp_path):
    study = settings(f"run_dir={tmp_path / 'run'}")
    check(study)
    compare.run(study)
    root = tmp_path / "run"
    _, setups = task_and_setups(study)
    problems = {problem.id: problem for problem in setups["base"].problems}
    for depth in (1, 2, 3):
        rows = list(csv.DictReader((root / "report" / f"depth{depth}" / "chains.csv").open()))
        for arm in ("base", "grpo_2-2", "grpo_3-2"):
            right = {name: 0 for name in problems if name.startswith(f"depth{depth}/")}
            for sample in records.read(root, "samples", ["problem_id", "text"], {"arm": arm}).to_pylist():
                if sample["problem_id"] in right:
                    reference = " , ".join(problems[sample["problem_id"]].answer.steps)
                    right[sample["problem_id"]] += sample["text"] == reference
            mine = [row for row in rows if row["arm"] == arm]
            assert len(mine) == 16 and all(row["low"] == row["high"] for row in mine)
            for k, row in enumerate(mine, 1):
                exact = sum(1 - Fraction(comb(16 - c, k), comb(16, k)) for c in right.values()) / len(right)
                assert float(row["low"]) == pytest.approx(float(exact), abs=1e-12)
        page = (root / "report" / f"depth{depth}" / "index.html").read_text()
        assert "Every" in page and "so it is exact" in page and "no person has judged" not in page
    assert "right answers by wrong chains" in (root / "report" / "index.html").read_text()
    # The base has learnt depth 1 from its demonstrations.
    base = [row for row in csv.DictReader((root / "report" / "depth1" / "chains.csv").open()) if row["arm"] == "base"]
    assert float(base[-1]["low"]) > 0.5


def test_arms_learn_from_the_depths_that_they_name():
    _, setups = task_and_setups(settings())
    for name, deepest in (("base", 2), ("grpo_2", 2), ("grpo_3", 3)):
        assert {p.id.partition("/")[0] for p in setups[name].training} == {f"depth{d}" for d in range(1, deepest + 1)}
    with pytest.raises(UserError, match=r"config.arms.base.pretrain.data: 'depth5' is not one of depth1"):
        task_and_setups(settings("arms.base.pretrain.data=('depth5',)"))


def test_a_group_is_the_one_whose_fields_it_has():
    assert settings().task.functions == 3
    with pytest.raises(UserError, match="unknown field config.task.function: did you mean config.task.functions"):
        settings("task.function=3")
