"""The checkpoints that see, of tests/goldens/visual.py, as folders and as our models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from rlvr_limit.checkpoint import load_hf, read_model_config
from rlvr_limit.distributed.mesh import make_mesh
from rlvr_limit.models import decoder, image_layout, vision
from rlvr_limit.models.decoder import ImageTokens, ModelConfig, Params
from rlvr_limit.settings import MeshConfig
from tests.goldens import families, visual

VISUAL_NAMES = pytest.mark.parametrize("name", visual.CHECKPOINTS)
ONE_FAST = pytest.mark.parametrize("name", ["qwen25vl-untied", pytest.param("qwen25vl-tied", marks=pytest.mark.slow)])


def write_folder(folder: Path, config: dict[str, Any], tensors: dict[str, np.ndarray]) -> Path:
    """A Hugging Face folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors")
    return folder


@cache
def seeing_model(name: str, dtype: str = "float32") -> tuple[ModelConfig, Params]:
    """A checkpoint as our loader reads it."""
    with TemporaryDirectory() as folder:
        write_folder(Path(folder), visual.CHECKPOINTS[name], visual.state_dict(name))
        model = read_model_config(Path(folder), dtype)
        return model, load_hf(Path(folder), model, make_mesh(MeshConfig()))


def visual_golden(name: str) -> Any:
    """The golden of a checkpoint; the weights drawn here are held to be those it was made from."""
    stored = np.load(families.FOLDER / f"{name}.npz")
    assert str(stored["digest"]) == families.digest(visual.state_dict(name)), "NumPy draws other weights: make anew"
    return stored


@dataclass
class ShownImage:
    """An image of visual.GRIDS, or its negative, as problems carry it; counts how often it is processed."""

    number: int
    name: str = ""
    opened: int = 0

    @property
    def digest(self) -> str:
        return f"{self.number}{self.name}"

    @property
    def grid(self) -> image_layout.Grid:
        return visual.GRIDS[self.number]

    @property
    def tokens(self) -> int:
        return self.grid[1] * self.grid[2] // 4

    @property
    def patches_PC(self) -> np.ndarray:
        self.opened += 1
        patches_NC = visual.patches()[self.number]
        return -patches_NC if self.name == "negative" else patches_NC


def images_of(numbers: list[int]) -> list[ShownImage]:
    """Images of visual.GRIDS."""
    return [ShownImage(number) for number in numbers]


def seen_prompt(
    params: Params, model: ModelConfig, ids: list[int], length: int, images: Sequence[ShownImage], padded: int = 144
) -> tuple[ImageTokens | None, np.ndarray]:
    """(what a row of these tokens sees, its positions [1, T, 3]), its first `length` tokens being a prompt's."""
    layout = image_layout.prompt_layout("prompt", ids[:length], [image.grid for image in images], model.vision)
    behind = np.repeat(np.arange(length, len(ids))[:, None] + layout.delta, 3, axis=1)
    positions = np.concatenate([layout.position_T3, behind]).astype(np.int32)[None]
    if not images:
        return None, positions
    arrays = [(image.patches_PC, image.grid) for image in images]
    batch = image_layout.image_batch(arrays, model.vision, padded, len(images))
    rows = jax.jit(vision.encode, static_argnums=(1, 2))(params["vision"], model.vision, model.dtype, batch)
    row_T = np.where(layout.token_T > 0, layout.image_T * rows.shape[1] + layout.token_T, 0)
    row_T = np.pad(row_T, (0, len(ids) - length))
    return ImageTokens(rows.reshape(-1, model.width), row_T[None]), positions


def seen_logits(
    params: Params, model: ModelConfig, ids: list[int], length: int, images: Sequence[ShownImage]
) -> np.ndarray:
    """[T, V] of a row of tokens, of which so many are a prompt's."""
    seen, positions_BT3 = seen_prompt(params, model, ids, length, images)

    def compute(params: Params, seen: Any) -> jax.Array:
        hidden, _ = decoder.forward_causal(params, model, np.array([ids]), None, positions_BT3, images=seen)
        return decoder.logits(params, hidden)[0]

    return np.asarray(jax.jit(compute)(params, seen))


def shown_prompts() -> list[tuple[tuple[int, ...], tuple[ShownImage, ...]]]:
    """visual.prompts with their images."""
    return [(tuple(ids), tuple(ShownImage(i) for i in numbers)) for ids, numbers in visual.prompts()]


def seen_pairs() -> list[tuple[tuple[int, ...], tuple[int, ...], tuple[ShownImage, ...]]]:
    """Answers to visual.prompts, two of them to the first, and one where that sees the image's negative."""
    (one, image), (two, images), (text, _) = shown_prompts()
    negative = (ShownImage(0, "negative"),)
    return [
        (one, (5, 6, 7), image),
        (two, (8, visual.IMAGE, 9, 10), images),
        (one, (11,), image),
        (one, (5, 6, 7), negative),
        (text, (12, 13), ()),
    ]
