"""Tokenizers of whole words: words to ids and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_limit.tokenizer import word_tokenizer
from rlvr_limit.types import UserError

WORDS = tuple("abcdefgh") + ("->", "12", "+")
TOKENIZER = word_tokenizer(WORDS, "letters")


@given(st.lists(st.sampled_from(WORDS)), st.sampled_from([" ", "  ", "\n", " \t "]))
def test_round_trip_gives_the_words_back_whatever_the_white_space(words, space):
    ids = TOKENIZER.encode(space.join(words))
    assert ids == tuple(2 + WORDS.index(word) for word in words)
    assert TOKENIZER.decode(ids) == " ".join(words)


def test_every_id_has_its_own_word_and_the_special_ones_stand_first():
    words = ("<pad>", "<eos>", *WORDS)
    assert [TOKENIZER.encode(word) for word in words] == [(i,) for i in range(2 + len(WORDS))]
    assert words[TOKENIZER.pad_id] == "<pad>" and words[TOKENIZER.eos_id] == "<eos>"


def test_decoding_leaves_the_end_token_out_and_shows_padding():
    ids = (*TOKENIZER.encode("a + b"), TOKENIZER.pad_id, TOKENIZER.eos_id)
    assert TOKENIZER.decode(ids) == "a + b <pad>"
    assert TOKENIZER.decode(()) == ""


@pytest.mark.parametrize(("text", "word"), [("a z b y", "'z'"), ("ab", "'ab'"), ("A", "'A'")])
def test_an_unknown_word_is_named(text, word):
    with pytest.raises(UserError, match=f"letters: '{text}' cannot be encoded: the vocabulary has no token {word}"):
        TOKENIZER.encode(text)


def test_the_vocabulary_s_size_is_the_largest_id_plus_one_and_the_end_token_is_the_only_stop():
    assert TOKENIZER.vocab_size == 2 + len(WORDS) == TOKENIZER.encode(WORDS[-1])[0] + 1
    assert TOKENIZER.stop_ids == (TOKENIZER.eos_id,)


def test_it_has_nothing_to_put_first_and_no_chat_template():
    assert TOKENIZER.lead == ""
    with pytest.raises(UserError, match="letters: this model has no chat template"):
        TOKENIZER.chat([{"role": "user", "content": "a"}])
