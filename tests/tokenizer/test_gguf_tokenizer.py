"""Tokenizers of GGUF files: those of a folder of the same vocabulary; other kinds are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlvr_limit.tokenizer import load_tokenizer
from rlvr_limit.types import UserError
from tests.support.checkpoint_folders import QWEN2
from tests.support.gguf_files import metadata, write_gguf
from tests.support.tokenizer_files import ADDED, LINES, write_qwen2

TEXTS = [*LINES, "1234567 cafe\u0301 it's\n\n  x <tool_call>é</tool_call>\t", "\u6771\u4eac \U0001f642<|endoftext|>"]


def written(path: Path, **changed: Any) -> Path:
    return write_gguf(path / "m.gguf", metadata(QWEN2, **changed), {})


def test_it_is_the_tokenizer_of_a_folder_of_the_same_vocabulary(tmp_path: Path) -> None:
    ours, theirs = load_tokenizer(written(tmp_path)), load_tokenizer(write_qwen2(tmp_path / "folder"))
    for text in TEXTS:
        assert ours.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))
    said = [(t.vocab_size, t.eos_id, t.pad_id, t.lead, t.special_tokens, t.chat_template) for t in (ours, theirs)]
    assert said[0] == said[1]


def test_digits_are_split_as_the_name_of_the_split_says(tmp_path: Path) -> None:
    vocabulary, merges = metadata(QWEN2)["tokenizer.ggml.tokens"], metadata(QWEN2)["tokenizer.ggml.merges"]
    changed = {
        "tokenizer__ggml__tokens": [*vocabulary[: -len(ADDED)], "12", *ADDED],
        "tokenizer__ggml__token_type": [1] * (len(vocabulary) - len(ADDED) + 1) + [3] * len(ADDED),
        "tokenizer__ggml__merges": [*merges, "1 2"],
    }
    pieces = {
        pre: len(load_tokenizer(written(tmp_path, tokenizer__ggml__pre=pre, **changed)).encode("1212"))
        for pre in ("qwen2", "smollm", "llama-bpe")
    }
    assert pieces == {"qwen2": 4, "smollm": 4, "llama-bpe": 3}  # 12|1|2: up to three digits stay together


def test_a_text_begins_as_the_file_says_or_else_as_its_kind_does(tmp_path: Path) -> None:
    start = metadata(QWEN2)["tokenizer.ggml.tokens"].index("<|im_start|>")
    said = (("qwen2", None), ("qwen2", True), ("llama-bpe", None), ("llama-bpe", False))
    named = [{"tokenizer__ggml__pre": pre, "tokenizer__ggml__add_bos_token": begins} for pre, begins in said]
    leads = [load_tokenizer(written(tmp_path, tokenizer__ggml__bos_token_id=start, **kind)).lead for kind in named]
    assert leads == ["", "<|im_start|>", "<|im_start|>", ""]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokenizer__ggml__model": "llama"}, "tokenizer.ggml.model: 'llama' is not \"gpt2\""),
        ({"tokenizer__ggml__pre": "tekken"}, "tokenizer.ggml.pre: 'tekken' is not one of qwen2, .*smollm"),
        ({"tokenizer__ggml__pre": None}, "tokenizer.ggml.pre: None is not one of"),
        ({"tokenizer__ggml__merges": None}, "tokenizer.ggml.merges: is missing"),
        ({"tokenizer__ggml__merges": ["q zz"]}, "tokenizer.ggml.merges: the tokenizers library refuses them"),
        ({"tokenizer__ggml__token_type": [1]}, "tokenizer.ggml.token_type: 1 types for 425 tokens"),
        ({"tokenizer__ggml__eos_token_id": 425}, "tokenizer.ggml.eos_token_id: 425 is not below 425"),
        ({"tokenizer__ggml__eos_token_id": None}, "eos_token is missing"),
    ],
)
def test_other_kinds_and_broken_ones_are_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        load_tokenizer(written(tmp_path, **changed))
    assert "m.gguf" in str(raised.value) and "\n" not in str(raised.value)
