"""The beginning of a question that an audit asks, and whether a text goes on with the rest."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_limit.tasks.questions import beginning, completes

WORDS = st.lists(st.text("ab$.?", min_size=1, max_size=6), min_size=2, max_size=12)
SHARES = st.sampled_from([0.4, 0.6, 0.8])


@settings(max_examples=30)
@given(WORDS, SHARES)
def test_a_beginning_is_as_many_whole_words_as_the_share_holds_and_one_at_least(words, share):
    question = " ".join(words)
    most = Fraction(str(share)) * len(question)
    fitting = [" ".join(words[:i]) for i in range(1, len(words)) if len(" ".join(words[:i])) <= most]
    assert beginning(question, share) == (fitting[-1] if fitting else words[0])
    assert beginning(question, 0.0) == question


@settings(max_examples=30)
@given(WORDS, SHARES, st.data())
def test_a_text_completes_a_question_where_its_first_words_are_the_rest(words, share, data):
    question = " ".join(words)
    rest = words[len(beginning(question, share).split()) :]
    assert completes(question, share, "  " + "\n".join(rest) + "\n\nThe answer is 3.")
    changed = data.draw(st.integers(0, len(rest) - 1))
    assert not completes(question, share, " ".join([*rest[:changed], rest[changed] + "c", *rest[changed + 1 :]]))
    assert not completes(question, share, " ".join(rest[:-1]))


@pytest.mark.parametrize("question", ["Why?", ""])
def test_a_question_of_one_word_is_asked_whole_and_completed_by_nothing(question):
    assert beginning(question, 0.4) == question and not completes(question, 0.4, "Why?")


def test_lines_of_a_question_stay_as_they_are():
    assert beginning("Find x.\n\n  Then find  y soon", 0.7) == "Find x.\n\n  Then"
