"""Tokenizers of real models: against transformers (goldens), files that are broken, chat templates."""

import dataclasses
import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from rlvr_limit.tokenizer import load_tokenizer
from rlvr_limit.types import UserError
from tests.support.tokenizer_files import ADDED, write_qwen2

GOLDEN = json.loads(
    Path(__file__).parents[1].joinpath("goldens").joinpath("tokenizer.json").read_text(encoding="utf-8")
)
TEXTS = pytest.mark.parametrize("case", GOLDEN["texts"], ids=lambda case: repr(case["text"][:20]))
CHATS = pytest.mark.parametrize("case", GOLDEN["chats"], ids=lambda case: str(len(case["messages"])))
HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The golden's vocabulary as vocab.json and merges.txt."""
    return write_qwen2(tmp_path_factory.mktemp("qwen2"), (GOLDEN["vocabulary"], GOLDEN["merges"]))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@pytest.fixture
def change(folder, tmp_path):
    """A copy of the folder with some fields of its config changed (None removes a field) and some files replaced."""

    def changed(files=(), **fields):
        for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
            (tmp_path / name).write_bytes((folder / name).read_bytes())
        config = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8")) | fields
        kept = {name: value for name, value in config.items() if value is not None}
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(kept), encoding="utf-8")
        for name, text in dict(files).items():
            (tmp_path / name).unlink(missing_ok=True)
            if text is not None:
                (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return changed


@TEXTS
def test_ids_and_text_are_those_of_transformers(tokenizer, case):
    ids = tokenizer.encode(case["text"])
    assert list(ids) == case["ids"]
    plain = dataclasses.replace(tokenizer, stop_ids=())
    assert plain.decode(ids) == case["decoded"]
    assert [plain.decode(ids[:-n]) for n in (1, 2, 3)] == case["cut"]


@TEXTS
def test_tokenizer_json_gives_the_same_ids_as_vocabulary_and_merges(tokenizer, change, case):
    made = change({"tokenizer.json": tokenizer.backend.to_str(), "vocab.json": None, "merges.txt": None})
    assert list(load_tokenizer(made).encode(case["text"])) == case["ids"]


@given(st.text())
def test_decoding_gives_back_the_text_in_nfc(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == unicodedata.normalize("NFC", text)


@given(st.text(min_size=1))
def test_decoding_an_unfinished_answer_gives_the_start_of_its_text(tokenizer, text):
    ids = tokenizer.encode(text)
    for n in range(len(ids)):
        assert tokenizer.decode(ids).startswith(tokenizer.decode(ids[:n]).rstrip("\ufffd"))


@given(st.lists(st.integers(0, 424)))
def test_any_ids_can_be_decoded(tokenizer, ids):
    tokenizer.decode(ids)


def test_bytes_that_are_no_whole_character_become_the_replacement_character(tokenizer):
    ids = tokenizer.encode("a🙂")
    assert len(ids) == 5 and tokenizer.decode(ids) == "a🙂"
    assert tokenizer.decode(ids[:-1]) == "a\ufffd"


def test_special_tokens_in_the_text_are_one_id_each(tokenizer):
    first = len(GOLDEN["vocabulary"])
    assert tokenizer.encode("".join(ADDED)) == tuple(range(first, first + len(ADDED)))
    assert [tokenizer.token_id(token) for token in ADDED] == list(range(first, first + len(ADDED)))
    assert tokenizer.vocab_size == first + len(ADDED)


def test_only_stop_tokens_at_the_end_are_left_out(tokenizer):
    text = "4<|im_end|>2<|endoftext|>"
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode(text + "<|im_end|>")) == text
    both = dataclasses.replace(tokenizer, stop_ids=tuple(map(tokenizer.token_id, ("<|im_end|>", "<|endoftext|>"))))
    assert both.decode(both.encode(text)) == "4<|im_end|>2"
    assert both.decode(()) == both.decode(both.stop_ids) == ""


def test_an_id_without_a_token_gives_no_text(tokenizer):
    assert tokenizer.decode((*tokenizer.encode("a"), tokenizer.vocab_size + 7, *tokenizer.encode("b"))) == "ab"


def test_end_and_padding_are_those_of_the_config(tokenizer, change):
    assert tokenizer.eos_id == tokenizer.token_id("<|im_end|>") and tokenizer.stop_ids == (tokenizer.eos_id,)
    assert tokenizer.pad_id == tokenizer.token_id("<|endoftext|>")
    without = load_tokenizer(change(pad_token=None, eos_token={"content": "<|endoftext|>", "lstrip": False}))
    assert without.eos_id == without.pad_id == tokenizer.token_id("<|endoftext|>")


def test_flags_of_added_tokens_are_kept(change):
    first = len(GOLDEN["vocabulary"])
    tokens = {
        str(first): {"content": "<a>", "special": True, "rstrip": True},
        str(first + 1): {"content": "<|im_end|>"},
    }
    tokenizer = load_tokenizer(change(added_tokens_decoder=tokens, pad_token=None))
    assert tokenizer.encode("<a>  \n") == (first,)
    assert tokenizer.backend.get_added_tokens_decoder()[first].special
    assert not tokenizer.backend.get_added_tokens_decoder()[first + 1].special


def _with_lead(tokenizer):
    """tokenizer.json with a post-processor as LLaMA-3 has it: <|im_start|> before every text."""
    backend = Tokenizer.from_str(tokenizer.backend.to_str())
    start = "<|im_start|>"
    backend.post_processor = TemplateProcessing(
        single=f"{start} $A", pair=f"{start} $A {start} $B", special_tokens=[(start, tokenizer.token_id(start))]
    )
    return {"tokenizer.json": backend.to_str()}


def test_what_the_model_puts_before_a_text_is_its_lead_and_encode_adds_nothing(tokenizer, change):
    assert tokenizer.lead == ""
    llama = load_tokenizer(change(_with_lead(tokenizer), add_bos_token=None))
    assert llama.lead == "<|im_start|>"
    assert llama.encode("hello") == tokenizer.encode("hello")
    assert load_tokenizer(change(_with_lead(tokenizer), add_bos_token=False)).lead == ""
    assert load_tokenizer(change(add_bos_token=True, bos_token="<|endoftext|>")).lead == "<|endoftext|>"


def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"half a surrogate pair, '\\ud83d', at character 2 of the text, after 'ab'"):
        tokenizer.encode("ab\ud83d")


