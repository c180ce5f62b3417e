"""Whose texts are scored: other people's, from a file, and an arm's in the vocabulary of the model that scores them."""

import json
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from rlvr_limit import records
from rlvr_limit.evaluation import score_inputs
from rlvr_limit.tasks import references
from rlvr_limit.tokenizer import load_tokenizer
from rlvr_limit.types import Problem, Stop, UserError
from tests.support.records_rows import sample, write
from tests.support.tokenizer_files import LINES, trained_vocabulary, write_qwen2

QUESTIONS = {"mine/0": "2 + 2?", "mine/1": "3 + 3?"}
TEXT = f"The sum: {LINES[0]} 4"


def problems(words=None):
    encode = words.encode if words else lambda text: (0,)
    return tuple(Problem(name, asked, asked, encode(asked), "4") for name, asked in QUESTIONS.items())


def written(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_references_are_found_by_id_and_by_question_in_the_order_of_the_file(tmp_path):
    rows = (
        {"problem_id": "mine/1", "text": "6"},
        {"problem": "2 + 2?", "text": "4"},
        {"problem": "3 + 3?", "text": "six"},
    )
    found = references.load(written(tmp_path / "gt.jsonl", *rows), problems())
    assert found == {"mine/1": ("6", "six"), "mine/0": ("4",)}


GOOD = {"problem_id": "mine/0", "text": "4"}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{oops", r"gt.jsonl:2: no JSON"),
        (["mine/0", "4"], r"gt.jsonl:2: a JSON list, not an object"),
        ({"text": "4"}, r"gt.jsonl:2: found 0 of the fields problem_id and problem; it must be one"),
        (GOOD | {"problem": "2 + 2?"}, r"gt.jsonl:2: found 2 of the fields problem_id and problem"),
        ({"problem_id": "mine/0"}, r"gt.jsonl:2: field 'text': None is not a text"),
        (GOOD | {"text": "  "}, r"gt.jsonl:2: field 'text': '  ' is not a text"),
        (
            GOOD | {"problem_id": "mine/7"},
            r"gt.jsonl:2: field 'problem_id': 'mine/7' is not one of this study, as 'mine/0'",
        ),
        ({"problem": "5 + 5?", "text": "10"}, r"gt.jsonl:2: field 'problem': '5 \+ 5\?' is not one of this study"),
    ],
)
def test_a_bad_line_of_references_is_named(tmp_path, row, said):
    with pytest.raises(UserError, match=said) as refused:
        references.load(written(tmp_path / "gt.jsonl", GOOD, row), problems())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["gt.jsonl", "gt.txt"])
def test_a_file_of_references_that_is_missing_or_of_another_kind_is_named(tmp_path, name):
    with pytest.raises(UserError, match=f"config.score.references: found no .*{name}"):
        references.load(tmp_path / name, problems())


@pytest.fixture(scope="module")
def vocabularies(tmp_path_factory):
    """Two tokenizers that cut a text differently."""
    root = tmp_path_factory.mktemp("words")
    sizes = {"base": 420, "rl": 300}
    found = {name: load_tokenizer(write_qwen2(root / name, trained_vocabulary(size))) for name, size in sizes.items()}
    assert found["base"].encode(TEXT) != found["rl"].encode(TEXT)
    return found


def prepared(root, vocabularies, same=False, file=""):
    def setup(name):
        words = vocabularies["base" if same else name]
        ends = words.token_id("<|im_end|>"), words.token_id("<|endoftext|>")
        return SimpleNamespace(
            tokenizer=words, vocabulary=str(words.vocab_size), problems=problems(words), stop_tokens=ends
        )

    entries = [SimpleNamespace(name=name, arm=name) for name in ("base", "rl")]
    return SimpleNamespace(
        root=root,
        evaluated=entries,
        named={entry.name: entry for entry in entries}.get,
        setups={name: setup(name) for name in ("base", "rl")},
        problems=problems(vocabularies["base"]),
        first=lambda problem: 4,
        task=SimpleNamespace(demonstrate=None),
        settings=SimpleNamespace(score=SimpleNamespace(references=file)),
    ), entries


