"""Models that see against transformers: goldens of tests/goldens/visual.py, and faults that they must find."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_limit.checkpoint import huggingface
from rlvr_limit.models import image_layout, vision
from rlvr_limit.models.decoder import ModelConfig, Params
from rlvr_limit.types import UserError
from tests.goldens import families, visual
from tests.support.visual_models import (
    ONE_FAST,
    VISUAL_NAMES,
    images_of,
    seeing_model,
    seen_logits,
    seen_prompt,
    visual_golden,
)

NAME = "qwen25vl-untied"
VISION = seeing_model(NAME)[0].vision


def prompt_logits(params: Params, model: ModelConfig, ids: list[int], numbers: list[int]) -> np.ndarray:
    """[T, V] of a prompt."""
    return seen_logits(params, model, ids, len(ids), images_of(numbers))


def away(name: str, params: Params, model: ModelConfig) -> float:
    """Largest difference of a prompt's logits from those of transformers, in their standard deviations: two images."""
    stored, (one, two, _) = visual_golden(name), visual.prompts()
    logits = prompt_logits(params, model, *two)
    start, end = len(one[0]), len(one[0]) + len(two[0])
    whole = np.concatenate([np.zeros((start, logits.shape[1]), np.float32), logits])
    return float(np.abs(families.kept(whole)[start:] - stored["logits"][start:end]).max() / stored["std"])


@ONE_FAST
def test_logits_of_prompts_with_one_image_two_and_none_equal_those_of_transformers(name: str) -> None:
    model, params = seeing_model(name)
    stored = visual_golden(name)
    logits = np.concatenate([prompt_logits(params, model, *prompt) for prompt in visual.prompts()])
    off = np.abs(families.kept(logits) - stored["logits"]).max() / stored["std"]
    print(f"{name}: largest difference {off:.1e} of the logits' standard deviation")
    assert off <= 1e-4


@ONE_FAST
def test_the_towers_rows_equal_those_of_transformers_whatever_they_are_padded_to(name: str) -> None:
    model, params = seeing_model(name)
    stored = visual_golden(name)["rows"]
    for padded in (140, 256):
        seen, _ = seen_prompt(params, model, [visual.IMAGE] * 35, 35, images_of([0]), padded)
        assert np.abs(seen.rows_MD[:35] - stored).max() <= 2e-5 * np.abs(stored).max()


@VISUAL_NAMES
def test_positions_and_deltas_equal_those_of_transformers(name: str) -> None:
    stored, model = visual_golden(name), seeing_model(name)[0]
    found = [
        image_layout.prompt_layout("", ids, [visual.GRIDS[i] for i in numbers], model.vision)
        for ids, numbers in visual.prompts()
    ]
    assert np.array_equal(np.concatenate([layout.position_T3 for layout in found]), stored["places"])
    assert [layout.delta for layout in found] == stored["delta"].tolist()


def raster(x: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
    """Patches row by row in place of token by token."""
    _, rows, columns = grid
    return x.reshape(rows // 2, columns // 2, 2, 2, -1).swapaxes(1, 2).reshape(rows * columns, -1)


def second_frame_empty(x: np.ndarray, _: Any) -> np.ndarray:
    return np.where(np.arange(2)[:, None] == 0, x.reshape(-1, 3, 2, 196), 0).reshape(len(x), -1)


def other_patches(change: Callable) -> Callable[[pytest.MonkeyPatch], None]:
    def plant(patch: pytest.MonkeyPatch) -> None:
        right = image_layout.image_batch
        patch.setattr(
            image_layout,
            "image_batch",
            lambda images, *rest: right([(change(x, grid), grid) for x, grid in images], *rest),
        )

    return plant


def other_layout(change: Callable) -> Callable[[pytest.MonkeyPatch], None]:
    def plant(patch: pytest.MonkeyPatch) -> None:
        right = image_layout.prompt_layout
        patch.setattr(image_layout, "prompt_layout", lambda *args: change(right(*args)))

    return plant


def in_place_of(module: Any, name: str, wrong: Callable) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(module, name, wrong)


WIDE_OPEN = vision.AttentionPart
FAULTS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "windows": in_place_of(image_layout, "window_numbers", lambda at, *_: at[:, 0] // 8),
    "positions": other_layout(
        lambda x: x._replace(position_T3=np.repeat(np.arange(len(x.token_T), dtype=np.int32)[:, None], 3, axis=1))
    ),
    "rotary axes": in_place_of(
        vision, "rope_angles_2d", lambda c, at, right=vision.rope_angles_2d: right(c, at[..., ::-1])
    ),
    "merge order": other_patches(raster),
    "mask": in_place_of(vision, "AttentionPart", lambda k, v, length: WIDE_OPEN(k, v, jnp.full_like(length, 10**6))),
    "GELU": in_place_of(jax.nn, "gelu", lambda x, approximate, right=jax.nn.gelu: right(x, approximate=True)),
    "temporal copy": other_patches(second_frame_empty),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_moves_the_logits(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, params = seeing_model(NAME)
    FAULTS[fault](monkeypatch)
    jax.clear_caches()
    off = away(NAME, params, model)
    monkeypatch.undo()
    jax.clear_caches()
    print(f"{fault}: {off:.1e} standard deviations")
    assert off > 5e-4


@pytest.mark.slow
def test_a_planted_fault_in_the_names_of_tensors_moves_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "THIRDS", huggingface.THIRDS | {"q": 1, "k": 0})
    model, params = seeing_model.__wrapped__(NAME)
    assert away(NAME, params, model) > 5e-4


def test_a_prompt_whose_image_tokens_are_not_its_images_is_refused() -> None:
    one = visual.prompts()[0][0]
    grid = visual.GRIDS[0]
    for ids, grids in (
        (one, []),
        (one, [grid, grid]),
        (one[:30], [grid]),
        ([*one, visual.IMAGE], [grid]),
        ([1], [grid]),
    ):
        with pytest.raises(UserError, match="problem 7: the prompt has .* image tokens, which are not those of its"):
            image_layout.prompt_layout("problem 7", ids, grids, VISION)


@pytest.mark.parametrize("rows", [2, 4, 6, 8, 10, 18, 34])
def test_windows_share_out_all_patches_of_any_grid_and_fit_their_places(rows: int) -> None:
    for columns in range(2, 60, 2):
        n, grid = rows * columns, (1, rows, columns)
        padded = -(-n // 16) * 16
        batch = image_layout.image_batch([(np.zeros((n, VISION.patch_size)), grid)], VISION, padded, 1)
        windows = batch.patch_IW[0].reshape(-1, 64)
        inside = [w[:size].tolist() for w, size in zip(windows, batch.length_IW[0], strict=True)]
        assert sorted(x for window in inside for x in window) == list(range(n))
        assert np.array_equal(batch.patch_IW[0][batch.place_IN[0, :n]], np.arange(n))
        for window in filter(None, inside):
            corner = batch.position_IN2[0, window] // 8
            assert (corner == corner[0]).all()


def test_an_images_rows_do_not_depend_on_the_images_beside_it() -> None:
    model, params = seeing_model(NAME)
    encode = jax.jit(vision.encode, static_argnums=(1, 2))

    def rows(numbers: list[int], at: int) -> np.ndarray:
        batch = image_layout.image_batch([(x.patches_PC, x.grid) for x in images_of(numbers)], VISION, 144, 2)
        return np.asarray(encode(params["vision"], VISION, "float32", batch))[at, :27]

    assert np.array_equal(rows([1, 0], 0), rows([0, 1], 1)) and np.array_equal(rows([1], 0), rows([1, 1], 1))
