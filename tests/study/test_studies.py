"""Studies: views of one arm's weights, matched entropy, arms known by their weights, weights shared between configs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_limit import checkpoint, records
from rlvr_limit.evaluation import entropy_matching, results, sample
from rlvr_limit.evaluation.entropy_matching import next_temperature, recorded_entropy
from rlvr_limit.models.decoder import ModelConfig, forward_causal, init_params, logits
from rlvr_limit.passk.entropy import Entropy, token_entropy
from rlvr_limit.settings import ArmSampling, command_line
from rlvr_limit.study.arms import sampling_of
from rlvr_limit.study.matched_temperature import MatchingRound, read_matching
from rlvr_limit.study.prepared import Study
from rlvr_limit.study.weights import load_weights
from rlvr_limit.training import loop, weight_cache
from rlvr_limit.types import UserError
from tests.support.smoke import REPOSITORY
from tests.support.studies import prepare_config

N, WITHIN = 64, 0.2
OPTIMIZER = {
    "learning_rate": 1e-3, "warmup": 1, "decay": "constant", "weight_decay": 0.0, "b2": 0.95, "clip_norm": 1.0,
    "kind": "adamw",
}  # fmt: skip


def config_of(runs: Path, arms: dict[str, Any], *overrides: str) -> Any:
    """The smoke config with these arms in place of its own."""
    words = ["main.py", f"--config={REPOSITORY / 'configs' / 'countdown_smoke.py'}", f"--config.runs={runs}"]
    words += ["--config.job=sample", f"--config.sampling.n={N}", "--config.share_samples=False"]
    words += [f"--config.{word}" for word in overrides]
    config = command_line.read_config(words, REPOSITORY / "configs" / "countdown.py")
    with config.unlocked():
        config.arms = arms
    return config


def given(label: str, group: str, weights: Path, **more: Any) -> dict[str, Any]:
    return {"label": label, "group": group, "weights": str(weights), **more}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Weights of a decoder that is unsure, and of one that is surer."""
    root = tmp_path_factory.mktemp("studies")
    before = jax.config.jax_compilation_cache_dir
    recipe = {"steps": 1, "batch": 1, "optimizer": OPTIMIZER}
    made = prepare_config(config_of(root / "runs", {"base": {"label": "base", "group": "base", "pretrain": recipe}}))
    model: ModelConfig = made.setups["base"].model
    found = {"runs": root / "runs"}
    for seed, (name, scale) in enumerate({"unsure": 2.0, "sure": 5.0}.items()):
        params = init_params(model, jax.random.key(seed))
        params = jax.tree.map(lambda x, scale=scale: x * scale if x.ndim > 1 else x, params)
        found[name] = root / name
        checkpoint.save_params(found[name], params)
    yield found
    jax.config.update("jax_compilation_cache_dir", before)


def first_of(study: Study) -> dict[str, int]:
    """Samples of each problem that the entropies are taken of."""
    return {problem.id: study.first(problem) for problem in study.problems}


def sampled(config: Any) -> Study:
    study = prepare_config(config)
    loop.train_missing(study)
    sample.sample_missing(study)
    return study


@pytest.fixture(scope="module")
def matched(folders: dict[str, Path]) -> Study:
    """Base at 0.8, a surer arm at 0.8 with two views, hotter and at the base's entropy, and the base at its entropy."""
    arms = {
        "base": given("base", "base", folders["unsure"]),
        "rl": given("rl", "rl", folders["sure"]),
        "hot": {"label": "hot", "group": "rl", "weights_of": "rl", "sampling": {"temperature": 1.5}},
        "level": {
            "label": "level",
            "group": "rl",
            "weights_of": "rl",
            "sampling": {"match_entropy": "base", "match_within": WITHIN},
        },
    }
    arms["early"] = arms["level"] | {"label": "early", "weights_of": "base"}
    arms["early"]["sampling"] = {"match_entropy": "rl", "match_within": WITHIN}
    arms["greedy"] = {"label": "greedy", "group": "other", "weights_of": "rl", "sampling": {"top_k": 1}}
    words = ("sampling.temperature=0.8", "allow_differ=('temperature', 'top_k')")
    return sampled(config_of(folders["runs"], arms, *words))


