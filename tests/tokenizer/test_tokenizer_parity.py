"""Tokenizers beside transformers, live, on the small vocabulary and on real ones whose folders the environment names.

RLVR_TOKENIZER_FOLDER: tokenizer files of a checkpoint. RLVR_BENCHMARK_FOLDER: .json, .jsonl and .jsonl.gz files, below
any number of folders, every text of which is a case. RLVR_CHAT_TEMPLATE_FOLDER: chat templates as *.jinja.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlvr_limit.tasks.prompts import TEMPLATES, render
from rlvr_limit.tokenizer import load_tokenizer
from rlvr_limit.types import UserError
from tests.support.tokenizer_files import write_qwen2

pytestmark = pytest.mark.parity

CHATS = (
    [{"role": "user", "content": "What is 1+1?"}],
    [{"role": "user", "content": " <b>&'\"\n\n</b> é "}],
    [{"role": "system", "content": " Be brief. "}, {"role": "user", "content": "2+2?"}],
    [
        {"role": "user", "content": "2+2?"},
        {"role": "assistant", "content": "<think>\nsum\n</think>\n\n\\boxed{4}"},
        {"role": "user", "content": "Sure?\n"},
    ],
    [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}],
    [{"role": "assistant", "content": "I begin."}],
)


def named_folder(variable: str) -> Path:
    if variable not in os.environ:
        pytest.skip(f"{variable} is not given")
    return Path(os.environ[variable])


@pytest.fixture(scope="module", params=["small", "RLVR_TOKENIZER_FOLDER"])
def pair(request, tmp_path_factory):
    """(ours without stop tokens, that of transformers)."""
    transformers = pytest.importorskip("transformers")
    small = request.param == "small"
    folder = write_qwen2(tmp_path_factory.mktemp("small")) if small else named_folder(request.param)
    return dataclasses.replace(load_tokenizer(folder), stop_ids=()), transformers.AutoTokenizer.from_pretrained(folder)


def strings(value: Any) -> Iterator[str]:
    """Every text in a JSON value, with the keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from strings(part)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield key
            yield from strings(part)


def rows(path: Path) -> Iterator[Any]:
    text = (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8").read()
    if path.suffix == ".json":
        yield json.loads(text)
    else:
        yield from (json.loads(line) for line in text.split("\n") if line)


def differing(pair, texts: list[str]) -> list[str]:
    """Texts whose ids, or the text of whose ids, are not those of transformers."""
    ours, theirs = pair
    wrong = []
    for text in texts:
        ids = ours.encode(text)
        if list(ids) != theirs.encode(text, add_special_tokens=False) or ours.decode(ids) != theirs.decode(ids):
            wrong.append(text)
    return wrong


def test_every_text_of_the_benchmarks(pair, capsys):
    """Each text as a whole, and each of its lines."""
    folder = named_folder("RLVR_BENCHMARK_FOLDER")
    paths = [path for pattern in ("*.json", "*.jsonl", "*.jsonl.gz") for path in sorted(folder.rglob(pattern))]
    texts = dict.fromkeys(text for path in paths for row in rows(path) for text in strings(row))
    lines = dict.fromkeys(line for text in texts for line in text.split("\n"))
    wrong = differing(pair, [*texts, *lines])
    with capsys.disabled():
        print(f"\n{pair[0].folder}: {len(texts):,} texts and {len(lines):,} lines of {len(paths)} files, ", end="")
        print(f"{len(wrong)} differ")
    assert len(lines) >= 10_000 and not wrong, wrong[:3]


def test_every_special_token_wherever_it_stands(pair, capsys):
    ours, theirs = pair
    added = {token.content: i for i, token in theirs.added_tokens_decoder.items()}
    assert {token: ours.token_id(token) for token in added} == added
    around = ("{}", " {} ", "a{}b", "a {}\n b", "\n{}\n", "{0}{0}", "é{}\u0301", "<{}>", "\u00a0{}\t")
    texts = [form.format(token) for token in added for form in around] + ["".join(added), " ".join(added)]
    texts += [token[:-1] for token in added] + [token[1:] for token in added]
    wrong = differing(pair, texts)
    with capsys.disabled():
        print(f"\n{ours.folder}: {len(added)} added tokens in {len(texts)} texts, {len(wrong)} differ")
    assert not wrong, wrong[:3]
    assert ours.eos_id == theirs.eos_token_id
    assert ours.pad_id == (theirs.eos_token_id if theirs.pad_token_id is None else theirs.pad_token_id)
    assert ours.vocab_size == max(theirs.get_vocab().values()) + 1


def test_every_id_and_any_row_of_ids_is_decoded_alike(pair, capsys):
    ours, theirs = pair
    rng = random.Random(0)
    drawn = [[rng.randrange(ours.vocab_size + 9) for _ in range(rng.randrange(1, 40))] for _ in range(2_000)]
    cases = [[i] for i in range(ours.vocab_size)] + drawn
    wrong = [ids for ids in cases if ours.decode(ids) != theirs.decode(ids)]
    with capsys.disabled():
        print(f"\n{ours.folder}: {ours.vocab_size:,} ids alone and {len(drawn):,} random rows, {len(wrong)} differ")
    assert not wrong, wrong[:3]


def test_what_is_put_before_a_text_is_the_same(pair):
    ours, theirs = pair
    for text in ("", "1+1?"):
        assert list(ours.encode(ours.lead + text)) == theirs.encode(text)


def test_prompts_have_the_same_ids(pair):
    ours, theirs = pair
    question = "Find $x$ in $\\frac{x}{2} = 12$."
    for template in TEMPLATES:
        prompt = render(template.name, question, ours)
        assert list(ours.encode(prompt)) == theirs.encode(prompt, add_special_tokens=False), template.name
        if not template.chat:
            assert list(ours.encode(prompt)) == theirs.encode(prompt.removeprefix(ours.lead)), template.name


def laid_out(render_one, refusals: tuple[type[Exception], ...]) -> str | None:
    """The text, or None where the template refuses the conversation."""
    try:
        return render_one()
    except refusals:
        return None


def test_every_chat_template_lays_out_every_conversation_alike(pair, capsys):
    """The model's own, and those of the folder. A template may refuse a conversation; then both refuse it."""
    jinja2 = pytest.importorskip("jinja2")
    ours, theirs = pair
    templates = {"its own": ours.chat_template}
    if "RLVR_CHAT_TEMPLATE_FOLDER" in os.environ:
        paths = sorted(named_folder("RLVR_CHAT_TEMPLATE_FOLDER").rglob("*.jinja"))
        templates |= {path.name: path.read_text(encoding="utf-8") for path in paths}
    texts = refused = 0
    for name, template in templates.items():
        mine = dataclasses.replace(ours, chat_template=template)
        for chat in CHATS:
            for start in (True, False):
                text = laid_out(lambda m=mine, c=chat, s=start: m.chat(c, add_generation_prompt=s), (UserError,))
                want = laid_out(
                    lambda t=template, c=chat, s=start: theirs.apply_chat_template(
                        c, chat_template=t, tokenize=False, add_generation_prompt=s
                    ),
                    (jinja2.TemplateError, TypeError),
                )
                assert text == want, (name, chat, start)
                if text is None:
                    refused += 1
                else:
                    texts += 1
                    assert list(ours.encode(text)) == theirs.encode(text, add_special_tokens=False), name
    with capsys.disabled():
        print(
            f"\n{ours.folder}: {len(templates)} chat templates, {texts} conversations alike, {refused} refused by both"
        )
    assert texts
