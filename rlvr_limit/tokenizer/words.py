"""One token per word: the tokenizer of tasks that speak in a few words."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from rlvr_limit.types import UserError

PAD, EOS = "<pad>", "<eos>"


@dataclass(frozen=True)
class WordTokenizer:
    """One token per whitespace-separated word; ids are positions in words, after <pad> = 0 and <eos> = 1."""

    words: tuple[str, ...]

    @cached_property
    def vocabulary(self) -> tuple[str, ...]:
        """All tokens in id order."""
        return (PAD, EOS, *self.words)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.vocabulary)}

    @property
    def vocab_size(self) -> int:
        """Largest id + 1."""
        return len(self.vocabulary)

    @property
    def pad_id(self) -> int:
        """Fills rows up to a common length; never sampled in training data, never scored."""
        return 0

    @property
    def eos_id(self) -> int:
        """Ends an answer."""
        return 1

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """All ids that end an answer."""
        return (self.eos_id,)

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text. Raises UserError naming the first word that is not in the vocabulary."""
        for word in text.split():
            if word not in self._ids:
                raise UserError(f"tokenizer: the word {word!r} of {text!r} is not in the vocabulary")
        return tuple(self._ids[word] for word in text.split())

    def decode(self, ids: tuple[int, ...]) -> str:
        """Words joined by one space; the end-of-sequence token is left out, <pad> inside an answer is kept visible."""
        return " ".join(self.vocabulary[i] for i in ids if i != self.eos_id)
