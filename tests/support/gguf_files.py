"""Small GGUF files, written byte by byte from ggml's docs/gguf.md; names and layouts are spelled out here."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.tokenizer_files import ADDED, CHATML, trained_vocabulary

NUMBERS = {bool: (7, "?"), int: (4, "I"), float: (6, "f")}
KINDS = {"F32": 0, "F16": 1, "BF16": 30}
LAYER = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    **{f"self_attn.{x}_proj": f"attn_{x}" for x in "qkv"},
    **{f"self_attn.{x}_norm": f"attn_{x}_norm" for x in "qk"},
    "self_attn.o_proj": "attn_output",
    **{f"mlp.{x}_proj": f"ffn_{x}" for x in ("gate", "up", "down")},
}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
HELD_BY = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "max_position_embeddings": "context_length",
    "head_dim": "attention.key_length",
    "vocab_size": "vocab_size",
}


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, list):
        typed = [_value(x) for x in value]
        return struct.pack("<I4sQ", 9, typed[0][:4], len(value)) + b"".join(x[4:] for x in typed)
    kind, code = NUMBERS[type(value)]
    return struct.pack(f"<I{code}", kind, value)


def metadata(fields: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """The metadata of a model of a config.json and of the vocabulary of tokenizer_files; None removes a field."""
    name = fields["model_type"]
    vocabulary, merges = trained_vocabulary()
    tokens = [*vocabulary, *ADDED]
    found = {f"{name}.{theirs}": fields[ours] for ours, theirs in HELD_BY.items() if ours in fields} | {
        "general.architecture": name,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * len(vocabulary) + [3 if special else 4 for special in ADDED.values()],
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
        "tokenizer.ggml.padding_token_id": tokens.index("<|endoftext|>"),
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHATML,
    }
    found |= {key.replace("__", "."): value for key, value in changed.items()}
    return {key: value for key, value in found.items() if value is not None}


def theirs(fields: dict[str, Any], found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Tensors of a Hugging Face folder under the names of a GGUF file, LLaMA's rotary pairs side by side."""
    heads = {"attn_q": fields["num_attention_heads"], "attn_k": fields["num_key_value_heads"]}
    renamed = {}
    for name, x in found.items():
        stem, _, kind = name.rpartition(".")
        if stem in TOP:
            renamed[f"{TOP[stem]}.{kind}"] = x
            continue
        _, _, layer, part = stem.split(".", 3)
        mine = LAYER[part]
        if fields["model_type"] == "llama" and mine in heads:
            x = x.reshape(heads[mine], 2, -1, x.shape[1]).transpose(0, 2, 1, 3).reshape(x.shape)
        renamed[f"blk.{layer}.{mine}.{kind}"] = x
    return renamed


def write_gguf(path: Path, fields: dict[str, Any], tensors: dict[str, tuple[int, tuple[int, ...], bytes]]) -> Path:
    """A file of these metadata and tensors {name: (number of its type, shape, bytes)}."""
    infos, data = b"", b""
    for name, (kind, shape, raw) in tensors.items():
        data += bytes(-len(data) % 32)
        infos += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape[::-1], kind, len(data))
        data += raw
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(fields))
    head += b"".join(_text(name) + _value(value) for name, value in fields.items()) + infos
    path.write_bytes(head + bytes(-len(head) % 32) + data)
    return path


def plain(found: dict[str, np.ndarray], kind: str = "F32") -> dict[str, tuple[int, tuple[int, ...], bytes]]:
    """Tensors for write_gguf, not quantised."""
    return {name: (KINDS[kind], x.shape, x.tobytes()) for name, x in found.items()}
