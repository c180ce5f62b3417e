"""Text to token ids and back: whole words for small tasks, the tokenizers library for real models."""

from rlvr_limit.tokenizer.load import load_tokenizer
from rlvr_limit.tokenizer.text import TextTokenizer
from rlvr_limit.tokenizer.words import EOS, PAD, WordTokenizer

__all__ = ["EOS", "PAD", "TextTokenizer", "WordTokenizer", "load_tokenizer"]