def drawn(root, words, tokens, stop, problem="mine/0", index=0):
    filled = {"logp": [-1.0] * len(tokens), "logp_model": [-1.0] * len(tokens), "text": words.decode(tokens)}
    write(root, sample(problem, index, "rl", tokens=list(tokens), stop=stop, **filled))


@pytest.mark.parametrize("stop", [Stop.EOS, Stop.LENGTH])
def test_another_vocabulary_gets_the_same_text_and_an_end_token_of_its_own_exactly_where_there_was_one(
    tmp_path, vocabularies, stop
):
    theirs, mine = vocabularies["rl"], vocabularies["base"]
    ended = stop == Stop.EOS
    drawn(tmp_path, theirs, (*theirs.encode(TEXT), *[theirs.token_id("<|endoftext|>")] * ended), stop)
    study, (base, rl) = prepared(tmp_path, vocabularies)
    (under_base,), (under_rl,) = (score_inputs.texts_for(study, "rl", model, 4) for model in (base, rl))
    assert under_base.tokens == (*mine.encode(TEXT), *[mine.token_id("<|im_end|>")] * ended)
    assert under_base.prompt == mine.encode("2 + 2?") and under_rl.prompt == theirs.encode("2 + 2?")
    assert under_rl.tokens[: len(theirs.encode(TEXT))] == theirs.encode(TEXT)
    assert len(under_rl.tokens) == len(theirs.encode(TEXT)) + ended


def test_equal_vocabularies_keep_the_tokens_that_were_drawn_even_where_the_text_would_be_cut_otherwise(
    tmp_path, vocabularies
):
    words = vocabularies["base"]
    letters = tuple(token for letter in TEXT for token in words.encode(letter))
    assert words.decode(letters) == TEXT and letters != words.encode(TEXT)
    for index in (2, 1, 4):
        drawn(tmp_path, words, letters, Stop.LENGTH, index=index)
    study, (base, _) = prepared(tmp_path, vocabularies, same=True)
    # Of index 4 this study knows nothing: it asks for four samples.
    assert [(a.index, a.tokens) for a in score_inputs.texts_for(study, "rl", base, 16)] == [(1, letters), (2, letters)]
    assert [a.index for a in score_inputs.texts_for(study, "rl", base, 2)] == [1]


def test_references_are_in_each_models_vocabulary_behind_its_own_prompt_and_without_an_end_token(
    tmp_path, vocabularies
):
    rows = [{"problem_id": "mine/1", "text": f"{TEXT}{i}"} for i in range(3)]
    study, entries = prepared(tmp_path, vocabularies, file=str(written(tmp_path / "gt.jsonl", *rows)))
    assert score_inputs.given_texts(study) == ("references",)
    for entry in entries:
        words = vocabularies[entry.name]
        found = score_inputs.texts_for(study, "references", entry, 2)
        assert [a.tokens for a in found] == [words.encode(f"{TEXT}{i}") for i in range(2)]
        assert {(a.problem_id, a.prompt) for a in found} == {("mine/1", words.encode("3 + 3?"))}


def test_scores_of_an_older_version_without_entropies_are_still_there_and_what_they_lack_is_said(tmp_path):
    row = {"arm": "base", "problem_id": "p", "index": 0, "model": "base", "logp": [-1.0], "entropy": [0.5]}
    write(tmp_path, row, table="scores")
    (part,) = (tmp_path / "records" / "scores").glob("*.parquet")
    pq.write_table(pq.read_table(part).drop_columns(["entropy"]), part)
    assert records.read(tmp_path, "scores", columns=["logp"])["logp"].to_pylist() == [[-1.0]]
    with pytest.raises(UserError, match="has no column 'entropy': an older version wrote it; move .*scores away"):
        records.read(tmp_path, "scores")