@CHATS
def test_conversations_are_laid_out_as_by_transformers(tokenizer, case):
    assert tokenizer.chat(case["messages"]) == case["prompt"]
    assert tokenizer.chat(case["messages"], add_generation_prompt=False) == case["text"]


def test_a_template_file_goes_before_the_config_and_default_before_other_names(change):
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "{{ eos_token }}!"}]
    assert load_tokenizer(change(chat_template=named)).chat(HELLO) == "<|im_end|>!"
    assert load_tokenizer(change({"chat_template.jinja": "file"}, chat_template=named)).chat(HELLO) == "file"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("  {% if true %}\n a\n  {% endif %}\nb", " a\nb"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{{ {'b': '<é>', 'a': 1} | tojson }}", '{"b": "<é>", "a": 1}'),
        ("{{ [1] | tojson(indent=1) }}", "[\n 1\n]"),
        ("{{ 'fixed' if strftime_now is not defined else strftime_now('%Y') }}", "fixed"),
        ("{{ bos_token is defined }} {{ tools is none }}", "False True"),
        ("a{% generation %}\n {{ 'b' }}\n{% endgeneration %}\nc", "a b\nc"),
        ("{% set x = 1 %}{% generation %}{{ x }}{% set x = 2 %}{% endgeneration %}{{ x }}", "11"),
    ],
)
def test_templates_run_as_in_transformers_but_know_no_date(change, template, text):
    assert load_tokenizer(change(chat_template=template)).chat(HELLO) == text


