"""Recipes that cannot be are refused by the name of the field; those that can be say what is trained."""

from __future__ import annotations

from typing import Any

import pytest

from rlvr_limit import rl
from rlvr_limit.settings import OptimizerConfig, Reinforced, Supervised
from rlvr_limit.study import recipes
from rlvr_limit.study.recipes import check_recipe
from rlvr_limit.types import UserError

SGD = OptimizerConfig(0.1)


def reinforced(**changes: Any) -> Reinforced:
    usual = {"start": "base", "steps": 2, "save_at": (2,), "prompts": 4, "answers": 4, "minibatches": 2, "clip": 0.2}
    return Reinforced(**usual | {"optimizer": SGD} | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"segment": 4}, "rl.segment: 4 is not 0: older weights' answers need importance_cap above 0"),
        ({"segment": 4, "importance_cap": 2.0, "algorithm": "dapo"}, "rl.segment: 4 is not 0, as needed by rounds"),
        ({"segment": 4, "importance_cap": 2.0, "algorithm": "remax"}, "rl.segment: 4 is not 0, as needed by rounds"),
        ({"algorithm": "distill"}, "rl.teacher: '' is not an arm, as distill needs"),
        ({"teacher": "base"}, "rl.teacher: 'base' is not '', as grpo has no teacher"),
        ({"algorithm": "distill", "teacher": "base", "kl": 0.1}, "rl.kl: 0.1 is not 0: distill is drawn to its"),
        ({"lora_rank": 2, "start": ""}, "rl.lora_rank: 2 is not 0, as adapters need weights to start from"),
        (
            {"optimizer": OptimizerConfig(0.1, kind="adamw_bf16", b2=0.999)},
            "rl.optimizer.b2: 0.999 is not at most 0.99, as bfloat16 moments need",
        ),
    ],
)
def test_segments_and_adapters_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    recipe = reinforced(**changes)
    with pytest.raises(UserError) as raised:
        check_recipe("rl", recipe, 8)
    assert str(raised.value).startswith(said) and "\n" not in str(raised.value)


def test_segments_of_dapo_without_rounds_and_adapters_of_all_kinds_are_fine() -> None:
    recipe = reinforced(algorithm="dapo", rounds=1, segment=4, importance_cap=2.0, lora_rank=8, lora_alpha=16.0)
    check_recipe("rl", recipe, 8)
    assert recipes.adapters(recipe) == rl.Lora(8, 16.0) and recipes.adapters(reinforced()) is None
    assert recipes.adapters(Supervised(2, 2, SGD, start="base", lora_rank=3)).rank == 3


@pytest.mark.parametrize(
    ("changes", "clips"),
    [
        ({}, (0.2, 0.2)),
        ({"clip": 0.1}, (0.1, 0.1)),
        ({"algorithm": "dapo"}, (0.2, 0.28)),
        ({"algorithm": "gspo"}, (3e-4, 4e-4)),
        ({"algorithm": "gspo", "clip": 0.01, "clip_high": 0.02}, (0.01, 0.02)),
        ({"algorithm": "cispo"}, (1.0, 3.0)),
    ],
)
def test_a_clip_is_the_rows_unless_the_recipe_says_another(changes: dict[str, Any], clips: tuple[float, float]) -> None:
    found = recipes.objective(reinforced(clip=0.0) if not changes else reinforced(**{"clip": 0.0} | changes))
    assert (found.clip_low, found.clip_high) == clips


def test_adapters_need_weights_to_start_from() -> None:
    with pytest.raises(UserError, match="sft.lora_rank: 3 is not 0, as adapters need weights to start from"):
        check_recipe("sft", Supervised(2, 2, SGD, lora_rank=3), 8)
