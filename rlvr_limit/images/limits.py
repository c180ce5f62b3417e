"""How many pixels an image is resized to: the size rule of Qwen2-VL's processor, and whose limits count."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_limit.types import UserError, not_allowed

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
PATCH, MERGE, FRAMES = 14, 2, 2
FACTOR = PATCH * MERGE
MOST_RATIO = 200
BICUBIC = 3

_FIXED = {
    "patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": FRAMES, "resample": BICUBIC,
    "image_mean": [*MEAN], "image_std": [*STD], "rescale_factor": 1 / 255,
    "do_resize": True, "do_rescale": True, "do_normalize": True, "do_convert_rgb": True,
}  # fmt: skip


@dataclass(frozen=True)
class PixelLimits:
    """Least and most pixels of a resized image; the defaults are those of the processor's class."""

    least: int = 3_136
    most: int = 1_003_520


def limits_of(folder: Path, least: int = 0, most: int = 0) -> PixelLimits:
    """Each limit from the config (0: not said there), else from the model folder's file, else the class's.

    UserError where the file asks for another processing than ours, or the limits exclude each other.
    """
    path = folder / "preprocessor_config.json"
    said = _read(path) if path.exists() else {}
    for name, value in _FIXED.items():
        if said.get(name) is not None and said[name] != value:
            raise not_allowed(f"{path}: {name}", said[name], str(value))
    size = said.get("size") or {}
    found = [
        config or said.get(f"{end}_pixels") or size.get(f"{end}_pixels") or size.get(edge) or default
        for config, end, edge, default in (
            (least, "min", "shortest_edge", PixelLimits.least),
            (most, "max", "longest_edge", PixelLimits.most),
        )
    ]
    if not all(isinstance(value, int) and value >= FACTOR * FACTOR for value in found) or found[0] > found[1]:
        where = "config.images" if least or most else str(path)
        raise not_allowed(f"{where}: least and most pixels", tuple(found), f"two numbers from {FACTOR**2} on in order")
    return PixelLimits(*found)


def _read(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: no readable JSON ({' '.join(str(error).split())})") from error
    if not isinstance(said, dict) or not isinstance(said.get("size") or {}, dict):
        raise UserError(f"{path}: it must be an object with named fields, and so must its size")
    return said


def resized(height: int, width: int, limits: PixelLimits, where: str) -> tuple[int, int]:
    """(height, width) that the image is resized to: multiples of 28, within the limits, its shape kept nearly.

    Python's round goes to even at a half, as in the released rule. UserError for a strip of more than 200 to 1.
    """
    if max(height, width) > MOST_RATIO * min(height, width):
        raise UserError(f"{where}: {width} x {height} pixels; no side may be more than {MOST_RATIO} times the other")
    h, w = (round(side / FACTOR) * FACTOR for side in (height, width))
    if h * w > limits.most:
        shrink = math.sqrt(height * width / limits.most)
        h, w = (max(FACTOR, math.floor(side / shrink / FACTOR) * FACTOR) for side in (height, width))
    elif h * w < limits.least:
        grow = math.sqrt(limits.least / (height * width))
        h, w = (math.ceil(side * grow / FACTOR) * FACTOR for side in (height, width))
    return h, w
