"""A config file and a command line become settings: any field can be set, and what cannot be is refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlvr_limit.settings import Settings, command_line
from rlvr_limit.types import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
CONFIG = '''"""A stub to test the command line with.

More about it.
"""
from ml_collections import ConfigDict

def get_config():
    recipe = {"start": "base", "steps": 3, "save_at": (1, 3), "optimizer": {"learning_rate": 0.1}}
    return ConfigDict({
        "job": "report", "task": {"numbers": 4}, "sampling": {"n": 7, "n_of": {"aime24": 9}},
        "arms": {"base": {"label": "b", "group": "base"}, "grpo": {"label": "r", "group": "rl", "rl": recipe}},
    })
'''


@pytest.fixture
def stub(tmp_path: Path) -> Path:
    (tmp_path / "configs" / "deep").mkdir(parents=True)
    path = tmp_path / "configs" / "stub.py"
    path.write_text(CONFIG)
    return path


def parsed(path: Path, *words: str) -> Settings:
    return command_line.parse_command_line(["main.py", f"--config={path}", *words], path)


def refusal(path: Path, *words: str) -> str:
    with pytest.raises(UserError) as refused:
        parsed(path, *words)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_fields_that_the_file_does_not_mention_have_their_defaults(stub: Path) -> None:
    settings = parsed(stub)
    assert (settings.sampling.n, settings.sampling.top_p, settings.mesh) == (7, 1.0, None)
    assert settings.arms["grpo"].rl.answers == 32 and settings.arms["base"].sampling.temperature is None


@pytest.mark.parametrize(
    ("words", "path", "value"),
    [
        (["--config.seed", "5"], "seed", 5),
        (["--config.sampling.top_p=1"], "sampling.top_p", 1.0),
        (["--config.sampling.top_k=12"], "sampling.top_k", 12),
        (["--config.sampling.n_of.math500=64"], "sampling.n_of", {"aime24": 9, "math500": 64}),
        (["--config.sampling.n_of.aime24=3"], "sampling.n_of", {"aime24": 3}),
        (["--config.arms.grpo.rl.segment=64"], "arms.grpo.rl.segment", 64),
        (["--config.arms.grpo.rl.save_at=(2,)"], "arms.grpo.rl.save_at", (2,)),
        (["--config.arms.grpo.rl.save_at=2"], "arms.grpo.rl.save_at", (2,)),
        (["--config.arms.grpo.rl.limits.length=(1, 8)"], "arms.grpo.rl.limits.length", (1.0, 8.0)),
        (["--config.arms.grpo.rl.value_optimizer.learning_rate=.5"], "arms.grpo.rl.value_optimizer.learning_rate", 0.5),
        (["--config.arms.base.sampling.temperature=.6"], "arms.base.sampling.temperature", 0.6),
        (["--config.arms.base.sampling.temperature=None"], "arms.base.sampling.temperature", None),
        (["--config.arms.base.prompt_of.aime24=chat"], "arms.base.prompt_of", {"aime24": "chat"}),
        (["--config.engine.reference"], "engine.reference", True),
        (["--noconfig.sampling.allow_beyond_context"], "sampling.allow_beyond_context", False),
        (["--config.sampling.allow_beyond_context=true"], "sampling.allow_beyond_context", True),
        (["--config.title=a b"], "title", "a b"),
        (["--config.title=a=b"], "title", "a=b"),
        (["--config.task=None"], "task", None),
        (["--config.benchmarks=('aime24',)"], "benchmarks", ("aime24",)),
        (["--v=0", "--config.seed=1", "--config.seed=2"], "seed", 2),
    ],
)
def test_any_field_can_be_set(stub: Path, words: list[str], path: str, value: object) -> None:
    found = parsed(stub, *words)
    for name in path.split("."):
        found = found[name] if isinstance(found, dict) else getattr(found, name)
    assert found == value and type(found) is type(value)


def test_config_may_stand_after_its_overrides_and_in_a_folder_that_is_not_typed(stub: Path) -> None:
    (stub.parent / "deep" / "inner.py").write_text(CONFIG.replace('"numbers": 4', '"numbers": 3'))
    words = ["main.py", "--config.seed", "5", "--config", str(stub.parent / "inner.py")]
    settings = command_line.parse_command_line(words, stub)
    assert (settings.seed, settings.task.numbers) == (5, 3)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("--config.task.numbrs=3", "unknown field config.task.numbrs: did you mean config.task.numbers?"),
        ("--config.numbers=3", "unknown field config.numbers: did you mean config.task.numbers?"),
        ("--config.arms.grpp.rl.kl=1", "unknown field config.arms.grpp.rl.kl: did you mean config.arms.grpo.rl.kl?"),
        (
            "--config.sampling.temprature=1",
            "unknown field config.sampling.temprature: did you mean config.samp",
        ),
        (
            "--config.mesh.zzz=1",
            "unknown field config.mesh.zzz: the fields here are config.mesh.data, ",
        ),
        ("--config.seed=abc", "config.seed: 'abc' is not of type int"),
        ("--config.seed=1.5", "config.seed: 1.5 is not of type int"),
        ("--config.seed", "config.seed: '' is not of type int"),
        ("--config.sampling.top_p=q", "config.sampling.top_p: 'q' is not of type finite float"),
        ("--config.sampling.top_p=inf", "config.sampling.top_p: 'inf' is not of type finite float"),
        ("--config.sampling.top_p=1.5", "config.sampling.top_p: 1.5 is not in (0, 1]"),
        ("--config.sampling.n=0", "config.sampling.n: 0 is not at least 1"),
        ("--config.sampling.n_of.math500=0", "config.sampling.n_of.math500: 0 is not at least 1"),
        ("--config.arms.base.sampling.min_p=2", "config.arms.base.sampling.min_p: 2.0 is not in [0, 1]"),
        (
            "--config.arms.base.sampling.min_p=x",
            "config.arms.base.sampling.min_p: 'x' is not of type finite float or ",
        ),
        ("--config.engine.buckets=(4, 0)", "config.engine.buckets[1]: 0 is not at least 1"),
        ("--config.engine.reference=1", "config.engine.reference: 1 is not of type bool"),
        ("--config.engine.reference=maybe", "config.engine.reference: 'maybe' is not of type bool"),
        ("--noconfig.engine.reference=true", "--noconfig.engine.reference=true: only a bool is switched off by no"),
        (
            "--noconfig.seed",
            "--noconfig.seed: only a bool is switched off by no, and without a value; use",
        ),
        ("--config.benchmarks=(1,2", "config.benchmarks: '(1,2' is not of type tuple of str"),
        ("--config.task={}", "config.task is a group: override its fields one by one, such as --config.task."),
        ("--config.arms=1", "config.arms is a group: override its fields one by one"),
        ("--config.arms.grpo.sft.batch=3", "config.arms.grpo.sft.steps is missing, of type int"),
        (
            "--config.job=smple",
            "config.job: 'smple' is not one of compare, sample, grade, score, judge, train, report, counts",
        ),
        ("--job=sample", "unknown flag --job: did you mean --config.job?"),
        ("--confg=x.py", "unknown flag --confg: did you mean --config?"),
        ("--qqqqq", "unknown flag --qqqqq: use --config=FILE and --config.a.b=value"),
        ("extra", "unexpected argument 'extra': overrides are written --config.a.b=value"),
    ],
)
def test_bad_command_line_is_refused_in_one_line(stub: Path, word: str, line: str) -> None:
    assert refusal(stub, word).startswith(line)


def test_file_that_is_no_config_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.py"
    path.write_text("")
    assert refusal(path) == f"{path} is not a config: it defines no get_config()"
    path.write_text("def get_config():\n    return {'job': 'report'}")
    assert refusal(path) == f"{path}: get_config() returned dict, not a ConfigDict"
    path.write_text("import ml_collections as m\ndef get_config():\n    return m.ConfigDict({'a': {'b-c': 1}})")
    assert refusal(path).startswith("unknown field config.a: ")
    (tmp_path / "a.yaml").write_text("")
    assert "is not a Python file" in refusal(tmp_path / "a.yaml")


def test_what_stands_behind_a_colon_is_given_to_the_config(tmp_path: Path) -> None:
    path = tmp_path / "named.py"
    path.write_text("import ml_collections as m\ndef get_config(name='-'):\n    return m.ConfigDict({'name': name})")
    assert [parsed(Path(f"{path}{behind}")).name for behind in ("", ":a,b:c")] == ["-", "a,b:c"]
    path.write_text("import ml_collections as m\ndef get_config():\n    return m.ConfigDict({})")
    assert refusal(Path(f"{path}:a")) == f"{path}: it takes nothing behind a colon, but 'a' stands there"


def test_sec_4_3_is_one_config_of_which_arms_can_be_taken() -> None:
    whole, some = (parsed(CONFIGS / f"omni_algorithms.py{behind}") for behind in ("", ":dapo,grpo_kl"))
    assert len(whole.arms) == 9 and list(some.arms) == ["base", "dapo", "grpo_kl"]
    assert all(some.arms[name] == whole.arms[name] for name in some.arms)
    algorithms = {name: (arm.rl.algorithm, arm.rl.save_at) for name, arm in whole.arms.items() if arm.rl}
    assert len({algorithm for algorithm, _ in algorithms.values()}) == 6
    assert {steps for name, (_, steps) in algorithms.items() if "grpo" not in name} == {(150,)}
    for name, arm in whole.arms.items():
        if arm.rl:
            r = arm.rl
            assert (r.prompts, r.answers, r.minibatches) == (256, 32 if name == "grpo_32" else 8, 1)
            assert (r.optimizer.learning_rate, r.optimizer.warmup, r.optimizer.decay) == (1e-6, 0, "constant")
            assert (r.kl, r.max_tokens) == (0.001 if name == "grpo_kl" else 0.0, 8192)
    assert whole.sampling.max_tokens == 16_384
    assert refusal(CONFIGS / "omni_algorithms.py:gpro").startswith("--config: arm: 'gpro' is not one of grpo, ppo, ")


def test_what_a_config_file_raises_is_not_hidden(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    path.write_text("def get_config():\n    return {}['missing']")
    with pytest.raises(KeyError, match="missing"):
        parsed(path)


def test_missing_config_names_the_nearest_one_and_lists_all(stub: Path) -> None:
    with pytest.raises(UserError, match=r"no config file at 'stubb' \(did you mean .*stub\.py\?\)") as refused:
        command_line.parse_command_line(["main.py", "--config=stubb"], stub)
    assert command_line.describe_configs(stub.parent) in str(refused.value)


def test_configs_are_described_by_their_first_docstring_line_without_being_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs" / "deep").mkdir(parents=True)
    (tmp_path / "configs/one.py").write_text(CONFIG)
    (tmp_path / "configs/wrong.py").write_text("def get_config(:")
    (tmp_path / "configs/deep/two.py").write_text("raise SystemExit\ndef get_config():\n    pass")
    (tmp_path / "configs/deep/base.py").write_text("")
    assert command_line.describe_configs(tmp_path / "configs").split("\n") == [
        "configs (--config=FILE):",
        "  configs/one.py       A stub to test the command line with.",
        "  configs/wrong.py     (not valid Python: line 1, invalid syntax)",
        "  configs/deep/two.py  (no docstring)",
        "",
        "Any field of a config can be overridden: --config.a.b=value. A tuple is written --config.a.b='(1, 2)'.",
    ]


@pytest.mark.parametrize("path", [p for p in CONFIGS.rglob("*.py") if "def get_config" in p.read_text()], ids=str)
def test_every_config_has_settings_within_their_ranges_and_asks_no_problem_twice(path: Path) -> None:
    found = command_line.parse_command_line(["main.py", f"--config={path}"], CONFIGS / "countdown.py")
    benchmarks = set(getattr(found, "benchmarks", ()))
    for whole, parts in (("livecodebench_v5_all", {"livecodebench_v5"}), ("omni_math", {"omni_train", "omni_test"})):
        assert whole not in benchmarks or not parts & benchmarks


def test_released_arms_are_asked_as_the_authors_asked_them() -> None:
    asked = {name: parsed(CONFIGS / f"{name}.py").arms for name in ("oat_zero_math", "dapo32b_math", "qwen7b_guessing")}
    prompts = {name: {arm: a.prompt for arm, a in arms.items()} for name, arms in asked.items()}
    assert prompts["oat_zero_math"] == {"base": "qwen_boxed", "rl": "qwen_boxed"}
    assert prompts["dapo32b_math"] == {"base": "dapo", "rl": "dapo"}
    assert prompts["qwen7b_guessing"] == {"base": "qwen_boxed", "rl": "qwen_boxed", "answer_only": "answer_only"}
    alone, base = (asked["qwen7b_guessing"][name] for name in ("answer_only", "base"))
    assert (alone.weights, alone.weights_of, alone.stop) == ("", "base", base.stop)
