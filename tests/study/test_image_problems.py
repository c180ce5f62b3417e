"""Problems with images in a study: what names them, what must agree, and what is refused before anything is drawn."""

from __future__ import annotations

import dataclasses
import json

import pytest

from rlvr_limit.planning.prepare import prepare
from rlvr_limit.settings import Arm, command_line
from rlvr_limit.study import comparability, run_folder
from rlvr_limit.types import UserError
from tests.support.smoke import REPOSITORY
from tests.support.visual_study import QUESTION, words_of, write_visual


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_visual(tmp_path_factory.mktemp("visual"), with_weights=False)


def settings(root, *overrides):
    config = REPOSITORY / "configs" / "countdown.py"
    return command_line.parse_command_line(["main.py", *words_of(root, "job=sample", *overrides)], config)


def prepared(root, *overrides):
    return prepare(settings(root, *overrides))


def test_one_question_of_three_images_is_three_problems_with_prompts_of_their_own(root):
    study = prepared(root)
    assert [p.id for p in study.problems] == ["mathvista/0", "mathvista/1", "mathvista/2"]
    assert {p.question for p in study.problems} == {QUESTION} and len({p.prompt for p in study.problems}) == 1
    assert len({run_folder.prompt_sha256(p) for p in study.problems}) == 3
    pad = study.setups["base"].model.vision.image_token
    for problem in study.problems:
        assert problem.prompt_ids.count(pad) == problem.images[0].tokens == 6


def test_pixel_limits_are_part_of_the_run_and_must_agree_between_arms(root):
    study, smaller = prepared(root), prepared(root, "images.max_pixels=3136")
    assert study.root != smaller.root
    assert "784 to 3,136 pixels" in comparability.conditions_of(smaller, smaller.base).values["images"]
    mixed = dataclasses.replace(study, setups=study.setups | {"rl": smaller.setups["rl"]})
    with pytest.raises(UserError, match="arm rl: images is 3 .*784 to 3,136 pixels"):
        comparability.differences(mixed, mixed.evaluated)


def test_other_bytes_of_an_image_are_another_run(root):
    before, path = prepared(root).root, root / "data" / "mathvista" / "images" / "0.png"
    data = path.read_bytes()
    path.write_bytes(data + b"\0")  # decoded alike
    try:
        assert prepared(root).root != before
    finally:
        path.write_bytes(data)


def test_a_swapped_arm_is_asked_with_the_images_of_other_problems(root):
    s = settings(root, "allow_differ=('images','template')")
    control = Arm("other images", "control", weights_of="base", swap_images=True)
    study = prepare(dataclasses.replace(s, arms=s.arms | {"swapped": control}))
    own, swapped = study.setups["base"].problems, study.setups["swapped"].problems
    assert [p.images for p in swapped] == [own[i].images for i in (1, 2, 0)]
    assert [p.answer for p in swapped] == [p.answer for p in own]
    assert study.setups["swapped"].variant != study.setups["base"].variant


def test_an_arm_without_a_tower_is_not_asked_about_images(root):
    path = root / "rl" / "config.json"
    config = path.read_text()
    plain = {name: x for name, x in json.loads(config).items() if "vision" not in name and "image" not in name}
    plain |= {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "rope_scaling": None}
    path.write_text(json.dumps(plain))
    try:
        with pytest.raises(UserError, match="config.arms.rl: .* has no vision tower, and problem mathvista/0 has"):
            prepared(root)
    finally:
        path.write_text(config)


def test_a_tower_of_other_patches_than_numbers_are_drawn_in_is_refused():
    few = ("task.numbers=3", "task.train_guess_max=1.0", "task.guess_max=1.0", "task.eval_problems=2")
    words = [f"--config.{word}" for word in (*few, "task.train_problems=2", "model.vision.patch=4")]
    config = REPOSITORY / "configs" / "countdown_seen.py"
    s = command_line.parse_command_line(["main.py", f"--config={config}", *words], config)
    with pytest.raises(UserError, match=r"config.model.vision.patch: 4 is not 8, .* up to task.high = 20"):
        prepare(s)