def rows_of(study: Study, arm: str) -> list[dict[str, Any]]:
    return records.read(study.root, "samples", where={"arm": arm}).to_pylist()


def test_views_of_an_arm_have_its_weights_and_samples_of_their_own(matched: Study) -> None:
    facts = records.read_manifest(matched.root)["facts"]
    assert len({facts[f"arms.{name}.weights_sha256"] for name in ("rl", "hot", "level")}) == 1
    assert facts["arms.base.weights_sha256"] != facts["arms.rl.weights_sha256"]
    tokens = {name: [row["tokens"] for row in rows_of(matched, name)] for name in ("rl", "hot", "level")}
    for one, other in (("rl", "hot"), ("rl", "level"), ("hot", "level")):
        assert np.mean([a == b for a, b in zip(tokens[one], tokens[other], strict=True)]) < 0.5


def test_every_field_of_an_arms_own_sampling_counts(matched: Study) -> None:
    rows = rows_of(matched, "greedy")
    assert len({(row["problem_id"], tuple(row["tokens"])) for row in rows}) == len(matched.problems)
    assert not np.concatenate([row["logp"] for row in rows]).any()
    sampling = ArmSampling(temperature=0.3, top_p=0.4, top_k=5, min_p=0.6)
    arm = dataclasses.replace(matched.settings.arms["hot"], sampling=sampling)
    found = sampling_of(matched.settings.sampling, arm)
    assert (found.temperature, found.top_p, found.top_k, found.min_p) == (0.3, 0.4, 5, 0.6)
    assert (found.n, found.max_tokens) == (N, matched.settings.sampling.max_tokens)


