"""A ConfigDict becomes frozen dataclasses strictly, and their digest names the conditions."""

import dataclasses
import hashlib
import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict, config_dict

from rlvr_limit.settings import schema
from rlvr_limit.types import Stop, UserError


@dataclass(frozen=True)
class Sampling:
    temperature: float = 1.0
    n: int = 64
    greedy: bool = False


@dataclass(frozen=True)
class Recipe:
    kind: str
    steps: int
    save_at: tuple[int, ...] = ()


@dataclass(frozen=True)
class Arm:
    weights: str | Recipe
    sampling: Sampling = Sampling()
    prompt: str | None = None


@dataclass(frozen=True)
class Study:
    seed: int
    target: tuple[int, ...]
    arms: dict[str, Arm]
    weights_of_terms: dict[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Unsupported:
    items: list[int]


def config_of(**changes) -> ConfigDict:
    plain = {
        "seed": 3,
        "target": (1, 99),
        "arms": {
            "base": {"weights": "folder", "sampling": {"temperature": 0.6, "n": 128, "greedy": False}},
            "rl": {"weights": {"kind": "rl", "steps": 40, "save_at": [10, 40]}},
        },
    }
    return ConfigDict(plain | changes)


def arm_with(**sampling) -> ConfigDict:
    return config_of(arms={"base": {"weights": "folder", "sampling": sampling}})


def line_of(config: ConfigDict, cls: type = Study) -> str:
    with pytest.raises(UserError) as caught:
        schema.from_config(cls, config)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nested_config_becomes_the_dataclasses_of_the_hints():
    assert schema.from_config(Study, config_of()) == Study(
        seed=3,
        target=(1, 99),
        arms={
            "base": Arm(weights="folder", sampling=Sampling(temperature=0.6, n=128)),
            "rl": Arm(weights=Recipe(kind="rl", steps=40, save_at=(10, 40))),
        },
    )


def test_what_comes_out_is_frozen_and_owns_nothing_of_the_config():
    config = config_of()
    study = schema.from_config(Study, config)
    config.arms.base.sampling.n = 7
    assert study.arms["base"].sampling.n == 128
    with pytest.raises(dataclasses.FrozenInstanceError):
        study.seed = 4


def test_int_is_taken_for_float_and_becomes_one():
    temperature = schema.from_config(Study, arm_with(temperature=1)).arms["base"].sampling.temperature
    assert temperature == 1.0 and type(temperature) is float


def test_placeholder_and_none_are_none_where_the_hint_allows_it():
    config = config_of(arms={"base": {"weights": "w", "prompt": config_dict.placeholder(str)}})
    assert schema.from_config(Study, config).arms["base"].prompt is None
    assert "config.note: None is not of type str" == line_of(config_of(note=None))


@pytest.mark.parametrize(
    ("config", "line"),
    [
        (config_of(sed=1), "unknown field config.sed: did you mean config.seed?"),
        (
            arm_with(temprature=1.0),
            "unknown field config.arms.base.sampling.temprature: did you mean config.arms.base.sampling.temperature?",
        ),
        (
            config_of(arms={"base": {"weights": {"kind": "rl", "steps": 1, "zzz": 0}}}),
            "unknown field config.arms.base.weights.zzz: the fields here are config.arms.base.weights.kind, "
            "config.arms.base.weights.steps, config.arms.base.weights.save_at",
        ),
        (config_of(seed="3"), "config.seed: '3' is not of type int"),
        (config_of(seed=True), "config.seed: True is not of type int"),
        (config_of(seed=3.0), "config.seed: 3.0 is not of type int"),
        (arm_with(temperature=True), "config.arms.base.sampling.temperature: True is not of type finite float"),
        (
            arm_with(temperature=math.inf),
            "config.arms.base.sampling.temperature: inf is not of type finite float",
        ),
        (arm_with(greedy=1), "config.arms.base.sampling.greedy: 1 is not of type bool"),
        (config_of(target=5), "config.target: 5 is not of type tuple of int"),
        (config_of(target=(1, "a")), "config.target[1]: 'a' is not of type int"),
        (config_of(weights_of_terms={"a": "b"}), "config.weights_of_terms.a: 'b' is not of type finite float"),
        (
            config_of(arms={"base": {"weights": 3}}),
            "config.arms.base.weights: 3 is not of type str or group of kind, steps, save_at",
        ),
        (
            config_of(arms={"base": {"weights": "w", "prompt": {"a": 1}}}),
            "config.arms.base.prompt: {'a': 1} is not of type str or None",
        ),
        (
            config_of(arms="base"),
            "config.arms: 'base' is not of type group of names, each group of weights, sampling, prompt",
        ),
        (ConfigDict({"target": (1, 2), "arms": {}}), "config.seed is missing, of type int"),
    ],
)
def test_bad_config_is_one_line_with_path_finding_and_remedy(config, line):
    assert line_of(config) == line


def test_a_hint_the_settings_cannot_hold_is_the_programmers_error():
    with pytest.raises(TypeError, match=r"settings cannot hold list\[int\]"):
        schema.from_config(Unsupported, ConfigDict({"items": [1]}))


samplings = st.builds(Sampling, st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.booleans())
recipes = st.builds(Recipe, st.text(), st.integers(), st.lists(st.integers()).map(tuple))
arms = st.builds(Arm, st.one_of(st.text(), recipes), samplings, st.none() | st.text())
names = st.from_regex(r"[a-z_][a-z_0-9]{0,6}", fullmatch=True)
experiments = st.builds(
    Study, st.integers(), st.lists(st.integers()).map(tuple), st.dictionaries(names, arms, max_size=3)
)


@given(experiments)
def test_settings_survive_the_way_through_json_types_and_back(study):
    there = schema.to_jsonable(study)
    assert schema.from_config(Study, there) == study
    assert schema.digest(there) == schema.digest(study)


def test_digest_is_the_sha256_of_sorted_json_without_spaces():
    text = '{"greedy":false,"n":64,"temperature":1.0}'
    assert schema.digest(Sampling()) == hashlib.sha256(text.encode()).hexdigest()[:12]
    assert schema.digest({"b": "é", "a": None}) == hashlib.sha256(b'{"a":null,"b":"\\u00e9"}').hexdigest()[:12]


def test_digest_does_not_depend_on_the_order_of_names_and_does_on_every_value():
    base, rl = Arm("w"), Arm("v", prompt="p")
    one = Study(1, (2, 3), {"base": base, "rl": rl})
    assert schema.digest(one) == schema.digest(Study(1, (2, 3), {"rl": rl, "base": base}))
    others = [
        dataclasses.replace(one, seed=2),
        dataclasses.replace(one, target=(3, 2)),
        dataclasses.replace(one, note="x"),
        dataclasses.replace(one, arms={"base": rl, "rl": base}),
        dataclasses.replace(one, arms={"base": base}),
        dataclasses.replace(one, arms={"base": Arm("w", Sampling(greedy=True)), "rl": rl}),
    ]
    assert len({schema.digest(other) for other in [one, *others]}) == 1 + len(others)


def test_digest_tells_true_from_one_and_one_from_a_float():
    assert len({schema.digest({"a": value}) for value in (1, True, 1.0, "1", None)}) == 5


def test_jsonable_reads_config_dicts_and_enums_and_refuses_the_rest():
    config = config_of().to_dict() | {"target": [1, 99]}
    assert schema.to_jsonable({"c": config_of(), "s": (Stop.EOS,)}) == {"c": config, "s": ["eos"]}
    assert type(schema.to_jsonable(Stop.EOS)) is str
    for strange in ({1: 2}, {1, 2}, object(), Sampling):
        with pytest.raises(TypeError):
            schema.to_jsonable(strange)
    with pytest.raises(ValueError):
        schema.digest({"a": math.inf})
