"""The config.json of Qwen2.5-VL and its tensors' names, in all layouts: the hub's, later ones, mixed ones.

The decoder's fields stand at the top, or in text_config, or in both, and then those of text_config count.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rlvr_limit.models.image_layout import VisionConfig
from rlvr_limit.models.vision import ROPE_THETA
from rlvr_limit.types import not_allowed

from .fields import field_value, require_inert

OF_THE_WHOLE = ("architectures", "model_type", "vision_config", "text_config", "image_token_id")
TOKENS = ("video_token_id", "vision_token_id", "vision_start_token_id", "vision_end_token_id", "image_token_id")
"""Fields of either part; only the last one changes logits of texts and images."""
ROPE = ("rope_scaling", "rope_parameters")
SECTIONS, TEXT_THETA = (16, 24, 24), 1e6
"""Where no field says them."""

RENAMED = re.compile(r"model\.(visual\.)|model\.language_model\.")


def hub_name(tensor: str) -> str:
    """The name of a tensor in the hub's files; since transformers 4.52 some are called otherwise."""
    return RENAMED.sub(lambda found: found[1] or "model.", tensor, count=1)


def text_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """The decoder's fields, in one place."""
    nested = fields.get("text_config")
    if not isinstance(nested, dict):
        return fields
    # Rotation has three spellings: what the nested part says in one of them, the outer part does not say in another.
    inner = [nested[name] for name in ROPE if isinstance(nested.get(name), dict)]
    counted = (*ROPE, "rope_theta") if any("rope_theta" in x for x in (nested, *inner)) else ROPE if inner else ()
    outer = {name: x for name, x in fields.items() if name not in counted}
    return outer | {name: x for name, x in nested.items() if name not in OF_THE_WHOLE}


def split_fields(path: Path, fields: dict[str, Any]) -> tuple[dict[str, Any], VisionConfig]:
    """The decoder's fields, and the tower. Raises UserError naming the field that is missing or wrong."""
    text = {name: x for name, x in text_fields(fields).items() if name not in (*OF_THE_WHOLE, *TOKENS)}
    sections = _take_sections(text)
    given = fields.get("vision_config")
    if not isinstance(given, dict):
        raise not_allowed(f"{path}: vision_config", given, "an object")
    rest = {"in_channels": given.get("in_chans")} | given
    for name in ("model_type", "in_chans", "tokens_per_second", "spatial_patch_size"):
        rest.pop(name, None)

    def take(name: str, default: int | None) -> int:
        return field_value(path, f"vision_config.{name}", rest.pop(name, None), int, default)

    rope = rest.pop("rope_parameters", None) or {}
    if rope.get("rope_theta", ROPE_THETA) != ROPE_THETA or not set(rope) <= {"rope_theta", "rope_type"}:
        raise not_allowed(f"{path}: vision_config.rope_parameters", rope, f"a rope_theta of {ROPE_THETA}")
    full = rest.pop("fullatt_block_indexes", None)
    layers = take("depth", 32)
    vision = VisionConfig(
        width=take("hidden_size", None),
        layers=layers,
        heads=take("num_heads", 16),
        ffn_width=take("intermediate_size", 3420),
        full_layers=tuple((7, 15, 23, 31) if full is None else full),
        image_token=field_value(path, "image_token_id", fields.get("image_token_id"), int, 151_655),
        rope_sections=sections,
        window=take("window_size", 112),
        patch=take("patch_size", 14),
        merge=take("spatial_merge_size", 2),
        frames=take("temporal_patch_size", 2),
        channels=take("in_channels", 3),
    )
    out = take("out_hidden_size", 3584)
    if out != text.get("hidden_size"):
        raise not_allowed(f"{path}: vision_config.out_hidden_size", out, f"hidden_size {text.get('hidden_size')}")
    for name, value in rest.items():
        require_inert(path, name, value, given, "vision_config.")
    if vision.width % vision.heads or vision.width // vision.heads % 4:
        raise not_allowed(f"{path}: vision_config.hidden_size", vision.width, f"4 x n times {vision.heads} heads")
    if not set(vision.full_layers) <= set(range(layers)):
        raise not_allowed(f"{path}: vision_config.fullatt_block_indexes", full, f"of its {layers} layers")
    if vision.window % (vision.patch * vision.merge):
        raise not_allowed(f"{path}: vision_config.window_size", vision.window, "a whole number of tokens")
    return text, vision


def _take_sections(text: dict[str, Any]) -> tuple[int, ...]:
    """Takes what is M-RoPE's own from the decoder's fields, which speak of plain rotation then."""
    sections, has_theta = SECTIONS, "rope_theta" in text
    for name in ROPE:
        if isinstance(text.get(name), dict):
            rope = {key: x for key, x in text[name].items() if x != "mrope"}
            sections = tuple(rope.pop("mrope_section", sections))
            has_theta |= "rope_theta" in rope
            text[name] = rope
    if not has_theta:
        text["rope_theta"] = TEXT_THETA
    return sections


def check_sections(path: Path, vision: VisionConfig, head_width: int) -> None:
    """Raises UserError unless the sections share out the frequencies of a head."""
    if len(vision.rope_sections) != 3 or sum(vision.rope_sections) != head_width // 2:
        where = f"{path}: mrope_section"
        raise not_allowed(where, list(vision.rope_sections), f"three numbers whose sum is {head_width // 2}")


def vision_fields(vision: VisionConfig, width: int) -> dict[str, Any]:
    """The fields that a model with a tower has beside its decoder's, in the hub's layout."""
    v = vision
    return {
        "rope_scaling": {"type": "mrope", "mrope_section": list(v.rope_sections)},
        "image_token_id": v.image_token,
        "vision_config": {
            "depth": v.layers,
            "hidden_act": "silu",
            "hidden_size": v.width,
            "intermediate_size": v.ffn_width,
            "num_heads": v.heads,
            "in_chans": v.channels,
            "out_hidden_size": width,
            "patch_size": v.patch,
            "spatial_merge_size": v.merge,
            "spatial_patch_size": v.patch,
            "temporal_patch_size": v.frames,
            "window_size": v.window,
            "fullatt_block_indexes": list(v.full_layers),
        },
    }
