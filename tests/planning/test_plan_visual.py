"""Plans of models that see: what the tower takes, and that decoding does not pay for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlvr_limit.engine.shapes import shapes_of
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.models.image_layout import VisionConfig
from rlvr_limit.planning import compiling, fitting, plan, programs, roofline
from rlvr_limit.planning.memory import BackwardPass, Footprint
from rlvr_limit.planning.targets import find_target
from rlvr_limit.planning.updates import RecipeUpdates
from rlvr_limit.planning.workload import BenchmarkSize, ImageSizes, Workload
from rlvr_limit.settings import EngineConfig, MeshConfig, OptimizerConfig, Reinforced, Training

TOWER = VisionConfig(1280, 32, 16, 3420, (7, 15, 23, 31), 151_655, (16, 24, 24))
VL7B = ModelConfig(152_064, 3584, 28, 28, 4, 128, 18_944, 1e6, dtype="bfloat16", vision=TOWER)


@pytest.mark.parametrize(("tokens", "tera"), [(336, 1.8), (5_400, 38), (16_384, 173)])
def test_an_images_flop_are_those_counted_by_hand_for_the_released_tower(tokens: int, tera: float) -> None:
    assert roofline.tower_flops(TOWER, 3584, 4 * tokens) == pytest.approx(tera * 1e12, rel=0.02)


def test_a_decoded_token_costs_what_it_costs_without_a_tower() -> None:
    mesh = programs.make_mesh(MeshConfig(), ())
    sizes = shapes_of(EngineConfig(max_num_seqs=8, max_prompt_len=64, prefill_rows=1), mesh, 64)
    assert plan.token_cost(VL7B, sizes) == plan.token_cost(replace(VL7B, vision=None), sizes)


def test_an_image_as_long_as_the_prompt_is_counted_beside_the_cache() -> None:
    seen, blind = (Footprint(model, 1, "cuda") for model in (VL7B, replace(VL7B, vision=None)))
    assert seen.prefill(1, 16_384) == seen.tower(16_384) > blind.prefill(1, 16_384)
    # 512 of 65,536 queries at a time, 16 heads: 2.1 GB of scores.
    assert 3e9 < seen.tower(16_384) < 20e9


@pytest.mark.slow
def test_a_plan_names_the_towers_memory_and_time() -> None:
    engine = EngineConfig(max_prompt_len=2_048)
    images = ImageSizes(1, 1_516, 4 * 1_280)
    workload = Workload((BenchmarkSize("mathvista", 460, 128),), 2, 2_048, 400, 500, images=images)
    wanted = fitting.Wanted(VL7B, engine, workload, None, Training())
    found = plan.make_plan(wanted, find_target("h200"))
    text = plan.render(found)
    print(text)
    assert "vision tower: 676,550,144 of them, 1.35 GB; 920 images of 1,516 patches on average, once an arm" in text
    assert "encode_images of 1 x 6,144 patches" in text and "\nfits: mesh" in text


SMALL = ModelConfig(
    2_048, 128, 2, 4, 2, 32, 344, dtype="bfloat16", vision=VisionConfig(320, 4, 4, 860, (3,), 2_047, (4, 6, 6))
)


def updates(tokens: int, trains_vision: bool = True, prompts: int = 4, most: int = 1_024) -> RecipeUpdates:
    """GRPO of SMALL on one device: prompts of up to 256 + 32 tokens, each with an image, and answers of 32."""
    engine = EngineConfig(max_num_seqs=8, max_prompt_len=288, prefill_rows=1)
    workload = Workload((BenchmarkSize("a", 8, 4),), 1, 32, 32, 200, images=ImageSizes(1, most / 2, most))
    recipe = Reinforced("base", 10, (10,), OptimizerConfig(1e-6), prompts=prompts, answers=2, minibatches=1)
    training = Training(tokens=tokens, param_dtype="float32", vision=trains_vision)
    mesh = programs.make_mesh(MeshConfig(), ())
    return RecipeUpdates(SMALL, engine, mesh, training, recipe, 32, workload)


@pytest.mark.parametrize(
    ("tokens", "over", "name"),
    [
        # Prompts in rows of their own, each with its image; then rows of 352 places for prompts of 200 + 2 x 32.
        (-1, (4 * 287 + 8 * 32, 287 + 32, 4, 1_024), "policy update of 8 x 320 tokens with 4 images of 1,024 patches"),
        (704, (704, 352, 3, 1_024), "gradient of 2 x 352 tokens with 3 images of 1,024 patches, policy"),
    ],
)
def test_an_update_sees_the_images_of_its_prompts(tokens: int, over: tuple[int, ...], name: str) -> None:
    found = updates(tokens)
    assert found.at_once(tokens) == over
    assert [program.name for program in found.programs()][0] == name


def test_a_tower_that_is_left_alone_keeps_nothing_for_a_backward_pass() -> None:
    over, blind = updates(704).at_once(704), BackwardPass(704, 352)
    print_ = Footprint(SMALL, 1, "cuda")
    sizes = [print_.gradient(over, remat, 2**25) for remat in ("none", "layers")]
    frozen, alone = print_.gradient(over, "layers", 2**25, trains_vision=False), print_.gradient(blind, "layers", 2**25)
    assert sizes[0] > 1.5 * sizes[1] > 1.5 * frozen and frozen == max(alone, 3 * print_.tower(256))
    more = print_.gradient(over._replace(images=4), "none", 2**25)
    # A fourth image takes what each of the three does.
    assert more - sizes[0] == pytest.approx(sizes[0] - print_.gradient(over._replace(images=2), "none", 2**25))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tokens", "trains_vision", "most"), [(-1, True, 1_024), (704, True, 2_048), (-1, False, 1_024)]
)
def test_the_towers_backward_pass_takes_what_the_compiler_says(tokens: int, trains_vision: bool, most: int) -> None:
    target = find_target("cpu")
    found = updates(tokens, trains_vision, most=most)
    found = replace(found, mesh=programs.make_mesh(MeshConfig(), compiling.devices_of(target)[:1]))
    compiled = compiling.compile_program(found.programs()[0], target, True)
    estimate = Footprint(SMALL, 1, "cpu").gradient(found.at_once(tokens), "none", 2**25, trains_vision)
    assert 0.9 * compiled.temporaries < estimate < 1.5 * compiled.temporaries
