"""Plans of models that see: what the tower takes, and that decoding does not pay for it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rlvr_limit.engine.shapes import shapes_of
from rlvr_limit.models.decoder import ModelConfig
from rlvr_limit.models.image_layout import VisionConfig
from rlvr_limit.planning import fitting, plan, programs, roofline
from rlvr_limit.planning.memory import Footprint
from rlvr_limit.planning.targets import find_target
from rlvr_limit.planning.workload import BenchmarkSize, ImageSizes, Workload
from rlvr_limit.settings import EngineConfig, MeshConfig, Training

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
