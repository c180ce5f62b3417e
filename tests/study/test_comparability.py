"""Arms are compared under equal conditions only: every one that differs is caught, named, and told where allowed."""

from __future__ import annotations

import dataclasses

import pytest

from rlvr_limit.settings import COMPARED
from rlvr_limit.study import comparability
from rlvr_limit.study.comparability import Conditions
from rlvr_limit.types import UNKNOWN, UserError

BASE = Conditions("base", "a" * 64, {name: f"{name} of all" for name in COMPARED})
RL = dataclasses.replace(BASE, arm="rl", weights_sha256="b" * 64)
ASKED_FOR = (
    "question", "template", "eos", "lengths", "temperature", "top_p", "grader", "benchmark", "engine", "dtype",
)  # fmt: skip
"""What must agree, by the project's own rule; COMPARED may hold more."""


def unlike(*fields: str) -> Conditions:
    return dataclasses.replace(RL, values=RL.values | {field: f"another {field}" for field in fields})


def test_equal_conditions_are_compared_without_a_word() -> None:
    assert comparability.check(BASE, [RL], ()) == ()
    assert set(ASKED_FOR) <= set(COMPARED)


@pytest.mark.parametrize("field", COMPARED)
def test_each_single_differing_condition_is_caught_and_shown_with_both_values(field: str) -> None:
    others = tuple(other for other in COMPARED if other != field)
    with pytest.raises(UserError) as refused:
        comparability.check(BASE, [RL, unlike(field)], others)
    said = str(refused.value)
    assert f"arm rl: {field} is another {field}, that of base is {field} of all;" in said
    assert said.endswith(f"allow_differ={(*others, field)}") and "\n" not in said


def test_all_that_differs_and_all_that_is_unknown_is_said_at_once_with_what_was_allowed_before() -> None:
    with pytest.raises(UserError) as refused:
        comparability.check(BASE, [RL, unlike("eos", "engine", "top_p")], ("top_p",))
    said = str(refused.value)
    assert "eos is another eos" in said and "engine is another engine" in said and "top_p is" not in said
    assert said.endswith("config.allow_differ=('top_p', 'eos', 'engine')")
    silent = dataclasses.replace(RL, values=RL.values | {"eos": UNKNOWN, "lengths": UNKNOWN, "top_p": UNKNOWN})
    with pytest.raises(UserError, match="arm rl: its files do not record its eos, lengths;") as refused:
        comparability.check(BASE, [silent], (), ("top_p",))
    assert str(refused.value).endswith("config.allow_unknown=('top_p', 'eos', 'lengths')")


@pytest.mark.parametrize("field", COMPARED)
def test_what_is_allowed_to_differ_is_told_and_nothing_else_is(field: str) -> None:
    assert comparability.check(BASE, [RL, unlike(field)], (field,)) == (
        f"Allowed to differ: {field}. base: {field} of all; rl: another {field}.",
    )
    assert comparability.check(BASE, [RL], (field,)) == ()


def test_distillation_may_differ_in_template_and_eos_together_and_in_no_third() -> None:
    assert len(comparability.check(BASE, [unlike("template", "eos")], ("template", "eos"))) == 2
    with pytest.raises(UserError, match="temperature"):
        comparability.check(BASE, [unlike("template", "eos", "temperature")], ("template", "eos"))


def test_arms_of_equal_weights_and_conditions_are_said_to_be_the_same() -> None:
    twin = dataclasses.replace(RL, weights_sha256=BASE.weights_sha256)
    assert comparability.equal_arms([BASE, RL]) == ()
    (said,) = comparability.equal_arms([BASE, twin])
    assert "base and rl are the same arm" in said and "aaaaaaaaaaaa" in said
    assert (
        comparability.equal_arms([BASE, dataclasses.replace(twin, values=twin.values | {"temperature": "1.2"})]) == ()
    )
    unknown = [dataclasses.replace(arm, weights_sha256="") for arm in (BASE, RL)]
    assert comparability.equal_arms(unknown) == ()
