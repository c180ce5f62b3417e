"""Text to token ids and back, by the tokenizers library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tokenizers import Tokenizer

from rlvr_limit.tokenizer.chat import Message, render_chat
from rlvr_limit.types import UserError


@dataclass(frozen=True, eq=False)
class TextTokenizer:
    """The tokenizer of one checkpoint folder (load_tokenizer) or of a small task (word_tokenizer).

    encode recognises special tokens wherever they stand in a text and adds none of its own.
    """

    folder: str  # named in error lines
    backend: Tokenizer = field(repr=False)
    vocab_size: int  # largest id + 1; an embedding may have more rows, never fewer
    eos_id: int
    pad_id: int  # where a model names no padding token, its end-of-sequence token, as such rows are never read
    stop_ids: tuple[int, ...]  # what decode leaves out at the end; (eos_id,) unless replaced
    # What the model's own tokenizer puts before any text: LLaMA-3's beginning of sequence, nothing for Qwen2.5. A
    # prompt written by hand starts with it; a chat template writes it itself. So no prompt has it twice.
    lead: str
    special_tokens: Mapping[str, str]  # {"eos_token": "<|im_end|>", ...}, the variables of the chat template
    chat_template: str | None = field(repr=False)

    def token_id(self, token: str) -> int:
        """The id of one token by its text. Raises UserError where the vocabulary has none."""
        number = self.backend.token_to_id(token)
        if number is None:
            raise UserError(f"{self.folder}: the vocabulary has no token {token!r}")
        return number

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text; () for "".

        Raises UserError for half a surrogate, which is not valid Unicode, and for a word that the vocabulary lacks.
        """
        try:
            text.encode()
            return tuple(self.backend.encode(text, add_special_tokens=False).ids)
        except UnicodeEncodeError as error:
            raise UserError(
                f"tokenizer: half a surrogate pair, {text[error.start]!r}, at character {error.start} of the text, "
                f"after {text[max(0, error.start - 20) : error.start]!r}"
            ) from error
        except Exception as error:  # the library has no exception class of its own
            unknown = [word for word in text.split() if self.backend.token_to_id(word) is None]
            what = f"the vocabulary has no token {unknown[0]!r}" if unknown else str(error)
            raise UserError(f"{self.folder}: {text!r:.80} cannot be encoded: {what}") from error

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, stop tokens at the end left out.

        Special tokens anywhere else stay visible: they are part of what the model drew, and a grader must not read
        `4<|im_start|>2` as 42. Bytes that are no whole UTF-8 character, as at the end of an unfinished answer, become
        U+FFFD. An id that no token has (rows that pad an embedding) gives no text. Spaces are never tidied up.
        """
        end = len(ids)
        while end and ids[end - 1] in self.stop_ids:
            end -= 1
        return self.backend.decode(list(ids[:end]), skip_special_tokens=False)

    def chat(self, messages: Sequence[Message], add_generation_prompt: bool = True) -> str:
        """The text of a conversation under the model's own chat template, its lead included.

        Raises UserError where the model has no chat template, or where that template refuses the conversation.
        """
        if self.chat_template is None:
            raise UserError(
                f"{self.folder}: this model has no chat template (none in tokenizer_config.json, no "
                "chat_template.jinja): choose a prompt that needs none"
            )
        return render_chat(self.chat_template, messages, self.special_tokens, add_generation_prompt, self.folder)
