"""Recipes that cannot be are refused by the name of the field; those that can be say what is trained."""

from __future__ import annotations

from typing import Any

import pytest

from rlvr_limit import rl
from rlvr_limit.study.recipes import Reinforced, Supervised, check_adapters, check_reinforced
from rlvr_limit.types import UserError

SGD = rl.OptimizerConfig(0.1)


def reinforced(**changes: Any) -> Reinforced:
    usual = {"start": "base", "steps": 2, "save_at": (2,), "prompts": 4, "answers": 4, "minibatches": 2, "clip": 0.2}
    return Reinforced(**usual | {"optimizer": SGD} | changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"segment": -1, "importance_cap": 2.0}, "rl.segment: found -1, 0 or more"),
        ({"segment": 4}, "rl.segment: found 4, but older weights' answers need importance_cap above 0"),
        ({"segment": 4, "importance_cap": 2.0, "algorithm": "dapo"}, "rl.segment: found 4, but it goes with neither"),
        ({"segment": 4, "importance_cap": 2.0, "algorithm": "remax"}, "rl.segment: found 4, but it goes with neither"),
        ({"lora_rank": -2}, "rl.lora_rank: found -2, 1 or more, or 0 for none"),
        ({"lora_rank": 2, "lora_alpha": 0.0}, "rl.lora_alpha: found 0.0, above 0"),
    ],
)
def test_segments_and_adapters_that_cannot_be_are_refused(changes: dict[str, Any], said: str) -> None:
    recipe = reinforced(**changes)
    with pytest.raises(UserError) as raised:
        check_adapters("rl", recipe)
        check_reinforced("rl", recipe, 8)
    assert str(raised.value).startswith(said) and "\n" not in str(raised.value)


def test_segments_of_dapo_without_rounds_and_adapters_of_all_kinds_are_fine() -> None:
    recipe = reinforced(algorithm="dapo", rounds=1, segment=4, importance_cap=2.0, lora_rank=8, lora_alpha=16.0)
    check_adapters("rl", recipe)
    check_reinforced("rl", recipe, 8)
    assert recipe.lora == rl.Lora(8, 16.0) and reinforced().lora is None
    assert Supervised(2, 2, SGD, start="base", lora_rank=3).lora.rank == 3


def test_adapters_need_weights_to_start_from() -> None:
    with pytest.raises(UserError, match="sft.lora_rank: found 3, but adapters need weights to start from"):
        check_adapters("sft", Supervised(2, 2, SGD, lora_rank=3))
