"""A tokenizer of whole words, for tasks that speak in a few of them."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel

from rlvr_limit.tokenizer.text import TextTokenizer

PAD, EOS = "<pad>", "<eos>"


def word_tokenizer(words: Iterable[str], name: str) -> TextTokenizer:
    """One id per word between white space: 0 for <pad>, 1 for <eos>, then the words in their order.

    name stands in error lines where a released tokenizer has its folder.
    """
    ids = {word: i for i, word in enumerate((PAD, EOS, *words))}
    # Without a token for unknown words, the library refuses them.
    backend = Tokenizer(WordLevel(ids))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return TextTokenizer(
        folder=name,
        backend=backend,
        vocab_size=len(ids),
        eos_id=ids[EOS],
        pad_id=ids[PAD],
        stop_ids=(ids[EOS],),
        lead="",
        special_tokens={"pad_token": PAD, "eos_token": EOS},
        chat_template=None,
    )
