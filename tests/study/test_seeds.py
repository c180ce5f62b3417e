"""Several seeds of an arm: which arms they are, what names them, and a study of them end to end."""

import dataclasses
import json
from pathlib import Path

import pytest

from rlvr_limit import records
from rlvr_limit.settings import Arm
from rlvr_limit.study.arms import expand, runs_of_algorithms, seed_index, with_runs
from rlvr_limit.types import UserError
from tests.support.smoke import run_folder, run_smoke_here
from tests.support.studies import settings_of, smoke_study

ARMS = settings_of("countdown_smoke").arms
SEEDS = ("arms.grpo.seeds=3", "arms.grpo.rl.save_at=(6,)")


def seeded(count: int, **more: Arm) -> dict[str, Arm]:
    return with_runs({**ARMS, "grpo": dataclasses.replace(ARMS["grpo"], seeds=count), **more})


def test_seeds_are_arms_that_differ_in_nothing_but_the_name() -> None:
    arms = seeded(12)
    runs = [name for name in arms if name not in ARMS]
    assert runs == [f"grpo_seed{i}" for i in range(1, 12)] and [seed_index(name) for name in runs] == [*range(1, 12)]
    assert all(arms[name] == ARMS["grpo"] for name in runs) and with_runs(arms) == arms
    assert with_runs(ARMS) == ARMS


def test_each_run_has_its_seed_in_the_label_and_the_first_keeps_its_name() -> None:
    evaluated = [entry for entry in expand(seeded(12)) if entry.group == "rl"]
    assert [entry.name for entry in evaluated][:4] == ["grpo-2", "grpo-4", "grpo-6", "grpo_seed1-2"]
    assert [entry.label for entry in evaluated if entry.step == 6] == [f"GRPO, seed {i}, step 6" for i in range(12)]
    algorithms = runs_of_algorithms(evaluated)
    assert list(algorithms) == ["GRPO, step 2", "GRPO, step 4", "GRPO, step 6"]
    assert algorithms["GRPO, step 6"] == ("grpo-6", *(f"grpo_seed{i}-6" for i in range(1, 12)))
    assert runs_of_algorithms(expand(ARMS)) == {} == runs_of_algorithms(evaluated[:3])


def test_seeds_of_what_has_one_way_to_come_about_and_names_that_are_taken_are_refused() -> None:
    base = dataclasses.replace(ARMS["base"], seeds=2)
    with pytest.raises(UserError, match=r"config\.arms\.base\.seeds: 2 is not 1, as only an rl recipe"):
        with_runs({**ARMS, "base": base})
    with pytest.raises(UserError, match=r"config\.arms\.grpo_seed1: a name that config\.arms\.grpo\.seeds = 2 needs"):
        seeded(2, grpo_seed1=dataclasses.replace(ARMS["grpo"], label="another"))


def test_a_field_that_says_one_seed_names_no_other_folder(tmp_path: Path) -> None:
    study = smoke_study(tmp_path)
    arms = records.read_manifest(study.root)["conditions"]["arms"]
    assert not any("seeds" in arm for arm in arms.values())
    assert len(smoke_study(tmp_path, *SEEDS).evaluated) == 6


@pytest.mark.slow
def test_three_runs_are_drawn_compared_and_told_of_and_the_first_is_what_it_is_alone(tmp_path: Path) -> None:
    done = run_smoke_here(tmp_path, *SEEDS, "sampling.n=16")
    assert done.returncode == 0, done.stderr
    root = run_folder(done.stdout)
    alone = run_smoke_here(tmp_path, SEEDS[1], "sampling.n=16")
    assert alone.returncode == 0, alone.stderr
    facts, one = (records.read_manifest(folder)["facts"] for folder in (root, run_folder(alone.stdout)))
    hashes = [facts[f"arms.{name}.weights_sha256"] for name in ("grpo-6", "grpo_seed1-6", "grpo_seed2-6")]
    assert len(set(hashes)) == 3 and hashes[0] == one["arms.grpo-6.weights_sha256"]
    drawn, same = (
        records.read(folder, "samples", ["problem_id", "index", "tokens"], {"arm": "grpo-6"})
        for folder in (root, run_folder(alone.stdout))
    )
    assert drawn.equals(same)
    page, summary = (root / "report" / "index.html").read_text(), json.loads((root / "report/summary.json").read_text())
    assert 'id="algorithms"' in page and summary["arms"]["grpo_seed2-6"]["label"] == "GRPO, seed 2"
    assert any(line.startswith("The algorithm: over 3 runs base minus GRPO is") for line in summary["not_resolved"])
    assert (root / "report" / "algorithms.csv").read_text().startswith("algorithm,runs,k,pass@k,low,high,")
    assert "algorithms.csv" not in (run_folder(alone.stdout) / "report" / "index.html").read_text()