def test_tokens_that_only_special_tokens_map_names_are_found_there(change):
    named = json.dumps({"eos_token": {"content": "<|endoftext|>", "lstrip": False}, "pad_token": "<|im_start|>"})
    only_there = load_tokenizer(change({"special_tokens_map.json": named}, eos_token=None, pad_token=None))
    assert only_there.special_tokens == {"eos_token": "<|endoftext|>", "pad_token": "<|im_start|>"}
    both = load_tokenizer(change({"special_tokens_map.json": named}, pad_token=None))
    assert both.special_tokens == {"eos_token": "<|im_end|>", "pad_token": "<|im_start|>"}


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("a\n{% if %}", "broken in line 2"),
        ("{% generation %}", "broken in line 1"),
        ("{{ raise_exception('no system turn') }}", "fails on this conversation: no system turn"),
        ("{{ strftime_now('%Y') }}", "'strftime_now' is undefined"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ 'a' + none }}", "fails on this conversation"),
    ],
)
def test_templates_that_are_broken_or_reach_out_are_refused(change, template, message):
    tokenizer = load_tokenizer(change(chat_template=template))
    with pytest.raises(UserError, match=message) as raised:
        tokenizer.chat(HELLO)
    assert tokenizer.folder in str(raised.value)


def test_a_model_without_a_chat_template_says_so(change):
    with pytest.raises(UserError, match="has no chat template"):
        load_tokenizer(change(chat_template=None)).chat(HELLO)


BAD_ADDED = {"420": {"content": "<|endoftext|>"}, "430": {"content": "<|im_end|>"}}


@pytest.mark.parametrize(
    ("files", "fields", "message"),
    [
        ({"tokenizer_config.json": None}, {}, "has no tokenizer_config.json"),
        ({"tokenizer_config.json": "{"}, {}, "tokenizer_config.json: broken JSON: .*line 1 column 2"),
        ({"tokenizer_config.json": "[]"}, {}, "tokenizer_config.json: a JSON object is needed, but it holds a list"),
        ({"vocab.json": None}, {}, "neither tokenizer.json nor vocab.json$"),
        ({"vocab.json": None, "merges.txt": None}, {}, "neither tokenizer.json nor vocab.json and merges.txt"),
        ({"vocab.json": '{"a": 1, "b"'}, {}, "vocab.json: broken JSON"),
        ({"vocab.json": '{"a": 1, "b": 1}'}, {}, "vocab.json: every token needs an id of its own"),
        ({"vocab.json": '{"a": "1"}'}, {}, "vocab.json: every token needs an id of its own"),
        ({"merges.txt": "#version: 0.2\na b c\n"}, {}, "merges.txt: line 2 must hold two tokens, but is 'a b c'"),
        ({"merges.txt": "a \u00e9\u00e9\u00e9\n"}, {}, "merges.txt: line 1 speaks of '\u00e9\u00e9\u00e9'"),
        ({"tokenizer.json": '{"model": '}, {}, "tokenizer.json: broken JSON"),
        ({"tokenizer.json": '{"model": {}}'}, {}, "tokenizer.json: the tokenizers library refuses it"),
        ({}, {"tokenizer_class": "GPT2Tokenizer"}, "tokenizer_class is 'GPT2Tokenizer'; .* only Qwen2Tokenizer"),
        ({}, {"add_prefix_space": True}, "add_prefix_space is not supported"),
        ({}, {"split_special_tokens": True}, "split_special_tokens is not supported"),
        ({}, {"added_tokens_decoder": {"x": {"content": "<a>"}}}, "added_tokens_decoder must be"),
        ({}, {"added_tokens_decoder": {"420": {"text": "<a>"}}}, "added_tokens_decoder must be"),
        ({}, {"added_tokens_decoder": BAD_ADDED}, "gives '<|im_end|>' the id 430, but .* gets 421".replace("|", r"\|")),
        ({}, {"eos_token": None}, "eos_token is missing"),
        ({}, {"eos_token": "</s>"}, "eos_token '</s>' is not in the vocabulary"),
        ({}, {"chat_template": [{"name": "tool_use", "template": ""}]}, "no `default`, only 'tool_use'"),
        ({}, {"chat_template": [1]}, "chat_template must be a text or a list"),
    ],
)
def test_missing_and_broken_files_are_named(change, files, fields, message):
    made = change(files, **fields)
    with pytest.raises(UserError, match=message) as raised:
        load_tokenizer(made)
    assert str(made) in str(raised.value) and "\n" not in str(raised.value)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere is not a folder"):
        load_tokenizer(tmp_path / "nowhere")


def test_an_unknown_token_is_named(tokenizer):
    with pytest.raises(UserError, match="no token '</s>'"):
        tokenizer.token_id("</s>")
