"""Shapes that a run chooses: they fit, they are those of the plan, and what cannot fit is refused in one line."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_limit import planning, records
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.planning import compiling, fitting, memory, prepare, programs, targets
from rlvr_limit.planning.fitting import FittedShapes, Wanted
from rlvr_limit.planning.plan import fit_over_hosts, make_plan
from rlvr_limit.planning.updates import RecipeUpdates, TrainedArm
from rlvr_limit.settings import (
    EngineConfig,
    MeshConfig,
    OptimizerConfig,
    Reinforced,
    Settings,
    Supervised,
    Training,
    schema,
)
from rlvr_limit.study.setups import task_and_setups
from rlvr_limit.types import UserError
from tests.support.plans import QWEN_7B
from tests.support.studies import settings_of

ENGINE = EngineConfig(steps_per_call=32, page_size=128, max_prompt_len=1344)
MATH = planning.Workload((planning.BenchmarkSize("a", 500, 128),), 2, 16_384, 1024, 128)
FEW_LAYERS = dataclasses.replace(QWEN_7B, layers=3)
GRPO = Reinforced("base", 100, (100,), OptimizerConfig(1e-6), prompts=64, answers=8)


def wanted(model: ModelConfig = QWEN_7B, longest: int = 16_384, **fields) -> Wanted:
    return Wanted(model, ENGINE, dataclasses.replace(MATH, max_tokens=longest), **fields)


def shapes(name: str, **fields) -> FittedShapes:
    return fit_over_hosts(wanted(**fields), planning.find_target(name))[0]


@pytest.mark.parametrize(
    ("name", "mesh"),
    [
        ("h200", MeshConfig()),
        ("h100", MeshConfig()),
        ("a100-80", MeshConfig()),
        ("h200-8", MeshConfig(data=8)),
        ("v5e-8", MeshConfig(data=2, tensor=4)),
        ("v5p-8", MeshConfig(data=4)),
        ("gpu:40GB-2", MeshConfig(data=1, tensor=2)),
    ],
)
def test_seven_billion_parameters_fit_with_every_device_at_work(name: str, mesh: MeshConfig) -> None:
    chosen, target = shapes(name), planning.find_target(name)
    assert chosen.mesh == mesh and chosen.fits(target)
    assert chosen.engine.max_num_seqs >= 128 * mesh.data
    case = fitting.FitCase(QWEN_7B, chosen.engine, MATH, programs.make_mesh(mesh, ()), target.memory)
    assert case.weight_bytes + case.cache_bytes < target.memory and case.held(16_384) >= 1


def test_an_h200_draws_256_sequences_of_16384_tokens_of_seven_billion_parameters() -> None:
    assert shapes("h200").engine.max_num_seqs >= 256


@settings(max_examples=25, deadline=None)
@given(
    model=st.sampled_from([FEW_LAYERS, dataclasses.replace(FEW_LAYERS, kv_heads=1)]),
    name=st.sampled_from(["rtx4090", "gpu:12GB-4", "gpu:16GB-8", "v5e-16", "v5p-8", "gpu:40GB"]),
    longest=st.sampled_from([256, 2048, 16_384]),
    trained=st.booleans(),
)
def test_what_is_chosen_fits_and_holds_a_longest_answer_or_says_what_would(
    model: ModelConfig, name: str, longest: int, trained: bool
) -> None:
    arms = (TrainedArm("grpo", GRPO, longest),) if trained else ()
    target = planning.find_target(name)
    try:
        chosen, hosts = fit_over_hosts(
            wanted(model, longest, trained=arms, training=Training(param_dtype="float32")), target
        )
    except UserError as error:
        assert "\n" not in str(error) and "GB of a device" in str(error) and "sampling.max_tokens" in str(error)
        return
    mesh = programs.make_mesh(chosen.mesh, (), hosts)
    case = fitting.FitCase(model, chosen.engine, dataclasses.replace(MATH, max_tokens=longest), mesh, target.memory)
    assert chosen.peak_bytes <= target.memory and case.held(longest) >= 1
    assert chosen.engine.max_num_seqs % mesh.size == 0 and chosen.engine.buckets[-1] == chosen.engine.max_num_seqs
    assert bool(chosen.training_bytes) == trained
    if trained:
        assert chosen.training.tokens == -1 or chosen.training.tokens >= longest + ENGINE.max_prompt_len


def test_more_memory_draws_no_fewer_sequences() -> None:
    numbers = [shapes(f"gpu:{size}GB").engine.max_num_seqs for size in (30, 40, 60, 80, 120, 180)]
    assert numbers == sorted(numbers) and numbers[0] < numbers[-1]


def test_what_is_set_by_hand_is_kept_and_refused_where_it_does_not_fit() -> None:
    by_hand = dataclasses.replace(ENGINE, max_num_seqs=40, cache_tokens=700_000, buckets=(8, 40), prefill_rows=3)
    target = planning.find_target("h200")
    chosen = fitting.fit(dataclasses.replace(wanted(), engine=by_hand, workers=7, checkpoint_seconds=3.0), target)
    assert chosen.engine == by_hand and (chosen.workers, chosen.checkpoint_seconds) == (7, 3.0)
    # 57,344 bytes a token of cache: 244 GB, as the flagship config once asked for.
    large = dataclasses.replace(ENGINE, max_num_seqs=256, cache_tokens=256 * 16_640)
    with pytest.raises(UserError, match=r"h200: sampling 16,384 tokens .* engine.cache_tokens take less"):
        fitting.fit(dataclasses.replace(wanted(), engine=large), target)
    with pytest.raises(UserError, match=r"config.mesh: \(2, 1, 1\) needs 2 devices, h200 has 1"):
        shapes("h200", mesh=MeshConfig(data=2))


def test_training_leaves_the_sampler_less_room_and_is_refused_where_its_state_is_too_large() -> None:
    arm = (TrainedArm("grpo", dataclasses.replace(GRPO, optimizer=OptimizerConfig(1e-6, kind="adamw_bf16")), 16_384),)
    training = Training(param_dtype="float32")
    alone, beside = shapes("h200"), shapes("h200", trained=arm, training=training)
    assert beside.engine.cache_tokens < alone.engine.cache_tokens
    # Weights, gradients and two moments of 16 bits: 12 bytes of 7.6e9 parameters, and the activations.
    assert 91e9 < beside.training_bytes < 134e9
    with pytest.raises(UserError, match="training arm grpo .* lora_rank above 0 or optimizer.kind adafactor"):
        shapes("h100", trained=arm, training=training)


def test_a_window_holds_the_layers_whole_that_fsdp_has_cut_and_a_plan_leaves_room_for_them() -> None:
    """XLA gathers them before the first step of a window: seen in what it compiles for a v5e-8, 6.5 GB at tensor 2."""
    layer = 2 * 3584 * 3584 + 3584 + 2 * (3584 * 512 + 512) + 3 * 3584 * 18_944 + 2 * 3584
    gathered = 2 * (28 * layer + 3584) / 2
    whole, cut = (memory.Footprint(QWEN_7B, 2, "tpu", fsdp).decode_window(48, 32) for fsdp in (1, 4))
    assert cut - whole == gathered
    asked, target = prepare.assumed(settings_of("qwen7b_grpo")), planning.find_target("v5e-8")
    chosen = fitting.fit(asked, target)
    assert chosen.mesh == MeshConfig(fsdp=2, tensor=4)
    mesh = programs.make_mesh(chosen.mesh, ())
    case = fitting.FitCase(QWEN_7B, chosen.engine, asked.workload, mesh, target.memory)
    (arm,) = asked.trained
    state = RecipeUpdates(QWEN_7B, ENGINE, mesh, chosen.training, arm.recipe, arm.answer_len).beside_sampler(1)
    assert case.weight_bytes + case.cache_bytes + gathered / 2 + state < target.memory


def test_an_update_keeps_activations_where_there_is_room_and_computes_them_again_where_there_is_not() -> None:
    half = ModelConfig(151_936, 896, 24, 14, 2, 64, 4864, tied_embedding=True, dtype="bfloat16")
    arm = (TrainedArm("grpo", dataclasses.replace(GRPO, minibatches=1), 1024),)
    fields = {"model": half, "longest": 1024, "trained": arm, "training": Training(param_dtype="float32")}
    roomy, narrow = shapes("h200", **fields).training, shapes("rtx4090", **fields).training
    assert roomy.tokens == -1 or roomy.tokens > narrow.tokens
    assert narrow.tokens > 0


@pytest.mark.parametrize("name", ["h200-8", "h100-4", "gpu:80GB-2", "v5e-8", "v5p-8", "here"])
def test_a_run_chooses_what_the_plan_of_its_machine_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is told to the run; its devices are the CPU's."""
    machine = planning.find_target(name)
    s = at_auto("countdown_smoke", tmp_path)
    planned, _ = fit_over_hosts(prepare.wanted_by(s, task_and_setups(s)[1]), machine)
    monkeypatch.setattr(prepare, "find_target", lambda _: machine)
    study = prepare.prepare(s)
    ran = schema.from_config(FittedShapes, records.read_manifest(study.root)["sessions"][-1]["shapes"])
    assert ran == planned and (study.engine, study.settings.mesh) == (planned.engine, planned.mesh)
    # What XLA shows as several CPUs is one, and is used as one.
    assert study.mesh.size == (1 if machine.platform == "cpu" else machine.host_devices)


