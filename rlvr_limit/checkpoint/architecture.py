"""config.json <-> ModelConfig, for the families that the decoder covers. Every field counts: see fields.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from rlvr_limit.models.decoder import ModelConfig, RopeScaling
from rlvr_limit.tokenizer.gguf_header import is_gguf
from rlvr_limit.types import UserError, not_allowed

from . import gguf, visual
from .fields import field_value, read_json, require_inert, unknown_field


class ModelFamily(NamedTuple):
    """What an architecture fixes without a field of its own."""

    model_type: str
    qkv_bias: bool
    qk_norm: bool
    sees: bool = False


FAMILIES = {
    "Qwen2ForCausalLM": ModelFamily("qwen2", qkv_bias=True, qk_norm=False),
    "Qwen3ForCausalLM": ModelFamily("qwen3", qkv_bias=False, qk_norm=True),
    "LlamaForCausalLM": ModelFamily("llama", qkv_bias=False, qk_norm=False),
    "Qwen2_5_VLForConditionalGeneration": ModelFamily("qwen2_5_vl", qkv_bias=True, qk_norm=False, sees=True),
}
DTYPES = ("float32", "bfloat16")


def read_model_config(folder: Path, dtype: str) -> ModelConfig:
    """The model that folder/config.json or a GGUF file describes, to be held in `dtype` ("float32" or "bfloat16").

    Raises UserError naming the file and the field that is missing, wrong, or asks for what the decoder does not do.
    """
    path = folder if is_gguf(folder) else folder / "config.json"
    fields = gguf.config_fields(path) if path == folder else read_json(path)
    if dtype not in DTYPES:
        raise not_allowed("dtype", dtype, f"one of {', '.join(DTYPES)}")
    family = _family(path, fields)
    vision = None
    if family.sees:
        fields, vision = visual.split_fields(path, fields)
    rest = dict(fields)

    def take(name: str, kind: type, default: Any = None) -> Any:
        return field_value(path, name, rest.pop(name, None), kind, default)

    for name in ("architectures", "model_type", "attention_bias"):
        rest.pop(name, None)
    width, heads = take("hidden_size", int), take("num_attention_heads", int)
    head_width = take("head_dim", int, 0 if family.model_type == "qwen3" or width % heads else width // heads)
    kv_heads = take("num_key_value_heads", int, heads if family.model_type == "llama" else None)
    rope_theta, rope_scaling = _rope(path, rest)
    model = ModelConfig(
        vocab_size=take("vocab_size", int),
        width=width,
        layers=take("num_hidden_layers", int),
        heads=heads,
        kv_heads=kv_heads,
        head_width=head_width,
        ffn_width=take("intermediate_size", int),
        rope_theta=rope_theta,
        norm_eps=take("rms_norm_eps", float),
        qkv_bias=family.qkv_bias,
        tied_embedding=take("tie_word_embeddings", bool, False),
        dtype=dtype,
        qk_norm=family.qk_norm,
        rope_scaling=rope_scaling,
        context=_context(path, rest),
        vision=vision,
    )
    if head_width < 2 or head_width % 2:
        raise UserError(f"{path}: head_dim: {heads} heads of a width of {width} need a head_dim, and an even one")
    if heads % kv_heads:
        raise not_allowed(f"{path}: num_key_value_heads", kv_heads, f"a divisor of {heads} heads")
    if vision is not None:
        visual.check_sections(path, vision, head_width)
    for name, value in rest.items():
        require_inert(path, name, value, fields)
    return model


def model_config_json(config: ModelConfig, token_ids: dict[str, Any]) -> dict[str, Any]:
    """The fields of the config.json of a model, with its token_ids (TOKEN_FIELDS). UserError where no family has it."""
    c = config
    traits = c.qkv_bias, c.qk_norm, c.vision is not None
    named = [name for name, f in FAMILIES.items() if (f.qkv_bias, f.qk_norm, f.sees) == traits]
    if not named:
        raise UserError(
            "export: no supported architecture has both biases on q, k, v and norms of q, k (qkv_bias, qk_norm)"
        )
    fields = {
        "architectures": named,
        "model_type": FAMILIES[named[0]].model_type,
        "hidden_act": "silu",
        "hidden_size": c.width,
        "intermediate_size": c.ffn_width,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "tie_word_embeddings": c.tied_embedding,
        "torch_dtype": c.dtype,
        "vocab_size": c.vocab_size,
        **token_ids,
    }
    if c.head_width * c.heads != c.width or c.qk_norm:
        fields["head_dim"] = c.head_width
    if c.context:
        fields["max_position_embeddings"] = c.context
    if c.rope_scaling is not None:
        fields["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": c.rope_scaling.factor,
            "low_freq_factor": c.rope_scaling.low_freq_factor,
            "high_freq_factor": c.rope_scaling.high_freq_factor,
            "original_max_position_embeddings": c.rope_scaling.original_positions,
        }
    if c.vision is not None:
        fields |= visual.vision_fields(c.vision, c.width)
    return fields


def stop_tokens(folder: Path) -> tuple[int, ...]:
    """Tokens that end an answer: eos_token_id of generation_config.json, else of config.json; empty if neither says.

    Those of a GGUF file are named in its metadata.
    """
    if is_gguf(folder):
        return gguf.end_tokens(folder)
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        given = visual.text_fields(read_json(path)).get("eos_token_id") if path.is_file() else None
        if given not in (None, []):
            ids = tuple(given) if isinstance(given, list) else (given,)
            if not all(type(i) is int and i >= 0 for i in ids):
                raise not_allowed(f"{path}: eos_token_id", given, "a token id or a list of them")
            return ids
    return ()


def check_vocabulary(model: ModelConfig, tokenizer_size: int, where: str) -> None:
    """UserError where a tokenizer of ids 0 .. tokenizer_size - 1 goes beyond the model's embedding.

    A model may have more rows than the tokenizer has ids: Qwen2.5 pads 151,665 ids to 151,936 or 152,064 rows.
    """
    if tokenizer_size > model.vocab_size:
        raise UserError(
            f"{where}: the tokenizer's ids go up to {tokenizer_size - 1}, but the model embeds only ids below "
            f"{model.vocab_size} (vocab_size); take weights and tokenizer of the same model"
        )


def _family(path: Path, fields: dict[str, Any]) -> ModelFamily:
    """The family of a config.json."""
    named = fields.get("architectures")
    name = named[0] if isinstance(named, list) and len(named) == 1 else None
    if name not in FAMILIES:
        raise not_allowed(f"{path}: architectures", named, f"one of {', '.join(FAMILIES)}")
    family = FAMILIES[name]
    if fields.get("model_type", family.model_type) != family.model_type:
        raise not_allowed(f"{path}: model_type", fields["model_type"], f'"{family.model_type}" for {name}')
    # Where the other families have the field, it would put a bias on the output projection too.
    if fields.get("attention_bias", family.qkv_bias) is not family.qkv_bias:
        wanted = f"{str(family.qkv_bias).lower()} for {name}"
        raise not_allowed(f"{path}: attention_bias", fields["attention_bias"], wanted)
    return family


def _rope(path: Path, rest: dict[str, Any]) -> tuple[float, RopeScaling | None]:
    """Takes the fields of rotary positions, in the spelling of transformers before 5 or since."""
    old, new = rest.pop("rope_scaling", None), rest.pop("rope_parameters", None)
    for name, given in (("rope_scaling", old), ("rope_parameters", new)):
        if given is not None and not isinstance(given, dict):
            raise not_allowed(f"{path}: {name}", given, "an object or null")
    if old and new and old != new:
        raise UserError(f"{path}: rope_scaling {old!r} and rope_parameters {new!r} differ; keep one of them")
    name = "rope_parameters" if new else "rope_scaling"
    inner = dict(new or old or {})
    thetas = [x for x in (rest.pop("rope_theta", None), inner.pop("rope_theta", None)) if x is not None]
    kinds = [x for x in (inner.pop("rope_type", None), inner.pop("type", None)) if x is not None] or ["default"]
    if len(set(thetas)) > 1:
        raise UserError(f"{path}: rope_theta: has two values, {thetas[0]!r} and {thetas[1]!r}")
    theta = field_value(path, "rope_theta", thetas[0] if thetas else None, float, 10_000.0)
    require_inert(path, "partial_rotary_factor", inner.pop("partial_rotary_factor", None), {}, f"{name}.")
    scaling = None
    if set(kinds) == {"llama3"}:

        def take(field: str, kind: type) -> Any:
            return field_value(path, f"{name}.{field}", inner.pop(field, None), kind, None)

        scaling = RopeScaling(
            take("factor", float),
            take("low_freq_factor", float),
            take("high_freq_factor", float),
            take("original_max_position_embeddings", int),
        )
        if not scaling.low_freq_factor < scaling.high_freq_factor:
            where = f"{path}: {name}.high_freq_factor"
            raise not_allowed(where, scaling.high_freq_factor, f"above low_freq_factor {scaling.low_freq_factor}")
    elif set(kinds) != {"default"}:
        raise not_allowed(f"{path}: {name}.rope_type", kinds[0], "default or llama3")
    for field, value in inner.items():
        raise unknown_field(f"{path}: {name}.{field}", value)
    return theta, scaling


def _context(path: Path, rest: dict[str, Any]) -> int:
    """Takes the fields that say how many positions a model is made for; 0 where none does.

    Dual chunk attention (An et al. 2024) leaves every distance as it is up to chunk_size, and rescales nothing up to
    the positions of pre-training, so up to the smaller of the two it is plain attention, and there the context ends.
    """
    context = field_value(path, "max_position_embeddings", rest.pop("max_position_embeddings", None), int, 0)
    chunks = rest.pop("dual_chunk_attention_config", None)
    if not chunks:
        return context
    known = {"chunk_size", "local_size", "original_max_position_embeddings"}
    if not isinstance(chunks, dict) or set(chunks) != known:
        raise not_allowed(f"{path}: dual_chunk_attention_config", chunks, f"an object of {', '.join(sorted(known))}")
    limits = [
        field_value(path, f"dual_chunk_attention_config.{name}", chunks[name], int, None) for name in sorted(known)
    ]
    plain = min(limits[0], limits[2])
    return min(context, plain) if context else plain
