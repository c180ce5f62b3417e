"""Makes tokenizer.json beside it: what transformers makes of texts and conversations under the small vocabulary.

Run it where transformers is installed: python -m tests.goldens.make_tokenizer_goldens
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import transformers

from tests.support import tokenizer_files

GOLDEN = Path(__file__).with_name("tokenizer.json")

TEXTS = (
    *tokenizer_files.LINES,
    "",
    " ",
    "\n",
    " \n\n  \r\n\t x",
    "12345 3.14159 -7e10",
    "I'LL we'Re isn'T o'clock",
    "cafe\u0301 \u212b \ufb01ne",  # NFC joins e and its accent and maps the Angstrom sign, but leaves the ligature
    "日本語のテスト。数学题目：求 x² 的值",
    "🙂👩‍👩‍👧 \u200b\ufeff",
    "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n",
    "a<|endoftext|>b <|im_end|> c<tool_call>{}</tool_call>",
    "<|im_start|<|im_end||>",
    "\\boxed{\\frac{1}{2}} $$\\int_0^1 x\\,dx$$",
    "def f(x):\n\treturn x  # two  spaces\n",
    "\x00\x7f\u0085\u2028",
    "ПРИВЕТ мир; שלום עולם; ١٢٣ ४५६",
)
CUTS = (1, 2, 3)
"""Ids left off the end before decoding: this splits characters of several bytes."""

CHATS = (
    [{"role": "user", "content": "What is 1+1?"}],
    [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "<b>\n'1' & \"2\"</b>"}],
    [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "\\boxed{4}"},
        {"role": "user", "content": "Sure?\n"},
    ],
)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        reference = transformers.AutoTokenizer.from_pretrained(tokenizer_files.write_qwen2(Path(folder)))
        encoded = [reference.encode(text, add_special_tokens=False) for text in TEXTS]
        vocabulary, merges = tokenizer_files.trained_vocabulary()
        golden = {
            "transformers": transformers.__version__,
            "vocabulary": vocabulary,
            "merges": merges,
            "texts": [
                {
                    "text": text,
                    "ids": ids,
                    "decoded": reference.decode(ids),
                    "cut": [reference.decode(ids[:-n]) for n in CUTS],
                }
                for text, ids in zip(TEXTS, encoded, strict=True)
            ],
            "chats": [
                {
                    "messages": chat,
                    "text": reference.apply_chat_template(chat, tokenize=False),
                    "prompt": reference.apply_chat_template(chat, tokenize=False, add_generation_prompt=True),
                }
                for chat in CHATS
            ],
        }
    GOLDEN.write_text(json.dumps(golden, indent=0, ensure_ascii=True) + "\n", encoding="utf-8")
    print(f"{GOLDEN}: {len(TEXTS)} texts, {len(CHATS)} conversations, transformers {transformers.__version__}")


if __name__ == "__main__":
    main()