@pytest.mark.slow  # the test above holds the shapes, test_plan.py what is compiled of a plan and how it is told
def test_a_plan_of_this_machine_has_the_shapes_of_a_run_on_it(tmp_path: Path) -> None:
    s = at_auto("countdown_smoke", tmp_path)
    plan = make_plan(prepare.wanted_by(s, task_and_setups(s)[1]), planning.find_target("here"))
    assert prepare.prepare(s).engine == plan.shapes.engine
    assert planning.render(plan).split("\n\n")[-1].startswith("fits: ")


def test_a_run_that_goes_on_keeps_the_shapes_of_its_folder_where_they_fit_and_says_where_they_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    s = at_auto("countdown_smoke", tmp_path)
    large, small = planning.find_target("h200-8"), planning.find_target("gpu:24GB")
    monkeypatch.setattr(prepare, "find_target", lambda _: small)
    first = prepare.prepare(s)
    monkeypatch.setattr(prepare, "find_target", lambda _: large)
    assert prepare.prepare(s).engine == first.engine and "other shapes" not in capsys.readouterr().out
    again = dataclasses.replace(s, runs=str(tmp_path / "other"))
    wide = prepare.prepare(again)
    assert wide.mesh.size == 8
    monkeypatch.setattr(prepare, "find_target", lambda _: small)
    assert prepare.prepare(again).mesh.size == 1
    assert "other shapes than this folder was begun with: samples agree with earlier ones within rounding" in (
        capsys.readouterr().out
    )