def test_entropy_on_record_is_that_of_the_tempered_distribution_of_the_models_logits(matched: Study) -> None:
    """Against the whole rows of logits of a plain forward pass, in float64, token by token."""
    found = read_matching(matched.root, "level").temperature
    for arm, temperature in (("base", 0.8), ("level", found)):
        setup, params = matched.setups[arm], load_weights(matched, matched.named(arm))
        prompts = {p.id: p.prompt_ids for p in setup.problems}
        rows = rows_of(matched, arm)
        ids = [(*prompts[row["problem_id"]], *row["tokens"]) for row in rows]
        tokens_BT = np.zeros((len(ids), max(map(len, ids))), np.int32)
        for i, line in enumerate(ids):
            tokens_BT[i, : len(line)] = line
        logits_BTV = np.asarray(
            logits(params, forward_causal(params, setup.model, jnp.asarray(tokens_BT))[0]), np.float64
        )
        entropies = []
        for i, row in enumerate(rows):
            start = len(prompts[row["problem_id"]]) - 1
            x = logits_BTV[i, start : start + len(row["tokens"])] / temperature
            p = np.exp(x - x.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            entropies.append(-(p * np.log(np.maximum(p, 1e-300))).sum(-1))
        exact = np.concatenate(entropies).mean()
        recorded = recorded_entropy(matched.root, arm, first_of(matched))
        assert recorded.tokens == sum(map(len, entropies))
        assert abs(recorded.mean - exact) < 3 * recorded.error


@pytest.mark.parametrize(("arm", "aim"), [("level", "base"), ("early", "rl")])
def test_matched_temperature_gives_the_aims_entropy_in_few_rounds_and_is_on_record(
    matched: Study, arm: str, aim: str
) -> None:
    kept = read_matching(matched.root, arm)
    assert kept.aim == aim and 1 < len(kept.rounds) <= entropy_matching.ROUNDS
    assert kept.temperature == kept.rounds[-1].temperature
    assert (kept.temperature > 0.8) == (arm == "level")
    last, target = kept.rounds[-1].entropy, recorded_entropy(matched.root, aim, first_of(matched))
    assert abs(last.mean - target.mean) + 2 * np.hypot(last.error, target.error) <= WITHIN
    assert abs(kept.rounds[0].entropy.mean - target.mean) > WITHIN
    full = recorded_entropy(matched.root, arm, first_of(matched))
    assert abs(full.mean - last.mean) < 3 * np.hypot(full.error, last.error)


def test_interrupted_matching_goes_on_to_the_same_temperature(matched: Study, tmp_path: Path) -> None:
    path = matched.root / "matching" / "level.json"
    whole = path.read_text()
    kept = json.loads(whole)
    assert len(kept["rounds"]) > 1
    try:
        path.write_text(json.dumps(kept | {"rounds": kept["rounds"][:1], "temperature": None}))
        entry = matched.named("level")
        params, model = load_weights(matched, entry), matched.setups["level"].model
        engine = sample.Engine(params, model, matched.engine, matched.settings.sampling.max_tokens)
        assert sample.temperature_of(matched, entry, engine) == kept["temperature"]
        assert json.loads(path.read_text()) == kept
    finally:
        path.write_text(whole)


def test_page_says_what_differs_by_allowance_and_how_the_temperature_was_found(matched: Study) -> None:
    study = results.results_of(matched, "", list(matched.problems))
    kept = read_matching(matched.root, "level")
    text = " ".join(study.notes)
    assert "Allowed to differ: temperature. base: 0.8; early: " in text
    assert f"; hot: 1.5; level: {kept.temperature:.4f}" in text
    assert f"found in {len(kept.rounds)} rounds" in text
    assert study.arm("hot").entropy > study.arm("rl").entropy
    assert study.arm("rl").entropy_error > 0


def test_swapped_folders_change_nothing_but_the_labels(folders: dict[str, Path]) -> None:
    drawn = []
    for base, rl in (("unsure", "sure"), ("sure", "unsure")):
        arms = {"base": given("base", "base", folders[base]), "rl": given("rl", "rl", folders[rl])}
        found = sampled(config_of(folders["runs"], arms))
        facts = records.read_manifest(found.root)["facts"]
        drawn.append(
            {
                facts[f"arms.{name}.weights_sha256"]: [
                    {k: row[k] for k in ("problem_id", "index", "tokens", "logp")} for row in rows_of(found, name)
                ]
                for name in ("base", "rl")
            }
        )
    assert len(drawn[0]) == 2 and drawn[0] == drawn[1]


def test_one_folder_under_two_labels_is_said_to_be_one_arm(folders: dict[str, Path]) -> None:
    arms = {"base": given("base", "base", folders["sure"]), "rl": given("rl", "rl", folders["sure"])}
    found = sampled(config_of(folders["runs"], arms))
    assert [r["tokens"] for r in rows_of(found, "base")] == [r["tokens"] for r in rows_of(found, "rl")]
    study = results.results_of(found, "", list(found.problems))
    assert any("base and rl are the same arm" in note for note in study.notes)


def test_arms_that_differ_are_refused_before_anything_is_made(folders: dict[str, Path], tmp_path: Path) -> None:
    arms = {
        "base": given("base", "base", folders["unsure"]),
        "rl": given("rl", "rl", folders["sure"], sampling={"temperature": 1.2}),
    }
    with pytest.raises(UserError) as refused:
        prepare_config(config_of(tmp_path, arms))
    assert "arm rl: temperature is 1.2, that of base is 1.0" in str(refused.value)
    assert not list(tmp_path.glob("countdown_smoke/*"))
    # Each panel has a base of its own, so this comparison is under equal conditions.
    arms["hot"] = {
        "label": "hot",
        "group": "base",
        "panel": "hot",
        "weights_of": "base",
        "sampling": {"temperature": 1.2},
    }
    arms["rl"]["panel"], arms["base"]["panel"] = "hot", "cold"
    made = prepare_config(config_of(tmp_path, arms))
    assert {p: [e.name for e in es] for p, es in made.panels.items()} == {"cold": ["base"], "hot": ["hot", "rl"]}


def test_panels_are_pages_of_their_own_with_a_base_of_their_own(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    arms = {
        "base": given("base", "base", folders["unsure"], panel="T=1"),
        "rl": given("rl", "rl", folders["sure"], panel="T=1"),
    }
    for name, group in (("base", "base"), ("rl", "rl")):
        more = {"weights_of": name, "sampling": {"temperature": 1.5}}
        arms[f"{name}_hot"] = {"label": name, "group": group, "panel": "T=1.5", **more}
    found = sampled(config_of(folders["runs"], arms))
    written: dict[str, Any] = {}
    monkeypatch.setattr(results.report, "write_all", lambda *args: written.update(args[3]))
    results.write_report(found)
    pages = {name: (study.base, [arm.name for arm in study.arms]) for name, study in written.items()}
    assert pages == {"T=1": ("base", ["base", "rl"]), "T=1.5": ("base_hot", ["base_hot", "rl_hot"])}
    temperatures = [study.arm(study.base).conditions["temperature"] for study in written.values()]
    assert temperatures == ["1.0", "1.5"]


@pytest.mark.parametrize(
    ("arm", "named"),
    [
        ({"weights_of": "nobody"}, "config.arms.view.weights_of"),
        ({"weights_of": "base", "weights": "somewhere"}, "config.arms.view.weights_of"),
        ({"weights_of": "base", "sampling": {"match_entropy": "view"}}, "config.arms.view.sampling.match_entropy"),
        (
            {"weights_of": "base", "sampling": {"match_entropy": "base", "temperature": 1.0}},
            "config.arms.view.sampling.temperature",
        ),
        ({"weights_of": "base", "sampling": {"temperature": -1.0}}, "config.arms.view.sampling.temperature"),
        ({"weights_of": "base", "panel": "a/b"}, "config.arms"),
        ({"weights_of": "base", "sampling": {"max_tokens": 3}}, "config.arms.view.sampling.max_tokens"),
        ({"weights_of": "base", "sharpen": {"alpha": 0.5}}, "config.arms.view.sharpen.alpha"),
        ({"weights_of": "base", "sharpen": {}, "sampling": {"temperature": 0.5}}, "config.arms.view.sharpen"),
        ({"weights_of": "base", "sharpen": {}, "sampling": {"top_p": 0.9}}, "config.arms.view.sharpen"),
    ],
)
def test_views_that_cannot_be_are_refused_by_name(
    folders: dict[str, Path], tmp_path: Path, arm: dict[str, Any], named: str
) -> None:
    arms = {"base": given("base", "base", folders["unsure"]), "view": {"label": "view", "group": "other", **arm}}
    with pytest.raises(UserError) as refused:
        prepare_config(config_of(tmp_path, arms))
    assert named in str(refused.value) and "\n" not in str(refused.value)


def test_unknown_condition_in_allow_differ_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    arms = {"base": given("base", "base", folders["unsure"]), "rl": given("rl", "rl", folders["sure"])}
    with pytest.raises(UserError, match="config.allow_differ.0.: 'temprature' is not one of"):
        prepare_config(config_of(tmp_path, arms, "allow_differ=('temprature',)"))


def recipes(runs: Path, name: str, share: bool = True, **changes: Any) -> Study:
    """A config of that name whose base takes two steps."""
    recipe = {"steps": 2, "batch": 4, "optimizer": OPTIMIZER, **changes}
    arms = {"base": {"label": "base", "group": "base", "pretrain": recipe}}
    return prepare_config(config_of(runs, arms, f"name={name}", f"share_weights={share}"))


def test_equal_recipes_of_two_configs_are_trained_once(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = []

    def run_steps(study: Study, arm: str, recipe: Any, save: dict[int, str]) -> None:
        """What training leaves: weights of its last step, and a row a step."""
        runs.append(study.settings.name)
        checkpoint.save_params(study.root / "weights" / save[2], checkpoint_of(study, folders["sure"]))
        (study.root / "train" / arm).mkdir(parents=True)
        (study.root / "train" / arm / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')

    monkeypatch.setattr(loop, "_run_steps", run_steps)
    made = [recipes(folders["runs"], *words) for words in (("first",), ("second",), ("alone", False))]
    for study in made:
        loop.train_missing(study)
    assert runs == ["first", "alone"] and len({study.root for study in made}) == 3
    assert capsys.readouterr().out.count("arm base: not trained again") == 1
    facts = [records.read_manifest(e.root)["facts"]["arms.base.weights_sha256"] for e in made]
    assert facts[0] == facts[1]
    metrics = [(e.root / "train" / "base" / "metrics.jsonl").read_text() for e in made]
    assert metrics[0] == metrics[1] and len(metrics[0].splitlines()) == 2


def checkpoint_of(study: Study, folder: Path) -> Any:
    return checkpoint.load_params(folder, study.setups["base"].model, study.mesh)


def test_whatever_decides_a_recipe_leads_elsewhere_and_what_does_not_does_not(folders: dict[str, Path]) -> None:
    def place(name: str, *overrides: str) -> Path | None:
        words = ["main.py", f"--config={REPOSITORY / 'configs' / 'countdown_smoke.py'}", "--config.share_weights=True"]
        words += [f"--config.runs={folders['runs']}", *(f"--config.{word}" for word in overrides)]
        made = prepare_config(command_line.read_config(words, REPOSITORY / "configs" / "countdown.py"))
        return weight_cache.place(made.settings, made.setups, made.engine, 1, name)

    own = place("grpo")
    for same in ("sampling.n=17", "sampling.temperature=0.6", "arms.grpo.rl.save_at=(6,)", "report.k=4", "name=other"):
        assert place("grpo", same) == own
    for other in (
        "seed=1", "arms.base.pretrain.right=0.5", "arms.grpo.rl.clip=0.3", "engine.buckets=(8, 64)", "model.width=64",
        "sampling.max_tokens=9", "task.guess_max=0.9", "training.remat=layers", "arms.grpo.rl.steps=7",
    ):  # fmt: skip
        assert place("grpo", other) not in (own, None)
    assert place("grpo", "share_weights=False") is None
    assert place("grpo", "arms.base.weights=/some/folder") is None


def test_token_entropy_is_unbiased_and_its_error_is_the_spread_over_new_samples() -> None:
    """Answers of random length whose tokens have one of two known entropies, drawn again and again."""
    rng = np.random.default_rng(0)
    rows = np.array([[0.7, 0.2, 0.1], [0.05, 0.9, 0.05]])
    entropy = -(rows * np.log(rows)).sum(1)
    problems, kind_S = np.repeat(["a", "b", "c"], 40), np.repeat([0, 1, 0], 40)
    means, errors, exact = [], [], []
    for _ in range(400):
        length_S = 1 + rng.binomial(9, np.where(kind_S == 0, 0.8, 0.3))
        token_ST = (rng.random((120, 10, 1)) > np.cumsum(rows, 1)[kind_S][:, None]).sum(-1)
        surprise_ST = -np.log(rows[kind_S[:, None], np.minimum(token_ST, 2)])
        found = token_entropy(problems, (surprise_ST * (np.arange(10) < length_S[:, None])).sum(1), length_S)
        means.append(found.mean)
        errors.append(found.error)
        exact.append((entropy[kind_S] * length_S).sum() / length_S.sum())
        assert found.tokens == length_S.sum() and found.samples == 120
    assert abs(np.mean(means) - np.mean(exact)) < 4 * np.std(means) / 20
    assert np.mean(errors) == pytest.approx(np.std(means), rel=0.12)


def test_token_entropy_of_one_sample_of_a_problem_has_a_mean_and_no_error() -> None:
    assert token_entropy(["a", "a", "b"], np.array([1.0, 2.0, 6.0]), np.array([1, 2, 3])) == Entropy(1.5, None, 6, 3)


@pytest.mark.parametrize(
    "entropy", [lambda t: t, lambda t: np.log1p(t), lambda t: 2 / (1 + np.exp(3 - 2 * t)), np.sqrt]
)
@pytest.mark.parametrize("wanted", [0.2, 0.55, 0.7, 1.4, 1.9, 3.0])
def test_temperature_search_closes_on_any_growing_entropy(entropy: Any, wanted: float) -> None:
    rounds: list[MatchingRound] = []
    target = float(entropy(wanted))
    while not rounds or abs(rounds[-1].entropy.mean - target) > 0.006:
        temperature = next_temperature(rounds, target, 0.6)
        rounds.append(MatchingRound(temperature, Entropy(float(entropy(temperature)), 0.0, 1, 1)))
        assert len(rounds) <= entropy_matching.ROUNDS


def test_answers_of_a_round_follow_from_the_wanted_error() -> None:
    known, noisy = Entropy(0.5, 0.004, 10_000, 1000), Entropy(0.5, 0.004, 20_000, 2000)
    assert entropy_matching.answers_needed((known,), 10, 0.002) == 400
    assert entropy_matching.answers_needed((known, noisy), 10, 0.002) == 800
    assert entropy_matching.answers_needed((known, known), 10, 1.0) == 2
