"""Text to token ids and back, by the tokenizers library: of released models, and of whole words for small tasks."""

from rlvr_limit.tokenizer.load import load_tokenizer
from rlvr_limit.tokenizer.text import TextTokenizer
from rlvr_limit.tokenizer.words import word_tokenizer
