"""A small byte-level BPE vocabulary in the file format of Qwen2.5, trained here on a few lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from rlvr_limit.tokenizer.splits import QWEN2_SPLIT

LINES = (
    "Please reason step by step, and put your final answer within \\boxed{}.",
    "Let $x$ be the number of apples; then 12 + 34 = 46 and $\\frac{1}{2}x = 23$.",
    "def solve(n):\n    return sum(range(n))\n\n\nprint(solve(10))",
    "Question: it's what they've said, we'll see. Don't you think so?",
    "The café opened at nine; naïve Zoë paid 3 € for a crème brûlée.",
    "<|im_start|>user\nWhat is the answer?<|im_end|>\n<|im_start|>assistant\n",
)

CHATML = (
    "{%- if messages[0]['role'] != 'system' %}\n"
    "    {{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}\n"
    "{%- endif %}\n"
    "{% for message in messages %}\n"
    "    {% if message.role not in ('system', 'user', 'assistant') %}\n"
    "        {{- raise_exception('no role ' ~ message.role) }}\n"
    "    {% endif %}\n"
    "    {{- '<|im_start|>' + message['role'] + '\\n' + message.content | trim + '<|im_end|>\\n' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

ADDED = {
    "<|endoftext|>": True,
    "<|im_start|>": True,
    "<|im_end|>": True,
    "<tool_call>": False,
    "</tool_call>": False,
}
"""Added tokens in the order of their ids, and whether they are special."""


def trained_vocabulary(size: int = 420) -> tuple[dict[str, int], list[str]]:
    """(token -> id, merges as lines), all 256 bytes first."""
    backend = Tokenizer(BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend.train_from_iterator(
        LINES, BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False, special_tokens=[])
    )
    model = json.loads(backend.to_str())["model"]
    return model["vocab"], [" ".join(merge) for merge in model["merges"]]


def tokenizer_config(first_id: int, **changes: Any) -> dict[str, Any]:
    """tokenizer_config.json whose added tokens start at first_id."""
    flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
    config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(first_id + i): {"content": token, **flags, "special": special}
            for i, (token, special) in enumerate(ADDED.items())
        },
        "bos_token": None,
        "chat_template": CHATML,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    return config | changes


def write_qwen2(folder: Path, trained: tuple[dict[str, int], list[str]] | None = None, **changes: Any) -> Path:
    """vocab.json, merges.txt and tokenizer_config.json in folder; changes are to fields of the config."""
    vocabulary, merges = trained or trained_vocabulary()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    config = tokenizer_config(len(vocabulary), **changes)
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder
