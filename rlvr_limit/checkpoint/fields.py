"""Fields of a config.json: their values, and those that may be passed over.

Every field is used, known to be inert under a condition that is checked (INERT), or rejected by name: a field that is
silently dropped may be the one that makes the logits others than the published model's.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlvr_limit.types import UserError, not_allowed

Condition = Callable[[Any, dict[str, Any]], bool]
"""(value of a field, all fields of the file) -> bool."""


TOKEN_FIELDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def _is_window_off(value: Any, fields: dict[str, Any]) -> bool:
    return value is None or fields.get("use_sliding_window") is False


def _is_all_full(value: Any, fields: dict[str, Any]) -> bool:
    return value is None or (isinstance(value, list) and all(kind == "full_attention" for kind in value))


ALWAYS: tuple[Condition, str] = (lambda value, fields: True, "")
FALSE: tuple[Condition, str] = (lambda value, fields: not value, "false or 0")
NULL: tuple[Condition, str] = (lambda value, fields: value is None, "null")
ONE: tuple[Condition, str] = (lambda value, fields: value in (None, 1), "1")
INERT: dict[str, tuple[Condition, str]] = {
    **dict.fromkeys(TOKEN_FIELDS, ALWAYS),
    # Where the file came from; each tensor names its own dtype.
    **dict.fromkeys(("_name_or_path", "transformers_version", "unsloth_version", "torch_dtype", "dtype"), ALWAYS),
    # How others run or initialise a model, not what it computes.
    **dict.fromkeys(("use_cache", "initializer_range", "_attn_implementation", "_attn_implementation_autoset"), ALWAYS),
    # In released files, but read by no implementation of these families.
    **dict.fromkeys(("mask_value", "tokenizer", "unsloth_fixed"), ALWAYS),
    # use_sliding_window must be off, so that max_window_layers speaks of nothing.
    **dict.fromkeys(("attention_dropout", "mlp_bias", "use_mrope", "use_sliding_window"), FALSE),
    **dict.fromkeys(("output_attentions", "output_hidden_states"), FALSE),
    "quantization_config": NULL,
    "max_window_layers": ALWAYS,
    "sliding_window": (_is_window_off, "null, or use_sliding_window false"),
    "hidden_act": (lambda value, fields: value == "silu", '"silu"'),
    "layer_types": (_is_all_full, 'a list of "full_attention" only'),
    **dict.fromkeys(("pretraining_tp", "partial_rotary_factor"), ONE),
}
"""Field -> (the condition under which it changes no logit, what it must be)."""


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; UserError naming the file that is not there or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file; a folder in Hugging Face format has it") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be a JSON object, not {type(content).__name__}")
    return content


def require_inert(path: Path, name: str, value: Any, fields: dict[str, Any], prefix: str = "") -> None:
    """Raises UserError unless a field is one of INERT and its condition holds."""
    where = f"{path}: {prefix}{name}"
    if name not in INERT:
        raise unknown_field(where, value)
    is_inert, wanted = INERT[name]
    if not is_inert(value, fields):
        raise not_allowed(where, value, f"supported: it must be {wanted}")


def unknown_field(where: str, value: Any) -> UserError:
    """The error of a field that no decoder here has a use for."""
    return UserError(f"{where}: {value!r} is a field that this decoder does not know; remove it if it changes nothing")


def field_value(path: Path, name: str, value: Any, kind: type, default: Any) -> Any:
    """A value of a kind; ints and floats must be above 0. `default` (None: there is none) stands in for null."""
    if value is None and default is not None:
        return default
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is bool and isinstance(value, bool):
        return value
    if kind is float and number and value > 0:
        return float(value)
    if kind is int and type(value) is int and value > 0:
        return value
    wanted = {bool: "true or false", float: "a number above 0", int: "a whole number above 0"}[kind]
    if value is None:
        raise UserError(f"{path}: {name}: is missing; it must be {wanted}")
    raise not_allowed(f"{path}: {name}", value, wanted)
