"""A config becomes arms, conditions and a run folder; what cannot be is refused in one line that names the field."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import pytest

from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import command_line
from rlvr_limit.study.prepared import Study
from rlvr_limit.types import UserError
from tests.support.smoke import REPOSITORY

pytestmark = pytest.mark.usefixtures("compilation_cache")


def prepared(tmp_path: Path, *overrides: str) -> Study:
    config = REPOSITORY / "configs" / "countdown_smoke.py"
    words = ["main.py", f"--config={config}", f"--config.runs={tmp_path}", *(f"--config.{o}" for o in overrides)]
    return prepare(command_line.parse_command_line(words, config))


def test_reinforced_arm_becomes_one_arm_a_saved_step_in_a_fixed_order(tmp_path: Path) -> None:
    names = [entry.name for entry in prepared(tmp_path).evaluated]
    assert names == ["base", "grpo-2", "grpo-4", "grpo-6", "distilled", "control"]


def test_given_weights_replace_a_recipe(tmp_path: Path) -> None:
    found = prepared(tmp_path, "arms.grpo.weights=/some/folder")
    assert "grpo" in [entry.name for entry in found.evaluated]


def test_n_scores_and_report_do_not_move_the_run_folder_but_conditions_do(tmp_path: Path) -> None:
    root = prepared(tmp_path).root
    assert prepared(tmp_path, "sampling.n=64", "score.answers=2", "report.k=8", "job=report").root == root
    for other in ("seed=1", "sampling.temperature=0.6", "arms.grpo.rl.clip=0.3", "task.guess_max=0.9"):
        assert prepared(tmp_path, other).root != root


def test_a_folder_whose_shapes_have_fields_that_are_gone_goes_on(tmp_path: Path) -> None:
    study = prepared(tmp_path)
    path = study.root / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["sessions"][-1]["shapes"]["engine"] |= {"cache_dtype": "", "speculative_tokens": 0}
    path.write_text(json.dumps(manifest))
    again = prepared(tmp_path)
    assert (again.root, again.engine) == (study.root, study.engine)


def test_a_report_needs_no_accelerators(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="config.mesh"):
        prepared(tmp_path, "mesh.data=64")
    assert prepared(tmp_path, "mesh.data=64", "job=report").mesh.size == 1


def test_seed_chooses_the_problems(tmp_path: Path) -> None:
    first, second = (prepared(tmp_path, f"seed={seed}").problems for seed in (0, 1))
    assert [p.id for p in first] != [p.id for p in second]
    assert [p.id for p in first] == [p.id for p in prepared(tmp_path, "seed=0").problems]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("arms.base.group=rl", "config.arms"),
        ("arms.control.group=odd", "config.arms.control.group"),
        ("arms.control.sft.start=grpo", "config.arms.control"),
        ("arms.control.sft.start=nobody", "config.arms.control"),
        ("arms.grpo.rl.save_at=(2,40)", "config.arms.grpo.rl.save_at"),
        ("arms.grpo.rl.minibatches=3", "config.arms.grpo.rl.minibatches"),
        ("seed=4294967296", "config.seed"),
        ("seed=-1", "config.seed"),
        ("sampling.n=0", "config.sampling.n"),
        ("score.answers=0", "config.score.answers"),
        ("report.k=33", "config.report.k"),
        ("mesh.tensor=64", "config.mesh"),
        ("task.eval_problems=500", "task.eval_problems"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, override: str, named: str) -> None:
    with pytest.raises(UserError) as refused:
        prepared(tmp_path, override)
    assert named in str(refused.value) and "\n" not in str(refused.value)


def test_a_run_without_the_cpu_is_refused_before_it_begins(tmp_path: Path) -> None:
    before = jax.config.jax_platforms
    try:
        jax.config.update("jax_platforms", "cuda")
        with pytest.raises(UserError, match="JAX_PLATFORMS is 'cuda'.* set it to 'cuda,cpu'"):
            prepared(tmp_path)
    finally:
        jax.config.update("jax_platforms", before)
