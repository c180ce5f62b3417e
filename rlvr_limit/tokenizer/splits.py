"""How byte-level BPE tokenizers split a text before they merge, by the names that llama.cpp has for the ways."""

from __future__ import annotations

from typing import NamedTuple

from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

# Contractions; words with the sign before them; numbers; signs with the line ends after them; white space, whose last
# character stays with the word that follows.
WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
SIGNS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2_SPLIT, LLAMA3_SPLIT = rf"{WORDS}|\p{{N}}|{SIGNS}", rf"{WORDS}|\p{{N}}{{1,3}}|{SIGNS}"


class Split(NamedTuple):
    """A way: the expression that splits, "" for single digits and then GPT-2's rules."""

    expression: str
    composes: bool = False  # Unicode is brought to its composed form (NFC)
    whole_words: bool = False  # a word that is a token stays whole, whatever the merges say
    begins: bool = False  # texts begin with the token for that, unless the file says otherwise


QWEN2 = Split(QWEN2_SPLIT, composes=True)
SPLITS = {
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "llama-bpe": Split(LLAMA3_SPLIT, whole_words=True, begins=True),
    "smollm": Split(""),
}


def byte_level(vocabulary: dict[str, int], merges: list[tuple[str, str]], split: Split) -> Tokenizer:
    """The tokenizer of a vocabulary; whatever the library raises where merges do not fit it."""
    backend = Tokenizer(BPE(vocab=vocabulary, merges=merges, ignore_merges=split.whole_words))
    if split.composes:
        backend.normalizer = normalizers.NFC()
    before = (
        pre_tokenizers.Split(Regex(split.expression), behavior="isolated")
        if split.expression
        else pre_tokenizers.Digits(individual_digits=True)
    )
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split.expression)
    backend.pre_tokenizer = pre_tokenizers.Sequence([before, bytes_])
    backend.decoder = decoders.ByteLevel()
    return backend
