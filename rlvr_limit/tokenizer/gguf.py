"""The tokenizer of a GGUF file, and what tokenizer_config.json would say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from rlvr_limit.tokenizer.gguf_header import read_header
from rlvr_limit.tokenizer.splits import SPLITS, byte_level
from rlvr_limit.types import UserError, not_allowed

CONTROL, USER_DEFINED, UNUSED = 3, 4, 5
"""Types of tokens; the others are ordinary ones."""
NAMED = {"bos": "bos", "eos": "eos", "pad": "padding"}
"""Tokens with a role: what Hugging Face calls them, and what a file does."""


def named_ids(fields: dict[str, Any]) -> dict[str, int]:
    """{"eos": id, ...} of the tokens that have a role."""
    ids = {ours: fields.get(f"tokenizer.ggml.{theirs}_token_id") for ours, theirs in NAMED.items()}
    return {name: number for name, number in ids.items() if number is not None}


def tokenizer_of(path: Path) -> tuple[Tokenizer, dict[str, Any]]:
    """A file's tokenizer and its tokenizer_config. UserError, naming the field, for kinds that are not supported."""
    fields = read_header(path).fields
    model, pre = (fields.get(f"tokenizer.ggml.{name}") for name in ("model", "pre"))
    if model != "gpt2":
        raise not_allowed(f"{path}: tokenizer.ggml.model", model, '"gpt2" (byte-level BPE), the one that is supported')
    if pre not in SPLITS:
        raise not_allowed(f"{path}: tokenizer.ggml.pre", pre, f"one of {', '.join(SPLITS)}")
    lists = {name: fields.get(f"tokenizer.ggml.{name}") for name in ("tokens", "token_type", "merges")}
    for name, values in lists.items():
        if not isinstance(values, list):
            raise UserError(f"{path}: tokenizer.ggml.{name}: is missing; it must be a list")
    tokens, kinds, merges = lists.values()
    if len(kinds) != len(tokens):
        raise UserError(f"{path}: tokenizer.ggml.token_type: {len(kinds)} types for {len(tokens)} tokens")
    vocabulary = {text: i for i, (text, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != UNUSED}
    try:
        backend = byte_level(vocabulary, [tuple(merge.split(" ")) for merge in merges], SPLITS[pre])
    except Exception as error:  # the library has no exception class of its own
        raise UserError(f"{path}: tokenizer.ggml.merges: the tokenizers library refuses them: {error}") from error
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": fields.get("tokenizer.ggml.add_bos_token", SPLITS[pre].begins),
        "added_tokens_decoder": {
            str(i): {"content": tokens[i], "normalized": False, "special": kind == CONTROL}
            for i, kind in enumerate(kinds)
            if kind in (CONTROL, USER_DEFINED)
        },
    }
    for name, number in named_ids(fields).items():
        if number >= len(tokens):
            raise not_allowed(f"{path}: tokenizer.ggml.{NAMED[name]}_token_id", number, f"below {len(tokens)}")
        config[f"{name}_token"] = tokens[number]
    if "tokenizer.chat_template" in fields:
        config["chat_template"] = fields["tokenizer.chat_template"]
    return backend, config