def test_a_report_of_a_run_that_would_not_fit_here_needs_no_room(tmp_path: Path) -> None:
    s = dataclasses.replace(at_auto("countdown_smoke", tmp_path), job="report")
    huge = dataclasses.replace(s.engine, max_num_seqs=10**6, cache_tokens=10**12)
    assert prepare.prepare(dataclasses.replace(s, engine=huge)).mesh.size == 1


def test_targets_are_any_number_of_named_gpus_any_memory_and_the_sizes_of_pods() -> None:
    names = ("h100", "a100-40-4", "h200-128", "gpu:80GB", "v6e-16", "v5p-8")
    named = {name: planning.find_target(name) for name in names}
    counts = {name: (target.devices, target.hosts) for name, target in named.items()}
    assert [counts[name] for name in names] == [(1, 1), (4, 1), (128, 16), (1, 1), (16, 4), (4, 1)]
    assert named["gpu:80GB"].memory == named["h100"].memory < 80e9
    for wrong in ("h300", "v5e-7", "h200-12-2", "gpu:80"):
        with pytest.raises(UserError, match=f"config.target: '{wrong}' is not one of h200, h100"):
            planning.find_target(wrong)
    here = planning.find_target("here")
    assert (here.platform, here.devices) == ("cpu", jax.local_device_count()) and here.memory > 10**8


def test_a_limit_of_the_shell_or_of_a_control_group_is_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = targets.host_memory()
    group = tmp_path / "memory.max"
    monkeypatch.setattr(targets, "CGROUP", group)
    group.write_text("max\n")
    assert targets.host_memory() >= whole
    group.write_text("1000000000\n")
    assert targets.host_memory() == 10**9
    monkeypatch.setattr(targets.resource, "getrlimit", lambda _: (3 * 10**9, 10**10))
    assert targets.host_memory() == 3 * 10**9 - targets.RESERVED


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["none", "layers"])
@pytest.mark.parametrize("name", ["cpu", "h200"])
def test_arithmetic_covers_what_the_compiler_says_and_not_twice_that(name: str, remat: str) -> None:
    """Two layers of a 0.5B model: a window, a batch of prompts, scores, a gradient."""
    target = planning.find_target(name)
    if compiling.missing_extra(target):
        pytest.skip("needs the compiler of the cuda13 extra, no device: pip install -e '.[cuda13]'")
    model = ModelConfig(151_936, 896, 2, 14, 2, 64, 4864, tied_embedding=True, dtype="bfloat16")
    engine = dataclasses.replace(ENGINE, max_num_seqs=64, cache_tokens=64_000, prefill_rows=8, max_prompt_len=256)
    mesh = programs.make_mesh(MeshConfig(), compiling.devices_of(target)[:1])
    sizes = fitting.FitCase(model, engine, MATH, mesh, target.memory).sizes
    print_ = memory.Footprint(model, 1, target.platform)
    training = Training(tokens=4 * 512, remat=remat, param_dtype="float32")
    recipe = Supervised(10, 16, OptimizerConfig(1e-6))
    updates = RecipeUpdates(model, dataclasses.replace(engine, max_prompt_len=256), mesh, training, recipe, 256)
    pairs = {
        print_.scorer(2 * (256 + 2048)): programs.scorer(model, mesh, 2, 256, 2048),
        print_.gradient(updates.at_once(2048), remat, 2**25): updates.programs()[0],
    }
    if target.platform != "cpu":
        pairs[print_.decode_window(64, 32)] = programs.decode_window(model, sizes, mesh, 64)
        pairs[print_.prefill(8, 256)] = programs.prefill(model, engine, sizes, mesh, 256)
    for estimate, program in pairs.items():
        compiled = compiling.compile_program(program, target, True)
        assert 0.9 * compiled.temporaries < estimate < 2.2 * compiled.temporaries, program.name


def at_auto(name: str, folder: Path) -> Settings:
    """A config with every shape left to be chosen."""
    s = settings_of(name)
    engine = EngineConfig(steps_per_call=6, page_size=24, max_prompt_len=6)
    return dataclasses.replace(s, engine=engine, runs=str(folder), checkpoint_seconds=0.0)
